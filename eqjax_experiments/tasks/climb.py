"""Climb to better networks by morphisms that relax or grow them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
from flax import serialization
from rich.console import Console

import eqjax as eq
from eqjax import search
from eqjax.search import Climber
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine.interrupts import stop_if_asked
from eqjax_experiments.engine.trial import reading
from eqjax_experiments.runs import files, networks
from eqjax_experiments.tasks.task import CHILD, FIRST, Length, MethodTask

MOVES = {
    "all": search.MOVES,
    "groups": (search.regroup,),
    "none": (),
}


@dataclasses.dataclass(frozen=True)
class ClimbTask(MethodTask):
    """Climb to better networks by morphisms that relax or grow them."""

    COMMAND: ClassVar[str] = "climb"
    USUAL: ClassVar[dict[str, Length]] = {"first_epochs": FIRST, "epochs": CHILD}

    climbs: int = 4
    """Rounds after the first training."""
    children: int = 3
    """Networks that are trained in a round, the unchanged one among them."""
    moves: Literal["all", "groups", "none"] = "all"
    """What changes a child: other groups, wider and deeper layers; groups alone; or
    nothing, so that a round is a restart of the learning rate (control)."""
    moves_per_child: int = 2
    """How many of them make a child."""
    first_epochs: float | None = None
    """Passes over the training images before the first round; 2 if not given, and at
    least 500 steps."""
    epochs: float | None = None
    """Passes over the training images per child; half of one if not given, and at least
    125 steps."""

    def __post_init__(self) -> None:
        """Reject values that no climb can run with."""
        super().__post_init__()
        self.check_positive("epochs", "first_epochs")
        self.check_whole("climbs", "children", "moves_per_child")
        if self.network != "exact":
            raise ValueError("--network must be exact, whose layers can be grown")

    @property
    def trained_children(self) -> int:
        """Networks that are trained in a round: without moves, one."""
        return self.children if MOVES[self.moves] else 1

    @property
    def passes(self) -> float:
        """Passes over the training images of all networks together."""
        first = FIRST.passes if self.first_epochs is None else self.first_epochs
        epochs = CHILD.passes if self.epochs is None else self.epochs
        return first + self.climbs * self.trained_children * epochs

    def lengths(self, dataset: Dataset) -> tuple[int, int]:
        """Return the training steps of the first network, and of every child."""
        first = self.passes_over(dataset, self.first_epochs, FIRST)
        child = self.passes_over(dataset, self.epochs, CHILD)
        return self.steps(first, dataset), self.steps(child, dataset)

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Climb, or continue to, in a folder; return the rows of the report."""
        dataset = self.load()
        result = folder / files.RESULT
        if result.exists():
            return files.read_record(result)["readings"]
        best = climb(self, dataset, folder, console)
        first, child = self.lengths(dataset)
        row = reading(
            "best of front",
            best.model,
            best.variables,
            dataset,
            first + self.climbs * child,
        )
        row["features"] = list(best.model.features)
        networks.save(
            networks.inside(folder) / "best",
            best.model,
            best.variables,
            dataset,
            self.inputs(dataset),
            validation_error=row["validation_error"],
            test_error=row["test_error"],
        )
        files.write_record(result, {"readings": [row]})
        return [row]


def climb(task: ClimbTask, dataset: Dataset, folder: Path, console: Console) -> Climber:
    """Climb, or continue from the last round that was saved; return the best."""
    first, child = task.lengths(dataset)
    saved = folder / files.CHECKPOINT
    resume = unpack(saved, task) if saved.exists() else None

    def keep(number: int, tried: Sequence[Climber], best: Climber) -> None:
        files.write_atomically(saved, pack(number, best))
        moves = " ".join(best.moves) or "no moves"
        console.print(
            f"round {number}/{task.climbs}: validation error {100 * best.error:.2f} % "
            f"by {moves}, of {len(tried)}: {best.model.architecture}, channels "
            f"{' '.join(map(str, best.model.features))}"
        )
        stop_if_asked()

    if resume is not None and resume[0] == task.climbs:
        return resume[1]
    return eq.hill_climb(
        task.first_model(),
        dataset.train,
        dataset.validation,
        optimizer=task.weight_optimizer,
        moves=MOVES[task.moves],
        climbs=task.climbs,
        children=task.trained_children,
        moves_per_child=task.moves_per_child,
        first_steps=first,
        steps=child,
        batch_size=task.inputs(dataset).shape[0],
        seed=task.seed,
        resume=resume,
        on_climb=keep,
    ).best


def pack(number: int, best: Climber) -> bytes:
    """Return a checkpoint: the number of a round, and its best network."""
    model = best.model
    told = {
        "climb": number,
        "groups": list(model.architecture.names),
        "features": list(model.features),
        "pool_after": list(model.pool_after),
        "error": best.error,
        "moves": list(best.moves),
    }
    variables = serialization.to_state_dict(jax.device_get(best.variables))
    tree = {"told": json.dumps(told), "variables": variables}
    return files.pack_checkpoint(tree)


def unpack(saved: Path, task: ClimbTask) -> tuple[int, Climber]:
    """Read a checkpoint.

    Raises:
      ValueError: the file is damaged.
    """
    tree = files.read_checkpoint(saved)
    told = json.loads(tree["told"])
    model = task.first_model().clone(
        architecture=eq.Architecture.parse(task.ambient_group, told["groups"]),
        features=tuple(told["features"]),
        pool_after=tuple(told["pool_after"]),
    )
    variables = jax.tree.map(jax.numpy.asarray, tree["variables"])
    best = Climber(model, variables, told["error"], tuple(told["moves"]))
    return told["climb"], best
