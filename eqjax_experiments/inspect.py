"""Say what a run is, how far it is, and what it found.

python -m experiments inspect first
python -m experiments inspect runs/first --json -
python -m experiments inspect            (all runs)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from eqjax.constraints.collections import PARAMS
from eqjax.training import count_parameters
from eqjax_experiments import shell
from eqjax_experiments.reports.printing import percent
from eqjax_experiments.reports.record import Record
from eqjax_experiments.runs import networks, reading, run_folder

SHOWN_ELSEWHERE = ("name", "resume", "data")  # settings


@dataclasses.dataclass(frozen=True)
class InspectSettings:
    """Say what a run is, how far it is, and what it found."""

    run: tyro.conf.Positional[Path | None] = None
    """Folder of a run, or its name; a line on every run under runs/ if not given."""


OPTIONS = (shell.Output, InspectSettings)


def overview(record: Record) -> dict[str, Any]:
    """Return what a run is, how far it is, and what it found, as plain data."""
    settings = {
        name: value
        for name, value in record.settings.items()
        if name not in SHOWN_ELSEWHERE and value is not None
    }
    return {
        "folder": str(record.folder),
        "command": record.command or "unknown",
        "data": record.about,
        "state": state(record),
        "settings": settings,
        "environment": dict(record.environment),
        "seconds": round(record.seconds, 2),
        "answer": answer(record),
        "networks": [] if record.is_comparison else saved_networks(record.folder),
    }


def state(record: Record) -> str:
    """Return how far a run is, whether it goes on, and how it is continued."""
    if record.finished:
        return "finished"
    if record.finished is None:
        return record.progress
    if run_folder.is_open(record.folder):
        return f"{record.progress}; it is running"
    if record.command is None:
        return f"{record.progress}; it has stopped"
    name = ("--name", record.folder.name, "--resume")
    line = shell.command_line(record.command, *name)
    return f"{record.progress}; it has stopped, continue with: {line}"


def answer(record: Record) -> str:
    """Return what a run says of the symmetry of the data; nothing if it does not."""
    if record.evidence:
        last = record.evidence[-1]
        doubt = "" if last["decided"] else ", the likeliest of several: undecided"
        return last.get("answer") or f"{last['named']}{doubt}"
    verdict = record.result.get("verdict")
    if verdict is None:
        return ""
    return f"{verdict['group'] or 'undecided'}; {verdict['reason']}"


def saved_networks(folder: Path) -> list[dict[str, Any]]:
    """Return a row on every network, from the least validation error to the largest."""
    rows = [
        {
            "name": name,
            "groups": list(network.model.architecture.names),
            "parameters": count_parameters(network.variables[PARAMS]),
            "validation_error": network.extra.get("validation_error"),
            "test_error": network.extra.get("test_error"),
        }
        for name, network in networks.every(folder).items()
    ]
    return sorted(
        rows, key=lambda row: (row["validation_error"] is None, *row.values())
    )


def print_overview(console: Console, found: dict[str, Any]) -> None:
    """Print what there is to say of one run."""
    told = {
        **{name: found[name] for name in ("folder", "command", "data", "state")},
        "settings": ", ".join(f"{k} {v}" for k, v in found["settings"].items()),
        "versions": ", ".join(f"{k} {v}" for k, v in found["environment"].items()),
        "seconds": f"{found['seconds']:,.0f}",
        "answer": found["answer"],
    }
    for name, value in told.items():
        if value:
            console.print(f"{name + ':':<10}{value}", markup=False, soft_wrap=True)
    if found["networks"]:
        console.print(networks_table(found["networks"]))


def networks_table(rows: list[dict[str, Any]]) -> Table:
    """Return the networks of a run as a table."""
    table = Table("network", "groups, input to output")
    for column in ("parameters", "validation error", "test error"):
        table.add_column(column, justify="right")
    for row in rows:
        errors = (row["validation_error"], row["test_error"])
        table.add_row(
            row["name"],
            " ".join(row["groups"]),
            f"{row['parameters']:,}",
            *("" if error is None else percent(error) for error in errors),
        )
    return table


def print_all(console: Console, every: list[dict[str, Any]]) -> None:
    """Print a line on each of several runs."""
    names = ("folder", "command", "data", "state", "answer")
    table = Table(*names)
    for found in every:
        table.add_row(*(found[name] for name in names))
    console.print(table if every else f"no runs under {run_folder.ROOT}/")


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with shell.errors_end_it(console):
        output, settings = shell.parse(console, __doc__, arguments, *OPTIONS)
        if settings.run is None:
            every = [overview(reading.read(each)) for each in run_folder.every()]
            print_all(console, every)
            output.write(every)
            return
        found = overview(reading.read(reading.find(settings.run)))
        print_overview(console, found)
        output.write(found)


if __name__ == "__main__":
    main()
