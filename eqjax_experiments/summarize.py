"""Tables and pictures of collected results.

python -m experiments summarize runs/reproduce/results.jsonl --out tables
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from eqjax_experiments import shell
from eqjax_experiments.reports.tables import write
from eqjax_experiments.runs.files import read_lines


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds something else.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        rows = read_lines(file)
        whole = all(row.keys() >= {"experiment", "method", "reading"} for row in rows)
    except (ValueError, AttributeError):
        rows, whole = [], False
    if not (rows and whole):
        raise ValueError(f"{file} should hold rows of `reproduce` or `compare`")
    return rows


@dataclasses.dataclass(frozen=True)
class SummarizeSettings:
    """Tables and pictures of collected results."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Files of rows that `reproduce` or `compare` wrote."""
    reference: str | None = None
    """Row of the tables that all others are compared to; D4 if not given."""
    out: Path | None = None
    """Folder for tables and pictures; beside the first file if not given."""


OPTIONS = (shell.Output, SummarizeSettings)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with shell.errors_end_it(console):
        output, settings = shell.parse(console, __doc__, arguments, *OPTIONS)
        if not settings.files:
            raise ValueError(
                "expected at least one file of rows, such as results.jsonl"
            )
        rows = [row for file in settings.files for row in read_rows(file)]
        folder = settings.out or settings.files[0].parent / "summary"
        written = write(rows, settings.reference, folder)
    for file in written:
        console.print(str(file))
    output.write({"written": [str(file) for file in written]})


if __name__ == "__main__":
    main()
