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
    )


def summary(point: Checkpoint, record: dict[str, Any]) -> str:
    """Return one line on a generation."""
    if not point.state.scores:
        return f"all {len(record['children'])} children diverged"
    best = min(range(len(point.state.scores)), key=lambda i: point.state.scores[i])
    score = point.state.scores[best]
    text = (
        f"best validation error {100 * score.error:.2f} % with "
        f"{score.parameters:,} parameters, {point.state.architectures[best]}; "
        f"{len(record['children'])} children"
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
