"""Learn by gradient descent how much of each group every layer wants."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import numpy as np
import optax

import eqjax as eq
from eqjax.constraints.collections import PARAMS
from eqjax.search import ReadOff
from eqjax.training import batches, count_parameters, pack_state, train
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine.experiment import Experiment, retraining
from eqjax_experiments.engine.optimizers import optimizer
from eqjax_experiments.engine.trial import (
    TrainingState,
    Trial,
    finite,
    reading,
    weights_of,
)
from eqjax_experiments.tasks.task import TRAINING, SingleTask

SHARING = eq.LearnedSharing(trace=0.05, entropy=0.025, apart=True)


@dataclasses.dataclass(frozen=True)
class DifferentiationTask(SingleTask):
    """Learn by gradient descent how much of each group every layer wants."""

    COMMAND: ClassVar[str] = "differentiate"

    groups: tuple[str, ...] | None = None
    """Candidates of every layer; one subgroup of the ambient group of every kind if not
    given."""
    epochs: float | None = None
    """Passes over the training images; 4 if not given, and at least 1,000 steps."""
    mixture: Literal["learned", "random", "uniform"] = "learned"
    """Descend on the logits, move them at random (control), or never move them, so that
    all candidates weigh the same."""
    mixture_rate: float = 0.05
    """Learning rate of the logits, by Adam; 0.01 in the authors' longer runs."""
    mixture_images: Literal["training", "held-out"] = "training"
    """Logits descend on all training images, as the weights do, or on half of them that
    the weights never see."""
    unrolled_step: float = 0.0
    """Second order: size of the weight step that the logits' gradient goes through; 0
    for first order."""
    implicit_steps: int = 0
    """Steps of conjugate gradients, through the end of the weights' training; 0 for
    first order."""
    relaxation: Literal["mixture", "sharing"] = "mixture"
    """What is learned apart from the weights: how much of each group a layer has, or
    which entries of its kernel are shared; read off as the group of the nearest
    orbits."""
    sharing: eq.LearnedSharing = SHARING
    """Of --relaxation sharing."""
    temperature: float = 1.0
    """Of the softmax over the logits."""
    norms: Literal["held", "free"] = "held"
    """Keep every candidate's kernel at its initial norm, or leave it free."""
    prior: float = 0.0
    """How far the logits of all but the largest group start below its own."""
    skip: Literal["none", "inside", "outside"] = "none"
    """The identity as a candidate of layers that allow it, in the softmax or beside."""
    read_off: Literal["heaviest", "perturbation", "fine-tuning"] = "heaviest"
    """Which group a layer gets: the one of the largest weight (of equal weights the
    largest group); or, layer by layer, the largest that costs nothing on the validation
    images."""
    margin: float = 1.0
    """Of --read-off: a part of a kernel is kept that costs more than so many standard
    errors without it; 3 for a small chance that noise keeps any."""
    fine_tuning_steps: int = 100
    """Of --read-off: training steps after each layer, or with each candidate."""
    retrain: bool = True
    """Train the found architecture from scratch, too, for as many steps."""

    def __post_init__(self) -> None:
        """Reject values that no search can run with."""
        super().__post_init__()
        self.check_positive("epochs", "mixture_rate", "temperature", "margin")
        self.check_whole("fine_tuning_steps")
        if not self.unrolled_step >= 0:
            raise ValueError("--unrolled-step must be at least 0")
        if self.unrolled_step and self.implicit_steps:
            raise ValueError("choose one of --unrolled-step and --implicit-steps")
        if self.implicit_steps < 0:
            raise ValueError("--implicit-steps must be at least 0")
        if self.relaxation == "sharing":
            if not self.sharing.apart:
                raise ValueError("--relaxation sharing needs --sharing.apart")
            if self.read_off != "heaviest" or self.skip != "none":
                raise ValueError("--read-off and --skip go with --relaxation mixture")
        if self.mixture == "uniform" and self.prior:
            raise ValueError("--mixture uniform has equal weights, and no --prior")
        if self.mixture == "uniform" and self.mixture_images != "training":
            raise ValueError("--mixture uniform needs no --mixture-images of its own")

    @property
    def passes(self) -> float:
        """Passes over the training images, of all gradients together.

        A product of second derivatives and a direction counts as two gradients. Without
        the steps of fine-tuning between the layers of a read-off.
        """
        epochs = TRAINING.passes if self.epochs is None else self.epochs
        gradients = 0 if self.mixture == "uniform" else 1
        if self.unrolled_step:
            gradients = 4
        if self.implicit_steps:
            gradients = 3 + 2 * self.implicit_steps
        return epochs * (1 + gradients + self.retrain)

    @property
    def candidates(self) -> tuple[eq.Group, ...]:
        """The candidates of every layer, the one that contains all others first."""
        return self.subgroups(self.families if self.groups is None else self.groups)

    @property
    def constraints(self) -> tuple[eq.Constraint, ...]:
        """The mixture of every layer, or its learned sharing."""
        if self.relaxation == "sharing":
            return (self.sharing,) * self.layers
        mixture = eq.Mixture(
            self.candidates,
            temperature=self.temperature,
            hold_norm=self.norms == "held",
            prior=self.prior,
        )
        found = [mixture] * self.layers
        if self.skip != "none":
            for layer in range(1, len(self.size.features)):
                if self.size.features[layer] == self.size.features[layer - 1]:
                    found[layer] = dataclasses.replace(mixture, skip=self.skip)
        return tuple(found)

    def prepare(self, dataset: Dataset) -> Experiment:
        """Return the network, how it is trained and what is reported."""
        return prepare(self, dataset)


