"""Train a network of fixed symmetry, or one that relaxes it in another way.

python -m experiments.baseline [--method static] [--groups C4] [--data rotated] ...
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

import eqjax as eq
from experiments import command
from experiments.command import Experiment
from experiments.data.splits import Dataset
from experiments.task import AMBIENT, Task, named_groups
from experiments.trial import State, Trial, reading

Method = Literal[
    "static", "random", "residual", "relaxed", "partial", "soft", "augmented"
]


@dataclasses.dataclass(frozen=True)
class Config(Task):
    """Train a network of fixed symmetry, or one that relaxes it in another way."""

    method: Method = "static"
    """Tied to groups; to groups drawn at random (control); with a residual pathway;
    relaxed weights; a partial group; softly projected; or plain on augmented images."""
    groups: tuple[str, ...] = ("D4",)
    """One group for all layers or one for each. Of a random network, those to draw
    from; of a plain one, the group that augments the images."""
    relaxed_from: str | None = None
    """Larger group that a static network starts with."""
    relaxed_after: float = 0.0
    """Passes over the training images with the larger group, of all --epochs; 0 relaxes
    the untrained weights."""
    epochs: float = 4.0
    """Passes over the training images."""
    tied_precision: float = 1e-5
    """Of residual: inverse prior variance of the tied pathway, over the samples."""
    residual_precision: float = 1e-3
    """Of residual: the same of the free pathway."""
    banks: int = 2
    """Of relaxed: filter banks per layer."""
    softness: float = 0.9
    """Of soft: 1 for the projected kernel, 0 for the free one."""
    learned_softness: bool = False
    """Of soft: train the softness with the weights."""

    def __post_init__(self) -> None:
        """Reject values that no training can run with."""
        super().__post_init__()
        self.check_positive("epochs")
        if self.method == "augmented" and len(self.groups) != 1:
            raise ValueError("--method augmented takes one of --groups to draw from")
        if self.method == "partial" and self.preset == "paper":
            raise ValueError(
                "--method partial does nothing with --preset paper, whose norms undo "
                "the weights of the group's elements; use --preset exact"
            )
        if self.relaxed_from is not None and self.method != "static":
            raise ValueError("--relaxed-from goes with --method static alone")
        if not 0 <= self.relaxed_after < self.epochs:
            raise ValueError("--relaxed-after must be at least 0 and below --epochs")
        if self.relaxed_after and self.relaxed_from is None:
            raise ValueError("--relaxed-after needs --relaxed-from")

    @property
    def passes(self) -> float:
        """Passes over the training images."""
        return self.epochs

    @property
    def constraint(self) -> eq.Constraint | tuple[eq.Constraint, ...]:
        """How the kernels arise."""
        if self.method == "residual":
            prior = eq.ResidualPathway(self.tied_precision, self.residual_precision)
            if self.preset == "paper":  # there the lifting layer is tied
                return (eq.Tied(), *[prior] * (self.layers - 1))
            return prior
        if self.method == "relaxed":
            return eq.RelaxedWeights(self.banks)
        if self.method == "partial":
            return eq.PartialGroup()
        if self.method == "soft":
            return eq.SoftProjection(self.softness, self.learned_softness)
        return eq.Tied()

    @property
    def architecture(self) -> eq.Architecture:
        """The group of every layer."""
        if self.method == "random":
            rng = np.random.default_rng([self.seed, 2])
            return eq.random_architecture(rng, named_groups(self.groups), self.layers)
        if self.method == "augmented":
            return eq.Architecture.uniform(AMBIENT.subgroup("C1"), self.layers)
        names = self.groups * self.layers if len(self.groups) == 1 else self.groups
        if len(names) != self.layers:
            raise ValueError(
                f"--groups takes one group, or one for each of the {self.layers} "
                f"layers, got {len(names)}"
            )
        return eq.Architecture.parse(AMBIENT, names)


def prepare(config: Config, dataset: Dataset) -> Experiment:
    """Return the network of a configuration, how it is trained and what is reported."""
    config.inputs(dataset)  # raises where a batch is too large
    steps = config.steps(config.epochs, dataset)
    model = config.model(config.architecture, config.constraint)
    augment = None
    if config.method == "augmented":
        augment = AMBIENT.subgroup(config.groups[0])

    def read(variables: Any, dataset: Dataset) -> list[dict[str, Any]]:
        return [reading("as trained", model, variables, dataset, steps)]

    if config.relaxed_from is None:
        trial = Trial(model, config.weight_optimizer(steps), augment=augment)
        return Experiment(config, trial, steps, read)
    return relaxed(config, model, read, dataset)


def relaxed(config: Config, model: eq.EquivariantCNN, read, dataset) -> Experiment:
    """Return the training of a network that starts with a larger group."""
    larger = AMBIENT.subgroup(str(config.relaxed_from))
    for group in model.architecture.groups:
        if not group <= larger:
            raise ValueError(
                f"--relaxed-from {larger.name} does not contain {group.name}"
            )
    source = config.model(eq.Architecture.uniform(larger, config.layers))
    steps = config.steps(config.epochs, dataset)
    inputs = config.inputs(dataset)
    if not config.relaxed_after:
        optimizer = config.weight_optimizer(steps)
        before, trial = Trial(source, optimizer), Trial(model, optimizer)

        def begin() -> State:
            return trial.relax(before.init(config.seed, inputs), source, inputs)

        return Experiment(config, trial, steps, read, begin)
    first = config.steps(config.relaxed_after, dataset)
    if first >= steps:
        raise ValueError(
            f"--relaxed-after leaves none of the {steps} steps of --epochs for the "
            "relaxed network"
        )
    optimizer = config.weight_optimizer(first, steps - first)
    before, trial = Trial(source, optimizer), Trial(model, optimizer)

    def follow(state: State) -> Experiment:
        def begin() -> State:
            return trial.relax(state, source, inputs)

        return Experiment(config, trial, steps - first, read, begin, name="relaxed")

    return Experiment(config, before, first, lambda *_: [], follow=follow)


def run(config: Config, folder: Path, console: Console) -> list[dict[str, Any]]:
    """Train, or go on training, in a folder; return the rows of the report."""
    dataset = config.load()
    return command.run(prepare(config, dataset), dataset, folder, console)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    command.main(Config, "baseline", prepare, arguments)


if __name__ == "__main__":
    main()
