"""Tables and pictures of collected results.

python -m experiments.summarize runs/reproduce/results.jsonl [--out FOLDER]
"""

from __future__ import annotations

import dataclasses
import difflib
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table
from scipy import stats

from experiments.collect import read
from experiments.pictures import draw_comparison, draw_mixtures

# How a row of the table is called after what was read out. The mixture as it is and
# collapsed are one function; the latter tells the parameters at test.
READINGS = {
    "as trained": "",
    "collapsed": "",
    "best of front": "",
    "discretized": ", discretized",
    "retrained": ", retrained",
}
LEVEL = 0.95  # of the intervals
RESAMPLES = 9_999
COLUMNS = (
    "method",
    "seeds",
    "test error (%)",
    "median",
    "minus reference",
    f"{100 * LEVEL:.0f} % interval",
    "p",
    "parameters, training",
    "at test",
    "steps",
    "seconds",
    "last layer",
)


@dataclasses.dataclass(frozen=True)
class Line:
    """One method in one experiment; errors in percent, over the seeds.

    Attributes:
      method: its name, and what was read out.
      errors: of the test, by seed.
      difference: mean of the errors less those of the reference, seed by seed.
      interval: of the difference, by bootstrap of the pairs.
      p: of no difference, by Student's t-test of the pairs, two-sided.
      training_parameters: median.
      test_parameters: median.
      steps: median, of a single network.
      seconds: median, of the whole method.
      last_groups: how often the last layer with a group has which.
    """

    method: str
    errors: dict[int, float]
    difference: float | None
    interval: tuple[float, float] | None
    p: float | None
    training_parameters: float
    test_parameters: float
    steps: float
    seconds: float
    last_groups: dict[str, int]

    @property
    def mean(self) -> float:
        """Mean error."""
        return statistics.mean(self.errors.values())

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the errors; 0 for one seed."""
        errors = list(self.errors.values())
        return statistics.stdev(errors) if errors[1:] else 0.0

    @property
    def median(self) -> float:
        """Median error."""
        return statistics.median(self.errors.values())

    def cells(self) -> list[str]:
        """Return the text of every column."""
        low, high = self.interval or (None, None)
        return [
            self.method,
            str(len(self.errors)),
            f"{self.mean:.2f} ± {self.deviation:.2f}",
            f"{self.median:.2f}",
            "" if self.difference is None else f"{self.difference:+.2f}",
            "" if low is None else f"{low:+.2f} to {high:+.2f}",
            "" if self.p is None else f"{self.p:.3f}",
            f"{self.training_parameters:,.0f}",
            f"{self.test_parameters:,.0f}",
            f"{self.steps:,.0f}",
            f"{self.seconds:.0f}",
            ", ".join(f"{n} {name}" for name, n in self.last_groups.items()),
        ]


def summarize(rows: Sequence[dict[str, Any]], reference: str) -> Iterator[Line]:
    """Yield a line for every method of an experiment.

    Args:
      rows: of one experiment, as `collect` returns them.
      reference: the line that all others are compared to, seed by seed.

    Raises:
      ValueError: there is no such line.
    """
    table: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        if row["reading"] in READINGS:
            name = row["method"] + READINGS[row["reading"]]
            table.setdefault(name, {})[row["seed"]] = row
    if reference not in table:
        near = difflib.get_close_matches(reference, table, 1, 0)
        raise ValueError(
            f"--reference {reference!r} is no row of the table; nearest: {near}"
        )
    base = _errors(table[reference])
    for name, own in table.items():
        errors = _errors(own)
        pairs = [(errors[seed], base[seed]) for seed in errors if seed in base]
        other = name != reference and bool(pairs)
        several = other and len(pairs) > 1
        yield Line(
            name,
            errors,
            difference=float(np.mean([a - b for a, b in pairs])) if other else None,
            interval=_interval([a - b for a, b in pairs]) if several else None,
            p=float(stats.ttest_rel(*zip(*pairs, strict=True)).pvalue)
            if several
            else None,
            training_parameters=_median(own, "training_parameters"),
            test_parameters=_median(own, "test_parameters"),
            steps=_median(own, "steps"),
            seconds=_median(own, "seconds"),
            last_groups=dict(
                Counter(row["groups"][-1] for row in own.values()).most_common()
            ),
        )


def _errors(rows: dict[int, dict[str, Any]]) -> dict[int, float]:
    return {seed: 100 * row["test_error"] for seed, row in rows.items()}


def _median(rows: dict[int, dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] for row in rows.values())


def _interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the percentile interval of their mean, over resampled seeds."""
    found = stats.bootstrap(
        (differences,),
        np.mean,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def print_table(console: Console, title: str, lines: Sequence[Line]) -> None:
    """Print the lines of an experiment."""
    table = Table(title=f"{title}: test error over seeds, and medians of the rest")
    for column in COLUMNS:
        left = column in ("method", "last layer")
        table.add_column(column, justify="left" if left else "right")
    for line in lines:
        table.add_row(*line.cells())
    console.print(table)


def markdown(lines: Sequence[Line]) -> str:
    """Return the lines of an experiment as a Markdown table."""
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *(line.cells() for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def latex(lines: Sequence[Line]) -> str:
    """Return the lines of an experiment as a LaTeX table for the package booktabs."""
    head, *body = (
        " & ".join(
            cell.replace("%", r"\%").replace("±", r"$\pm$").replace("_", r"\_")
            for cell in row
        )
        for row in (COLUMNS, *(line.cells() for line in lines))
    )
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(COLUMNS) - 2)}l}}",
            rf"\toprule {head} \\ \midrule",
            *(rf"{row} \\" for row in body),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def by_experiment(
    rows: Sequence[dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of every experiment, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["experiment"], []).append(row)
    return found


def write(rows: Sequence[dict[str, Any]], reference: str, folder: Path) -> list[Path]:
    """Write the tables and pictures of every experiment; return the files.

    Args:
      rows: of any experiments.
      reference: as in `summarize`; where an experiment lacks it, its first method.
      folder: to write into.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for experiment, own in by_experiment(rows).items():
        methods = [row["method"] for row in own]
        lines = list(summarize(own, reference if reference in methods else methods[0]))
        stem = experiment.replace("/", "-")
        for ending, text in ((".md", markdown(lines)), (".tex", latex(lines))):
            file = folder / f"{stem}{ending}"
            file.write_text(text)
            written.append(file)
        file = folder / f"{stem}.png"
        draw_comparison(file, experiment, lines)
        written.append(file)
        mixed = [row for row in own if "mixtures" in row]
        for method in dict.fromkeys(row["method"] for row in mixed):
            paths = [row["mixtures"] for row in mixed if row["method"] == method]
            file = folder / f"{stem}-{method.replace(' ', '_')}-mixtures.png"
            draw_mixtures(file, f"{experiment}, {method}", paths)
            written.append(file)
    return written


@dataclasses.dataclass(frozen=True)
class Config:
    """Tables and pictures of collected results."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Files of rows that `reproduce` or `compare` wrote."""
    reference: str = "D4"
    """Method that all others are compared to."""
    out: Path | None = None
    """Folder for tables and pictures; beside the first file if not given."""


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    config = tyro.cli(Config, args=arguments, description=__doc__)
    missing = [str(file) for file in config.files if not file.is_file()]
    if missing or not config.files:
        console.print(f"error: there is no file {', '.join(missing)}", markup=False)
        raise SystemExit(2)
    rows = [row for file in config.files for row in read(file)]
    folder = config.out or config.files[0].parent / "summary"
    for file in write(rows, config.reference, folder):
        console.print(str(file))


if __name__ == "__main__":
    main()
