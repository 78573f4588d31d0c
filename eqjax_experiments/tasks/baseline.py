"""A network of fixed symmetry, or one that relaxes it in another way."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import optax
import tyro

import eqjax as eq
from eqjax.constraints import CONSTRAINTS
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine.experiment import Experiment
from eqjax_experiments.engine.optimizers import Gammas, with_gammas
from eqjax_experiments.engine.trial import TrainingState, Trial, reading
from eqjax_experiments.tasks.task import TRAINING, SingleTask

METHOD_WORDS = ("static", "random", *CONSTRAINTS, "augmented")
if TYPE_CHECKING:
    MethodWord = str
    ConstraintSettings = Any
else:
    MethodWord = tyro.extras.literal_type_from_choices(METHOD_WORDS)
    # One group of options for every constraint, made of its attributes.
    ConstraintSettings = dataclasses.make_dataclass(
        "ConstraintSettings",
        [
            (word, kind, dataclasses.field(default=kind()))
            for word, kind in CONSTRAINTS.items()
        ],
        frozen=True,
    )


@dataclasses.dataclass(frozen=True)
class BaselineTask(SingleTask):
    """Train a network of fixed symmetry, or one that relaxes it in another way."""

    COMMAND: ClassVar[str] = "baseline"

    method: MethodWord = "static"
    """Tied to groups; to groups drawn at random (control); one of the constraints, with
    its own options; or plain on augmented images."""
    groups: tuple[str, ...] | None = None
    """One group for all layers or one for each; the ambient group if not given. Of a
    random network, those to draw from; of a plain one, the group that augments the
    images."""
    relaxed_from: str | None = None
    """Larger group that a static network starts with."""
    relaxed_after: float = 0.0
    """Passes over the training images with the larger group, of all --epochs; 0 relaxes
    the untrained weights."""
    gammas: Gammas = "trained"
    """What moves the gammas of --method gamma: the optimizer of the weights; a schedule
    up from --gamma.start 0 and back to 0; a dual variable; or one that lets them stay
    open at a cost."""
    epochs: float | None = None
    """Passes over the training images; 4 if not given, and at least 1,000 steps."""
    constraints: Annotated[ConstraintSettings, tyro.conf.arg(name="")] = (
        dataclasses.field(default_factory=ConstraintSettings)
    )
    """Options of the constraints."""

    def __post_init__(self) -> None:
        """Reject values that no training can run with."""
        super().__post_init__()
        self.check_positive("epochs")
        if self.method not in METHOD_WORDS:
            raise ValueError(f"--method must be one of {', '.join(METHOD_WORDS)}")
        if self.method == "augmented" and len(self.group_names) != 1:
            raise ValueError("--method augmented takes one of --groups to draw from")
        if self.network == "paper" and self.relaxation.undone_by_element_norm:
            raise ValueError(
                f"--method {self.method} does nothing with --network paper, whose "
                "norms undo the weights of the group's elements; use --network exact"
            )
        if self.relaxed_from is not None and self.method != "static":
            raise ValueError("--relaxed-from goes with --method static alone")
        if self.gammas != "trained" and self.method != "gamma":
            raise ValueError("--gammas goes with --method gamma alone")
        if self.gammas == "annealed" and self.constraints.gamma.start != 0:
            raise ValueError("--gammas annealed needs --gamma.start 0")
        if self.relaxed_after < 0 or (
            self.epochs is not None and self.relaxed_after >= self.epochs
        ):
            raise ValueError("--relaxed-after must be at least 0 and below --epochs")
        if self.relaxed_after and self.relaxed_from is None:
            raise ValueError("--relaxed-after needs --relaxed-from")

    @property
    def passes(self) -> float:
        """Passes over the training images."""
        return TRAINING.passes if self.epochs is None else self.epochs

    def length(self, dataset: Dataset) -> int:
        """Return the steps of the whole training."""
        return self.steps(self.passes_over(dataset, self.epochs), dataset)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups, given or not."""
        return (self.ambient_group.name,) if self.groups is None else self.groups

    @property
    def relaxation(self) -> eq.Constraint:
        """The constraint that the method stands for; `Tied` for the others."""
        if self.method in CONSTRAINTS:
            return getattr(self.constraints, self.method)
        return eq.Tied()

    @property
    def constraint(self) -> eq.Constraint | tuple[eq.Constraint, ...]:
        """How the kernels arise, in all layers or in each."""
        chosen = self.relaxation
        if self.network == "paper" and chosen.keeps_lifting_tied:
            return (eq.Tied(), *[chosen] * (self.layers - 1))
        return chosen

    def weight_optimizer(self, *lengths: int) -> optax.GradientTransformation:
        """Return the optimizer, beside what moves gammas where that is another."""
        usual = super().weight_optimizer(*lengths)
        return with_gammas(usual, self.gammas, sum(lengths))

    @property
    def architecture(self) -> eq.Architecture:
        """The group of every layer."""
        names = self.group_names
        if self.method == "random":
            rng = np.random.default_rng([self.seed, 2])
            return eq.random_architecture(rng, self.subgroups(names), self.layers)
        if self.method == "augmented":
            return eq.Architecture.uniform(self.ambient_group.smallest, self.layers)
        names = names * self.layers if len(names) == 1 else names
        if len(names) != self.layers:
            raise ValueError(
                f"--groups takes one group, or one for each of the {self.layers} "
                f"layers, got {len(names)}"
            )
        return eq.Architecture.parse(self.ambient_group, names)

    def prepare(self, dataset: Dataset) -> Experiment:
        """Return the network, how it is trained and what is reported."""
        return prepare(self, dataset)