def prepare(task: DifferentiationTask, dataset: Dataset) -> Experiment:
    """Return the network of a task, how it is trained and what is reported."""
    half = len(dataset.train.labels) // 2
    if task.mixture_images == "held-out" and task.batch_size > half:
        raise ValueError(
            f"--batch-size must be at most {half}, half of the training images, with "
            f"--mixture-images held-out; got {task.batch_size}"
        )
    steps = task.steps(task.passes_over(dataset, task.epochs), dataset)
    largest = task.candidates[0]
    model = task.model(eq.Architecture.uniform(largest, task.layers), task.constraints)
    weight_optimizer = task.weight_optimizer(steps)
    inputs = task.inputs(dataset)
    trial = Trial(model, weight_optimizer)
    if task.mixture != "uniform":
        mixture_optimizer = optimizer("adam", task.mixture_rate)
        if task.mixture == "random":
            draws = eq.random_gradients(task.seed)
            mixture_optimizer = optax.chain(draws, mixture_optimizer)
        trial = Trial(
            model,
            weight_optimizer,
            mixture_optimizer=mixture_optimizer,
            unrolled_step=task.unrolled_step,
            implicit_steps=task.implicit_steps,
            held_out=task.mixture_images == "held-out",
        )
    decided = Decided(task, model)

    def read(variables: Any, dataset: Dataset) -> list[dict[str, Any]]:
        count = count_parameters(variables[PARAMS])
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
        if task.relaxation == "sharing":
            near = eq.sharing_distances(variables, model=model, inputs=inputs)
            rows[0]["sharing"] = {"/".join(path): row for path, row in near.items()}
        if task.read_off != "heaviest":
            plain, target, told = decided.layer_by_layer(variables, dataset)
            longer = steps + fine_tunings(told) * task.fine_tuning_steps
            row = reading(task.read_off, target, plain, dataset, longer, count)
            rows.append({**row, "removals": removals(told)})
        return rows

    def follow(state: TrainingState) -> Experiment:
        variables = weights_of(state).variables
        if task.read_off != "heaviest":
            _, found, _ = decided.layer_by_layer(variables, dataset)
        else:
            _, found, _ = eq.discretize(variables, model=model, inputs=inputs)
        return retraining(task, found, weight_optimizer, steps)

    kept = follow if task.retrain else None
    return Experiment(task, trial, steps, read, follow=kept)


@dataclasses.dataclass
class Decided:
    """The network of a task read off layer by layer, once in a process.

    Attributes:
      task: of the command line.
      model: the network, with mixed layers.
      found: variables, network and report, once they are known.
    """

    task: DifferentiationTask
    model: eq.EquivariantCNN
    found: tuple[Any, eq.EquivariantCNN, ReadOff] | None = None

    def layer_by_layer(
        self, variables: Any, dataset: Dataset
    ) -> tuple[Any, eq.EquivariantCNN, ReadOff]:
        """Return variables, network and report; never looks at the test images."""
        if self.found is not None:
            return self.found
        steps, size = self.task.fine_tuning_steps, self.task.batch_size
        tuner = self.task.weight_optimizer(steps)

        def fine_tune(variables: Any, model: eq.EquivariantCNN, key: jax.Array) -> Any:
            rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
            state = pack_state(variables, tuner.init(variables[PARAMS]))
            drawn = batches(dataset.train, size, steps, rng)
            return train(state, drawn, model=model, optimizer=tuner)[0].variables

        self.found = eq.read_off(
            variables,
            model=self.model,
            x=dataset.validation.images,
            y=dataset.validation.labels,
            fine_tune=fine_tune,
            margin=self.task.margin,
            by="removal" if self.task.read_off == "perturbation" else "fine-tuning",
            key=jax.random.fold_in(jax.random.key(self.task.seed), 2),
        )
        return self.found


def fine_tunings(report: ReadOff) -> int:
    """Return how often the network was fine-tuned."""
    if report.by == "removal":
        return len(report.layers)
    return sum(len(layer.removals) for layer in report.layers)


def removals(report: ReadOff) -> dict[str, dict[str, Any]]:
    """Return what removals cost, by layer in the order of decision, and candidate."""
    return {
        "/".join(layer.path): {
            name: {
                "share": round(removal.share, 6),
                "cost": finite(removal.cost),
                "standard_error": finite(removal.standard_error),
                "needed": removal.needed,
            }
            for name, removal in layer.removals.items()
        }
        for layer in report.layers
    }
