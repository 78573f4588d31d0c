"""Run many methods with many seeds, and keep every row of their reports in one file."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import methods, runs
from experiments.task import Task

ROWS = "results.jsonl"


@dataclasses.dataclass(frozen=True)
class Piece:
    """One run of one method.

    Attributes:
      experiment: which figures belong together.
      method: what it is called in tables.
      config: its settings, with the seed.
    """

    experiment: str
    method: str
    config: Task

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells a piece from all others."""
        return self.experiment, self.method, self.config.seed

    @property
    def folder_name(self) -> str:
        """The plain name of its folder."""
        return "-".join(map(str, self.key)).replace("/", "-").replace(" ", "_")


def collect(
    pieces: Sequence[Piece], folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Run what is not done yet; return one row per piece and reading.

    Every piece has a folder of its own, in which it goes on where it was interrupted.
    Its rows are written when it is finished, all at once.

    Args:
      pieces: what to run.
      folder: of the file of rows, and of all pieces.
      console: for a line on every row.

    Raises:
      ValueError: a piece was begun with other settings, or an experiment with other
        data; or another process writes into this folder.
    """
    file = folder / ROWS
    wanted = {piece.key for piece in pieces}
    with runs.alone(folder):
        rows = read(file)
        done = {_key(row) for row in rows}
        sources = {row["experiment"]: row["data"] for row in rows}
        for piece in pieces:
            now = piece.config.load().source
            before = sources.setdefault(piece.experiment, now)
            if now != before:
                raise ValueError(
                    f"{piece.experiment} was begun with the data {before}; now they "
                    f"are {now}; choose another --name"
                )
            if piece.key not in done:
                new = _rows(piece, folder / piece.folder_name)
                lines = "".join(json.dumps(row) + "\n" for row in rows + new)
                runs.write_atomically(file, lines)
                rows = read(file)
                for row in new:
                    error = row["test_error"]
                    told = "" if error is None else f"test error {100 * error:.2f} % "
                    console.print(
                        f"{piece.experiment}, {piece.method}, {row['reading']}, seed "
                        f"{row['seed']}: {told}({row['seconds']:.0f} s)"
                    )
        return [row for row in rows if _key(row) in wanted]


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["experiment"], row["method"], row["seed"]


def _rows(piece: Piece, folder: Path) -> list[dict[str, Any]]:
    """Run a piece, and return the rows of its report with all that belongs to them."""
    config = runs.enter(folder, piece.config)
    begin = time.perf_counter()
    found = methods.run(config, folder, Console(quiet=True))
    after = time.perf_counter() - begin
    common = {
        "experiment": piece.experiment,
        "method": piece.method,
        "seed": config.seed,
        "seconds": round(max(after, trained_seconds(folder)), 2),
        "data": config.load().source,
        "config": dataclasses.asdict(config),
        "environment": runs.environment(),
    }
    return [{**common, **row} for row in found]


def trained_seconds(folder: Path) -> float:
    """Return the seconds of all trainings in a folder, however interrupted."""
    lines = [line for file in folder.rglob("timing.jsonl") for line in read(file)]
    return sum(line["seconds"] for line in lines)


def read(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, none if there is no such file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]
