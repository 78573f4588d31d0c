"""What a run prints: progress, a line per generation, tables of networks."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

import eqjax as eq
from eqjax.search import Checkpoint
from eqjax_experiments.data.splits import Dataset, counted

SHOWN_COLUMNS = 12  # classes that fit beside each other


def say_what_is_exact(
    console: Console, model: eq.EquivariantCNN, space: tuple[int, ...]
) -> None:
    """Warn where a network cannot have the symmetry that its groups promise."""
    groups = model.architecture.groups
    kept = model.clone(constraint=eq.Tied()).symmetry(space)
    if kept != groups[0].meet(*groups[1:]):
        console.print(
            f"note: this network is not exact: whatever its layers' groups, its logits "
            f"are sure to be invariant to {kept.name} alone"
        )


def progress(console: Console, unit: str) -> Progress:
    """Return a bar that counts in some unit."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def summary(point: Checkpoint, record: dict[str, Any]) -> str:
    """Return one line on a generation."""
    if not point.state.scores:
        return f"{counted(len(record['children']), 'child', 'children')} diverged"
    best = min(range(len(point.state.scores)), key=lambda i: point.state.scores[i])
    score = point.state.scores[best]
    text = (
        f"best validation error {100 * score.error:.2f} % with "
        f"{score.parameters:,} parameters, {point.state.architectures[best]}; "
        f"{counted(len(record['children']), 'child', 'children')}"
    )
    diverged = record["diverged"]
    return text + (f", {diverged} diverged" if diverged else "")


def print_front(console: Console, front: list[dict[str, Any]]) -> None:
    """Print the front as a table."""
    rows = [{**row, "test_parameters": row["parameters"]} for row in front]
    _print_networks(console, "Pareto front of the last population", rows)


def print_verdict(console: Console, verdict: dict[str, Any]) -> None:
    """Print which group a search names, and why, or that it cannot tell."""
    group = verdict["group"]
    named = "undecided" if group is None else f"symmetry of the data: {group}"
    console.print(f"{named}; {verdict['reason']}", markup=False)


def percent(error: float | None) -> str:
    """Return an error as people read it; None is that of a network that diverged."""
    return "diverged" if error is None else f"{100 * error:.2f} %"


def print_readings(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print what is reported of a trained network as a table."""
    _print_networks(console, "the trained network", rows)
    print_classes(console, rows[-1])


def print_classes(console: Console, row: dict[str, Any]) -> None:
    """Print the test errors of every class, and what it was taken for."""
    if not row.get("confusion"):
        return
    names, counts = list(row["class_errors"]), row["confusion"]
    wide = len(names) <= SHOWN_COLUMNS
    table = Table(title="test images by class (rows), and what they were taken for")
    table.add_column("class")
    for column in ("images", "error", *(names if wide else ())):
        table.add_column(column, justify="right")
    for name, own in zip(names, counts, strict=True):
        cells = [str(count) for count in own] if wide else []
        table.add_row(name, f"{sum(own):,}", percent(row["class_errors"][name]), *cells)
    console.print(table)


def say_what_the_data_are(console: Console, dataset: Dataset) -> None:
    """Print how many images there are, by class where classes have names."""
    if dataset.remark:
        console.print(f"images are {dataset.remark}", markup=False)
    if not dataset.names or dataset.classes > SHOWN_COLUMNS:
        sizes = [f"{len(split.labels):,}" for split in dataset.splits]
        console.print(
            f"{sizes[0]} training, {sizes[1]} validation and {sizes[2]} test images of "
            f"{dataset.classes} classes"
        )
        return
    table = Table(title="images")
    for column in ("class", "training", "validation", "test"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for name, counts in dataset.counts.items():
        table.add_row(name, *(f"{count:,}" for count in counts))
    console.print(table)


def _print_networks(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    table = Table(title=title)
    named = any("reading" in row for row in rows)
    if named:
        table.add_column("")
    table.add_column("groups, input to output")
    for column in ("parameters", "validation error", "test error"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            *([row["reading"]] if named else []),
            " ".join(row["groups"]),
            f"{row['test_parameters']:,}",
            percent(row["validation_error"]),
            percent(row["test_error"]),
        )
    console.print(table)
