"""What the files of a run hold, finished or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eqjax_experiments.data.splits import counted

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Training:
    """A training of a run, or its search: the files of one folder.

    Attributes:
      name: of the folder inside that of the run; empty for the run itself.
      records: one per generation of a search, or per piece of a training.
      timing: the seconds of each.
      result: what was found; None before the end.
    """

    name: str
    records: Sequence[Row]
    timing: Sequence[Row]
    result: Row | None

    @property
    def generations(self) -> list[Row]:
        """The records of a search, one per generation."""
        return [record for record in self.records if "generation" in record]

    @property
    def pieces(self) -> list[Row]:
        """The records of the training of a single network."""
        return [record for record in self.records if "step" in record]

    @property
    def title(self) -> str:
        """What the training is called."""
        first = "the search" if self.generations else "the first training"
        last = self.name.rpartition("/")[2].replace("stage-", "stage ")
        return "the retraining" if last == "retrained" else last or first


@dataclasses.dataclass(frozen=True)
class Record:
    """All that the folder of a run holds, but for its networks.

    Attributes:
      folder: of the run.
      command: that made it; None where its settings do not tell.
      settings: of the command; empty for a run of `reproduce`.
      data: where the images are from.
      images: how many are for training, validation and test, by class.
      environment: versions and device.
      trainings: that of the folder itself, and those of the folders inside.
      evidence: what every test of a guided search found.
      rows: of a comparison.
      tried: networks that a search of generators trained.
      inner: folders of the runs inside a comparison.
    """

    folder: Path
    command: str | None
    settings: Row
    data: str
    images: Mapping[str, Sequence[int]]
    environment: Mapping[str, str]
    trainings: Sequence[Training]
    evidence: Sequence[Row] = ()
    rows: Sequence[Row] = ()
    tried: Sequence[Row] = ()
    inner: Sequence[str] = ()

    @property
    def main(self) -> Training:
        """The training, or the search, of the folder itself."""
        return self.trainings[0]

    @property
    def result(self) -> Row:
        """What was found; empty before the end."""
        return self.main.result or {}

    @property
    def about(self) -> str:
        """What the data are called, and where the images are from."""
        called = str(self.settings.get("data", ""))
        if not called or called in self.data:
            return self.data
        return f"{called} ({self.data})" if self.data else called

    @property
    def is_comparison(self) -> bool:
        """Whether it is one of many runs."""
        return self.command in ("compare", "reproduce")

    @property
    def readings(self) -> list[Row]:
        """The rows of the report of every network that was read, in their order."""
        rows = [r for t in self.trainings for r in (t.result or {}).get("readings", ())]
        return [row for i, row in enumerate(rows) if row not in rows[:i]]

    @property
    def finished(self) -> bool | None:
        """Whether the run is at its end; None where nothing tells."""
        if self.command == "reproduce":
            return None
        done = {t.name for t in self.trainings if t.result is not None}
        last = ""
        if self.command == "guide":
            stages = 1
            if self.settings.get("use") == "continued":
                stages = int(self.settings.get("milestones", 1))
            last = "/".join(f"stage-{i + 2}" for i in range(stages))
        elif self.settings.get("retrain") and not self.diverged:
            last = "retrained"
        return {"", last} <= done

    @property
    def diverged(self) -> bool:
        """Whether a search ended without a single network."""
        return self.command == "evolve" and self.result.get("front") == []

    @property
    def seconds(self) -> float:
        """The seconds of all trainings and of all runs inside, as far as recorded."""
        own = sum(row["seconds"] for t in self.trainings for row in t.timing)
        runs = {(r["experiment"], r["method"], r["seed"]): r for r in self.rows}
        return own + sum(row["seconds"] for row in runs.values())

    @property
    def progress(self) -> str:
        """Return how far a run has come."""
        if self.is_comparison:
            runs = {(r["experiment"], r["method"], r["seed"]) for r in self.rows}
            ended = counted(len(runs), "run of a method has", "runs of methods have")
            return f"{ended} ended"
        if self.command == "evolve":
            done = max(0, len(self.main.generations) - 1)
            if not self.main.generations:
                return "the first training has not ended"
            if self.main.result is not None:
                return "the network that was found is being trained again"
            wanted = counted(self.settings["generations"], "generation", "generations")
            return f"{done} of {wanted} done"
        if self.tried:
            return (
                f"{counted(len(self.tried), 'network has', 'networks have')} been tried"
            )
        pieces = self.trainings[-1].pieces
        if not pieces:
            return "nothing has been measured yet"
        name = self.trainings[-1].title
        return f"{name} has come to step {pieces[-1]['step']:,}"
