"""Train a network of fixed symmetry, or one that relaxes it in another way.

python -m experiments.baseline [--method static] [--groups C4] [--data rotated] ...
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

import eqjax as eq
from experiments import command
from experiments.command import Experiment
from experiments.data import digits
from experiments.task import AMBIENT, Task, named_groups
from experiments.trial import Trial, reading

Method = Literal[
    "static", "random", "residual", "relaxed", "partial", "soft", "augmented"
]


@dataclasses.dataclass(frozen=True)
class Config(Task):
    """Train a network of fixed symmetry, or one that relaxes it in another way."""

    method: Method = "static"
    """Tied to groups; to groups drawn at random (control); with a residual pathway;
    relaxed weights; a partial group; softly projected; or plain on augmented digits."""
    groups: tuple[str, ...] = ("D4",)
    """One group for all layers or one for each. Of a random network, those to draw
    from; of a plain one, the group that augments the digits."""
    relaxed_from: str | None = None
    """Larger group that the untrained weights of a static network start with."""
    epochs: float = 4.0
    """Passes over the training digits."""
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


def prepare(config: Config, dataset: digits.Dataset) -> Experiment:
    """Return the network of a configuration, how it is trained and what is reported."""
    steps = config.steps(config.epochs, dataset)
    model = config.model(config.architecture, config.constraint)
    start = augment = None
    if config.relaxed_from is not None:
        larger = AMBIENT.subgroup(config.relaxed_from)
        for group in model.architecture.groups:
            if not group <= larger:
                raise ValueError(
                    f"--relaxed-from {larger.name} does not contain {group.name}"
                )
        start = config.model(eq.Architecture.uniform(larger, config.layers))
    if config.method == "augmented":
        augment = AMBIENT.subgroup(config.groups[0])
    optimizer = config.annealing_optimizer([steps])

    def read(variables: Any, dataset: digits.Dataset) -> list[dict[str, Any]]:
        return [reading("as trained", model, variables, dataset, steps)]

    return Experiment(config, Trial(model, optimizer, start, augment), steps, read)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    command.main(Config, "baseline", prepare, arguments)


if __name__ == "__main__":
    main()
