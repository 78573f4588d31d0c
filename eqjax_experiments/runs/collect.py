"""Run many methods with many seeds, and keep every row of their reports in one file."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import jax
from rich.console import Console

from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.runs import files, run_folder
from eqjax_experiments.runs.files import ROWS, TIMING, read_lines


class MethodTask(Protocol):
    """What is asked of the task of a method, a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    COMMAND: ClassVar[str]

    @property
    def seed(self) -> int:
        """Of the run."""
        ...

    def load(self) -> Dataset:
        """Return the data."""
        ...

    def check(self) -> None:
        """Raise ValueError or OSError where it cannot run."""
        ...

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Run, or continue, in a folder; return the rows of the report."""
        ...


@dataclasses.dataclass(frozen=True)
class MethodRun:
    """One run of one method.

    Attributes:
      experiment: which figures belong together.
      method: what it is called in tables.
      task: its settings, with the seed.
    """

    experiment: str
    method: str
    task: MethodTask

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells a run from all others."""
        return self.experiment, self.method, self.task.seed

    @property
    def folder_name(self) -> str:
        """The plain name of its folder."""
        return "-".join(map(str, self.key)).replace("/", "-").replace(" ", "_")


def collect(
    wanted: Sequence[MethodRun], folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Run what is not done yet; return one row per run and reading.

    Every run has a folder of its own, in which it continues where it was interrupted.
    Its rows are written when it is finished, all at once.

    Args:
      wanted: what to run.
      folder: of the file of rows, and of all runs.
      console: for a line on every row.

    Raises:
      ValueError: a run was begun with other settings, or an experiment with other
        data; or another process writes into this folder.
    """
    file = folder / ROWS
    keys = {each.key for each in wanted}
    with run_folder.alone(folder):
        rows = read_lines(file)
        done = {_key(row) for row in rows}
        sources = {row["experiment"]: row["data"] for row in rows}
        method = None
        for each in wanted:
            now = each.task.load().source
            before = sources.setdefault(each.experiment, now)
            if now != before:
                raise ValueError(
                    f"{each.experiment} was begun with the data {before}; now they "
                    f"are {now}; choose another --name"
                )
            if each.key not in done:
                if method not in (None, each.method):  # its programs fill the memory
                    jax.clear_caches()
                method = each.method
                new = _rows(each, folder / each.folder_name)
                files.write_lines(file, rows + new)
                rows = read_lines(file)
                for row in new:
                    error = row["test_error"]
                    told = "" if error is None else f"test error {100 * error:.2f} % "
                    console.print(
                        f"{each.experiment}, {each.method}, {row['reading']}, seed "
                        f"{row['seed']}: {told}({row['seconds']:.0f} s)"
                    )
        return [row for row in rows if _key(row) in keys]


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["experiment"], row["method"], row["seed"]


def _rows(each: MethodRun, folder: Path) -> list[dict[str, Any]]:
    """Run a method, and return the rows of its report with all that belongs to them."""
    task = run_folder.enter(folder, each.task)
    begin = time.perf_counter()
    found = task.run(folder, Console(quiet=True))
    after = time.perf_counter() - begin
    common = {
        "experiment": each.experiment,
        "method": each.method,
        "seed": task.seed,
        "seconds": round(max(after, trained_seconds(folder)), 2),
        "data": task.load().source,
        "config": dataclasses.asdict(task),
        "environment": files.environment(),
    }
    return [{**common, **row} for row in found]


def trained_seconds(folder: Path) -> float:
    """Return the seconds of all trainings in a folder, however interrupted."""
    lines = [line for file in folder.rglob(TIMING) for line in read_lines(file)]
    return sum(line["seconds"] for line in lines)
