"""The lines of an experiment as tables for a terminal, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from eqjax_experiments.reports.statistics import (
    LEVEL,
    Comparison,
    by_experiment,
    summarize,
)

ENDINGS = (".md", ".tex", ".png")


def columns(reference: str) -> tuple[str, ...]:
    """Return the heads of a table whose methods are compared to one of them."""
    return (
        "method",
        "seeds",
        "test error (%)",
        "median",
        f"minus {reference}",
        f"{100 * LEVEL:.0f} % interval",
        "p",
        "parameters, training",
        "at test",
        "steps",
        "seconds",
        "last layer",
    )


def print_table(console: Console, title: str, comparison: Comparison) -> None:
    """Print the lines of an experiment."""
    table = Table(title=f"{title}: test error over seeds, and medians of the rest")
    for column in columns(comparison.reference):
        left = column in ("method", "last layer")
        table.add_column(column, justify="left" if left else "right")
    for line in comparison.lines:
        table.add_row(*line.cells())
    console.print(table)


def markdown(comparison: Comparison) -> str:
    """Return the lines of an experiment as a Markdown table."""
    head = columns(comparison.reference)
    body = [line.cells() for line in comparison.lines]
    rows = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def latex(comparison: Comparison) -> str:
    """Return the lines of an experiment as a LaTeX table for the package booktabs."""
    names = columns(comparison.reference)
    head, *body = (
        " & ".join(
            cell.replace("%", r"\%").replace("±", r"$\pm$").replace("_", r"\_")
            for cell in row
        )
        for row in (names, *(line.cells() for line in comparison.lines))
    )
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(names) - 2)}l}}",
            rf"\toprule {head} \\ \midrule",
            *(rf"{row} \\" for row in body),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def write(
    rows: Sequence[dict[str, Any]], reference: str | None, folder: Path
) -> list[Path]:
    """Write the tables and pictures of every experiment; return the files.

    Args:
      rows: of any experiments.
      reference: as in `summarize`.
      folder: to write into.
    """
    from eqjax_experiments.reports import pictures  # slow to import

    experiments = by_experiment(rows)
    compared = {name: summarize(own, reference) for name, own in experiments.items()}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for experiment, comparison in compared.items():
        stem = folder / experiment.replace("/", "-")
        table, tex, picture = (stem.with_name(stem.name + e) for e in ENDINGS)
        table.write_text(markdown(comparison))
        tex.write_text(latex(comparison))
        pictures.save(pictures.comparison_figure(experiment, comparison.lines), picture)
        written += [table, tex, picture]
        mixed = [row for row in experiments[experiment] if "mixtures" in row]
        for method in dict.fromkeys(row["method"] for row in mixed):
            paths = [row["mixtures"] for row in mixed if row["method"] == method]
            file = stem.with_name(
                f"{stem.name}-{method.replace(' ', '_')}-mixtures.png"
            )
            figure = pictures.mixtures_figure(f"{experiment}, {method}", paths)
            pictures.save(figure, file)
            written.append(file)
    return written