def prepare(task: BaselineTask, dataset: Dataset) -> Experiment:
    """Return the network of a task, how it is trained and what is reported."""
    task.inputs(dataset)  # raises where a batch is too large
    steps = task.length(dataset)
    model = task.model(task.architecture, task.constraint)
    augment = None
    if task.method == "augmented":
        augment = task.ambient_group.subgroup(task.group_names[0])

    def read(variables: Any, dataset: Dataset) -> list[dict[str, Any]]:
        return [reading("as trained", model, variables, dataset, steps)]

    if task.relaxed_from is None:
        trial = Trial(model, task.weight_optimizer(steps), augment=augment)
        return Experiment(task, trial, steps, read)
    return relaxed(task, model, read, dataset)


def relaxed(
    task: BaselineTask, model: eq.EquivariantCNN, read, dataset: Dataset
) -> Experiment:
    """Return the training of a network that starts with a larger group."""
    larger = task.ambient_group.subgroup(str(task.relaxed_from))
    for group in model.architecture.groups:
        if not group <= larger:
            raise ValueError(
                f"--relaxed-from {larger.name} does not contain {group.name}"
            )
    source = task.model(eq.Architecture.uniform(larger, task.layers))
    steps = task.length(dataset)
    inputs = task.inputs(dataset)
    if not task.relaxed_after:
        optimizer = task.weight_optimizer(steps)
        before, trial = Trial(source, optimizer), Trial(model, optimizer)

        def begin() -> TrainingState:
            return trial.relax(before.init(task.seed, inputs), source, inputs)

        return Experiment(task, trial, steps, read, begin)
    first = task.steps(task.relaxed_after, dataset)
    if first >= steps:
        raise ValueError(
            f"--relaxed-after leaves none of the {steps} steps of --epochs for the "
            "relaxed network"
        )
    optimizer = task.weight_optimizer(first, steps - first)
    before, trial = Trial(source, optimizer), Trial(model, optimizer)

    def follow(state: TrainingState) -> Experiment:
        def begin() -> TrainingState:
            return trial.relax(state, source, inputs)

        return Experiment(task, trial, steps - first, read, begin, name="relaxed")

    return Experiment(task, before, first, lambda *_: [], follow=follow)
