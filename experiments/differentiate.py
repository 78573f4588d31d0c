"""Learn by gradient descent how much of each group every layer wants.

python -m experiments.differentiate [--data rotated] [--groups D4 C4 C1] ...
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import optax
from rich.console import Console

import eqjax as eq
from eqjax.training import count_parameters
from experiments import command
from experiments.command import Experiment, retraining
from experiments.data.splits import Dataset
from experiments.task import Task, named_groups, optimizer
from experiments.trial import State, Trial, reading, weights_of


@dataclasses.dataclass(frozen=True)
class Config(Task):
    """Learn by gradient descent how much of each group every layer wants."""

    groups: tuple[str, ...] = ("D4", "C4", "D2", "C2", "D1", "C1")
    """Candidates of every layer, subgroups of D4."""
    epochs: float = 4.0
    """Passes over the training images."""
    mixture: Literal["learned", "random"] = "learned"
    """Descend on the logits, or move them at random (control)."""
    mixture_rate: float = 0.05
    """Learning rate of the logits, by Adam; 0.01 in the authors' longer runs."""
    mixture_images: Literal["training", "held-out"] = "training"
    """Logits descend on all training images, as the weights do, or on half of them that
    the weights never see."""
    lookahead: float = 0.0
    """Second order: size of the weight step that the logits look ahead; 0 for first."""
    temperature: float = 1.0
    """Of the softmax over the logits."""
    norms: Literal["held", "free"] = "held"
    """Keep every candidate's kernel at its initial norm, or leave it free."""
    prior: float = 0.0
    """How far the logits of all but the largest group start below its own."""
    skip: Literal["none", "inside", "outside"] = "none"
    """The identity as a candidate of layers that allow it, in the softmax or beside."""
    retrain: bool = True
    """Train the found architecture from scratch, too, for as many steps."""

    def __post_init__(self) -> None:
        """Reject values that no search can run with."""
        super().__post_init__()
        self.check_positive("epochs", "mixture_rate", "temperature")
        if not self.lookahead >= 0:
            raise ValueError("--lookahead must be at least 0")

    @property
    def passes(self) -> float:
        """Passes over the training images: two gradients per step of the mixture."""
        return self.epochs * (2 + self.retrain)

    @property
    def constraints(self) -> tuple[eq.Constraint, ...]:
        """The mixture of every layer."""
        mixture = eq.Mixture(
            named_groups(self.groups),
            temperature=self.temperature,
            hold_norm=self.norms == "held",
            prior=self.prior,
        )
        found = [mixture] * self.layers
        if self.skip != "none":
            for layer in range(1, len(self.features)):
                if self.features[layer] == self.features[layer - 1]:
                    found[layer] = dataclasses.replace(mixture, skip=self.skip)
        return tuple(found)


def prepare(config: Config, dataset: Dataset) -> Experiment:
    """Return the network of a configuration, how it is trained and what is reported."""
    half = len(dataset.train.labels) // 2
    if config.mixture_images == "held-out" and config.batch_size > half:
        raise ValueError(
            f"--batch-size must be at most {half}, half of the training images, with "
            f"--mixture-images held-out; got {config.batch_size}"
        )
    steps = config.steps(config.epochs, dataset)
    largest = named_groups(config.groups)[0]
    model = config.model(
        eq.Architecture.uniform(largest, config.layers), config.constraints
    )
    weight_optimizer = config.weight_optimizer(steps)
    inputs = config.inputs(dataset)
    mixture_optimizer = optimizer("adam", config.mixture_rate)
    if config.mixture == "random":
        draws = eq.random_gradients(config.seed)
        mixture_optimizer = optax.chain(draws, mixture_optimizer)
    trial = Trial(
        model,
        weight_optimizer,
        mixture_optimizer=mixture_optimizer,
        lookahead=config.lookahead,
        held_out=config.mixture_images == "held-out",
    )

    def read(variables: Any, dataset: Dataset) -> list[dict[str, Any]]:
        count = count_parameters(variables["params"])
        rows = [reading("mixed", model, variables, dataset, steps, count)]
        for name, simplify in (
            ("collapsed", eq.collapse),
            ("discretized", eq.discretize),
        ):
            plain, target, report = simplify(variables, model=model, inputs=inputs)
            row = reading(name, target, plain, dataset, steps, count)
            row["changes"] = {
                "/".join(change.path): round(float(change.relative_change), 6)
                for change in report.layers
            }
            rows.append(row)
        return rows

    def follow(state: State) -> Experiment:
        variables = weights_of(state).variables
        _, found, _ = eq.discretize(variables, model=model, inputs=inputs)
        return retraining(config, found, weight_optimizer, steps)

    kept = follow if config.retrain else None
    return Experiment(config, trial, steps, read, follow=kept)


def run(config: Config, folder: Path, console: Console) -> list[dict[str, Any]]:
    """Search, or go on with it, in a folder; return the rows of the report."""
    dataset = config.load()
    return command.run(prepare(config, dataset), dataset, folder, console)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    command.main(Config, "differentiate", prepare, arguments)


if __name__ == "__main__":
    main()
