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

from eqjax_experiments import shell
from eqjax_experiments.reports.printing import percent
from eqjax_experiments.runs import run_folder
from eqjax_experiments.runs.overview import overview


@dataclasses.dataclass(frozen=True)
class InspectSettings:
    """Say what a run is, how far it is, and what it found."""

    run: tyro.conf.Positional[Path | None] = None
    """Folder of a run, or its name; a line on every run under runs/ if not given."""


OPTIONS = (shell.Output, InspectSettings)


def print_overview(console: Console, found: dict[str, Any]) -> None:
    """Print what there is to say of one run."""
    said = {
        "folder": found["folder"],
        "command": found["command"] or "unknown",
        "data": found["data"],
        "state": found["state"],
        "settings": ", ".join(f"{k} {v}" for k, v in found["settings"].items()),
        "seconds": f"{found['seconds']:.0f}",
        "versions": ", ".join(f"{k} {v}" for k, v in found["environment"].items()),
        "answer": found["answer"],
    }
    for name, value in said.items():
        if value:
            console.print(f"{name + ':':<10}{value}", markup=False, soft_wrap=True)
    if found["networks"]:
        table = Table("network", "groups, input to output")
        for column in ("parameters", "validation error", "test error"):
            table.add_column(column, justify="right")
        for row in found["networks"]:
            table.add_row(
                row["name"],
                " ".join(row["groups"]),
                f"{row['parameters']:,}",
                percent(row["validation_error"]) if row["validation_error"] else "",
                percent(row["test_error"]) if row["test_error"] else "",
            )
        console.print(table)


def print_all(console: Console, every: list[dict[str, Any]]) -> None:
    """Print a line on each of several runs."""
    table = Table("run", "command", "data", "state", "answer")
    for found in every:
        table.add_row(
            *(found["folder"], found["command"], found["data"]),
            *(found["state"], found["answer"]),
        )
    console.print(table if every else f"no runs under {run_folder.ROOT}/")


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with shell.errors_end_it(console):
        output, settings = shell.parse(console, __doc__, arguments, *OPTIONS)
        if settings.run is None:
            every = [overview(folder) for folder in run_folder.every()]
            print_all(console, every)
            output.write(every)
            return
        found = overview(run_folder.by_path_or_name(settings.run))
        print_overview(console, found)
        output.write(found)


if __name__ == "__main__":
    main()
