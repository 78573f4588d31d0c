"""Search which elements should generate the groups of a network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import numpy as np
from rich.console import Console

import eqjax as eq
from eqjax.search import GeneratorSearch, GeneratorSpace
from eqjax.training import batches
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine import experiment
from eqjax_experiments.engine.experiment import retraining
from eqjax_experiments.engine.interrupts import stop_if_asked
from eqjax_experiments.runs import files
from eqjax_experiments.tasks.task import TRAINING, MethodTask

CHILDREN = "children.jsonl"  # the accuracy of every network that was trained


@dataclasses.dataclass(frozen=True)
class GeneratorTask(MethodTask):
    """Search which elements should generate the groups of a network."""

    COMMAND: ClassVar[str] = "generate"

    agent: Literal["deep Q", "random"] = "deep Q"
    """Which element is put in or taken out next: by deep Q-learning, or any (control).
    """
    parts: int = 2
    """Runs of layers with generators of their own; 1 for one group everywhere."""
    trainings: int = 12
    """Networks that are trained on the way, each once for its groups."""
    child: float = 0.25
    """Length of their training, as a share of --epochs."""
    epochs: float | None = None
    """Passes over the training images of the network that is found, trained from
    scratch; 4 if not given, and at least 1,000 steps."""

    def __post_init__(self) -> None:
        """Reject values that no search can run with."""
        super().__post_init__()
        self.check_positive("epochs")
        self.check_whole("parts", "trainings")
        if not 0 < self.child <= 1:
            raise ValueError("--child must be above 0 and at most 1")
        self.space  # noqa: B018 raises where the parts do not fit

    @property
    def space(self) -> GeneratorSpace:
        """What the states of the search stand for."""
        return GeneratorSpace(self.ambient_group, self.layers, self.parts)

    @property
    def passes(self) -> float:
        """Passes over the training images of all networks together, at most."""
        epochs = TRAINING.passes if self.epochs is None else self.epochs
        return epochs * (1 + self.trainings * self.child)

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Search, or continue to, in a folder; return the rows of the report."""
        dataset = self.load()
        steps = self.steps(self.passes_over(dataset, self.epochs), dataset)
        found = search(self, dataset, folder, console, steps)
        follow = retraining(
            self, self.model(found.best), self.weight_optimizer(steps), steps
        )
        rows = experiment.run(follow, dataset, folder / follow.name, console)
        files.write_record(folder / files.RESULT, {"readings": rows})
        return rows


def search(
    task: GeneratorTask, dataset: Dataset, folder: Path, console: Console, steps: int
) -> GeneratorSearch:
    """Search, or continue to: what was trained before is read and not trained again."""
    length = max(1, round(task.child * steps))
    model = task.first_model()
    inputs = task.inputs(dataset)
    population = eq.Population(model, task.weight_optimizer(length), inputs)
    key = jax.random.fold_in(jax.random.key(task.seed), 0)
    known = {
        tuple(row["groups"]): row["accuracy"]
        for row in files.read_lines(folder / CHILDREN)
    }

    def evaluate(groups: eq.Architecture) -> float:
        if groups.names in known:
            return known[groups.names]
        stack = population.init(key[None], [task.model(groups)])
        order = np.random.default_rng([task.seed, 1])
        drawn = batches(dataset.train, inputs.shape[0], length, order)
        stack, _ = population.train(stack, drawn)
        error = float(population.evaluate(stack, *dataset.validation).error[0])
        accuracy = 1 - error if np.isfinite(error) else 0.0
        row = {"groups": list(groups.names), "accuracy": accuracy}
        files.append_line(folder / CHILDREN, row)
        stop_if_asked()
        console.print(f"{groups}: validation error {100 * (1 - accuracy):.2f} %")
        return accuracy

    return eq.search_generators(
        evaluate,
        task.space,
        agent=task.agent,
        trainings=task.trainings,
        seed=task.seed,
    )
