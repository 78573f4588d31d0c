"""What all experiments share: data, ambient group, network and optimizer."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np
import optax
import tyro
from rich.console import Console

import eqjax as eq
from eqjax.groups import STANDARD, standard_group
from eqjax_experiments.data import catalogue, digits, synthetic
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine import experiment
from eqjax_experiments.engine.experiment import Experiment
from eqjax_experiments.engine.optimizers import optimizer

TIED = eq.Tied()
RESIDUAL = ("resnet", "wide_resnet")
DATA_HELP = (
    f"Path of a folder with a subfolder of images per class, or of an .npz file; or "
    f"embedded digits: {', '.join(digits.VARIANTS)}; volumes and sequences of known "
    f"symmetry, with --ambient Oh or flip: "
    f"{', '.join(f'{k} ({v.ambient})' for k, v in synthetic.KINDS.items())}; full data "
    f"sets: {', '.join(catalogue.DATASETS)}."
)


class Size(NamedTuple):
    """Of a network, where the command line does not say."""

    features: tuple[int, ...]
    kernel_size: int
    pool_after: tuple[int, ...]


SIZES = {  # by axes: of sequences, images and volumes
    1: Size((4, 8, 8), 5, (1, 2)),
    2: Size((2, 4, 4, 8), 5, (1, 2, 3)),
    3: Size((1, 1), 3, (1,)),
}


class Length(NamedTuple):
    """How long a training is where the command line does not say.

    Attributes:
      passes: over the training images.
      steps: at least so many, which few images need more passes for.
    """

    passes: float
    steps: int


TRAINING = Length(passes=4.0, steps=1000)  # of one network from scratch
FIRST = Length(passes=2.0, steps=500)  # of a search, before its first children
CHILD = Length(passes=0.5, steps=125)


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """The settings that every experiment has."""

    COMMAND: ClassVar[str]  # that runs it

    ambient: str = "D4"
    """Ambient group of the network; the groups of its layers are subgroups of it: C8,
    D16, Oh, ... Or its generators, as JSON: '[[[0, -1], [1, 0]]]' for C4."""
    data: Annotated[str, tyro.conf.arg(help=DATA_HELP)] = "rotated"
    data_group: str = "C1"
    """Subgroup of the ambient group of which a random element is applied to every image
    of a full data set."""
    image_size: int | None = None
    """Pixels per side that colour images are scaled to, 64 if not given; or 14, to
    which the embedded digits are reduced."""
    network: Literal["exact", "paper", "resnet", "wide_resnet"] = "exact"
    """Network with exact symmetry; as the paper's authors have it; or residual, exact
    too, with a group per stage, its norms behind or before its convolutions."""
    features: tuple[int, ...] | None = None
    """Channels per group element of every convolution, or stage of residual blocks; 2 4
    4 8 for images, 1 1 for volumes and 4 8 8 for sequences if not given."""
    kernel_size: int | None = None
    """Taps per axis of every convolution; 5 for images and sequences and 3 for volumes
    if not given."""
    pool_after: tuple[int, ...] | None = None
    """Numbers of the convolutions, from 1, that a pooling follows; 1 2 3 for images, 1
    for volumes and 1 2 for sequences if not given. Residual networks halve the field
    before every stage but the first."""
    stabilizer: str = "C1"
    """Hidden fields of --network exact have a value for every coset of this subgroup of
    the ambient group: with C4 in Oh 12 and not 48."""
    head_features: int = 32
    """Width of the hidden layer of the head; residual networks have none."""
    optimizer: Literal["adam", "sgd", "momentum"] = "adam"
    """Optimizer of every training."""
    learning_rate: float = 0.005
    """Its learning rate, the largest one if annealed."""
    schedule: Literal["annealed", "constant"] = "annealed"
    """Anneal the rate within every training, or keep it."""
    batch_size: int = 32
    """Samples per training step."""
    seed: int = 0
    """Of weights, batches and whatever else is drawn."""
    name: str | None = None
    """Folder under runs/; made up if not given."""
    resume: bool = False
    """Continue the run --name where it was saved last."""

    def __post_init__(self) -> None:
        """Reject values that no network can be trained with."""
        self.check_whole("batch_size", "head_features")
        self.check_positive("learning_rate")
        if self.seed < 0:
            raise ValueError("--seed must be at least 0")
        standard_group(self.ambient)
        size = self.size
        if size.kernel_size < 1:
            raise ValueError("--kernel-size must be at least 1")
        if not size.features or min(size.features) < 1:
            raise ValueError("--features needs one positive number per convolution")
        layers = range(1, len(size.features) + 1)
        pooled = self.network not in RESIDUAL
        if pooled and not set(size.pool_after) <= set(layers):
            raise ValueError(f"--pool-after takes numbers from 1 to {layers[-1]}")
        if self.network != "exact" and self.stabilizer != "C1":
            raise ValueError(f"--stabilizer does nothing with --network {self.network}")
        self.ambient_group.subgroup(self.stabilizer, 0)
        if self.resume and self.name is None:
            raise ValueError("--resume needs the --name of a run")

    def check_whole(self, *names: str) -> None:
        """Raise unless these settings are at least 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")

    def check_positive(self, *names: str) -> None:
        """Raise unless these settings are finite and above 0."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name.replace('_', '-')} must be positive")

    @property
    def size(self) -> Size:
        """Channels, taps and poolings, as given or usual for so many axes."""
        usual = SIZES[self.ambient_group.dimension]
        features = usual.features if self.features is None else self.features
        pools = [n for n in usual.pool_after if n <= len(features)]
        return Size(
            features,
            usual.kernel_size if self.kernel_size is None else self.kernel_size,
            tuple(pools) if self.pool_after is None else self.pool_after,
        )

    @property
    def layers(self) -> int:
        """How many layers have a group."""
        if self.network in RESIDUAL:
            return len(self.size.features) + 2  # stem and head
        head = "invariant" if self.network == "exact" else "dense"
        return eq.EquivariantCNN.searchable_layers(self.size.features, head)

    @property
    def data_label(self) -> str:
        """What the data are called: their name, and the group that augments them.

        Followed by the ambient group of the networks, where it is not D4.
        """
        augmented = "" if self.data_group == "C1" else f"-{self.data_group}"
        named = self.ambient if self.ambient in STANDARD else self.ambient_group.name
        over = "" if named == "D4" else f"-over-{named}"
        return f"{Path(self.data).stem}{augmented}{over}"

    @property
    def label(self) -> str:
        """What runs are called after: the data, and the seed."""
        return f"{self.data_label}-{self.seed}"

    @abc.abstractmethod
    def check(self) -> None:
        """Raise ValueError or OSError where it cannot run, before it leaves files."""

    @abc.abstractmethod
    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Run, or continue, in a folder; return the rows of the report."""

    @property
    def ambient_group(self) -> eq.Group:
        """The ambient group."""
        return standard_group(self.ambient)

    @property
    def families(self) -> tuple[str, ...]:
        """One subgroup of the ambient group of every kind, the largest first."""
        return tuple(dict.fromkeys(H.family for H in self.ambient_group.subgroups))

    def subgroups(self, names: Sequence[str]) -> tuple[eq.Group, ...]:
        """Return the groups of these names, the one that contains all others first."""
        if not names:
            raise ValueError("--groups needs at least one group")
        ambient = self.ambient_group
        groups = sorted(
            {ambient.subgroup(name, 0) for name in names}, key=ambient.subgroups.index
        )
        if not all(group <= groups[0] for group in groups):
            raise ValueError(
                f"--groups must hold one that contains all others, got "
                f"{', '.join(names)}; add {groups[0].join(*groups).name}"
            )
        return tuple(groups)

    def named_within(
        self, names: Sequence[str] | None, group: eq.Group
    ) -> tuple[eq.Group, ...] | None:
        """Return the subgroups of a group that have these names; None for all."""
        if names is None:
            return None
        named = {self.ambient_group.subgroup(name, 0) for name in names}
        return tuple(H for H in group.subgroups if H in named)

    def load(self) -> Dataset:
        """Return the data; it is kept, so that asking again costs nothing.

        Raises:
          ValueError: as `catalogue.load`, or the group does not act on images.
        """
        axes = catalogue.axes_of(self.data)
        if axes is not None:
            self._check_axes(axes)
        augmentation = self.ambient_group.subgroup(self.data_group)
        if not all(augmentation.exact):
            raise ValueError(
                f"--data-group {self.data_group} has elements that pixels do not "
                f"follow exactly; {augmentation.exact_subgroup.name} within it moves "
                "pixels onto pixels, and --data rotated is turned by every angle"
            )
        found = catalogue.load(self.data, augmentation, self.image_size)
        self._check_axes(len(found.image_shape) - 1)
        return found

    def _check_axes(self, axes: int) -> None:
        own = self.ambient_group.dimension
        if axes != own:
            fitting = [n for n in STANDARD if standard_group(n).dimension == axes]
            what = {1: "sequences", 2: "images", 3: "volumes"}[axes]
            raise ValueError(
                f"--ambient {self.ambient} acts on {own} axes, and {what} have {axes}; "
                f"choose one of {', '.join(fitting)}"
            )

    def model(
        self,
        architecture: eq.Architecture,
        constraint: eq.Constraint | tuple[eq.Constraint, ...] = TIED,
    ) -> Any:
        """Return the network of an architecture."""
        if self.network in RESIDUAL:
            return eq.EquivariantResNet(
                architecture,
                constraint,
                features=self.size.features,
                kernel_size=self.size.kernel_size,
                classes=self.load().classes,
                order="pre" if self.network == "wide_resnet" else "post",
            )
        fields: dict[str, Any] = {}
        if (stabilizer := self.ambient_group.subgroup(self.stabilizer, 0)).order > 1:
            fields["stabilizer"] = stabilizer
        if self.network == "exact" and not all(self.ambient_group.exact):
            fields["pooling"] = "blur"  # which follows finer angles more closely
        build: Any = {"exact": eq.exact, "paper": eq.paper}[self.network]
        return build(
            architecture,
            **self.size._asdict(),
            **fields,
            head_features=self.head_features,
            classes=self.load().classes,
            constraint=constraint,
        )

    def inputs(self, dataset: Dataset) -> jax.ShapeDtypeStruct:
        """Return the shape of a batch.

        Raises:
          ValueError: there are fewer training images.
        """
        images = len(dataset.train.labels)
        if self.batch_size > images:
            raise ValueError(
                f"--batch-size must be at most {images}, the training images of "
                f"{self.data}; got {self.batch_size}"
            )
        shape = (self.batch_size, *dataset.image_shape)
        return jax.ShapeDtypeStruct(shape, np.float32)

    def passes_over(
        self, dataset: Dataset, given: float | None, usual: Length = TRAINING
    ) -> float:
        """Return how many passes a training takes: as given, or its usual length."""
        if given is not None:
            return given
        per_pass = len(dataset.train.labels) / self.batch_size
        return max(usual.passes, usual.steps / per_pass)

    def steps(self, epochs: float, dataset: Dataset) -> int:
        """Return how many steps so many passes over the training images take."""
        return max(1, round(epochs * len(dataset.train.labels) / self.batch_size))

    def weight_optimizer(self, *lengths: int) -> optax.GradientTransformation:
        """Return the optimizer of weights trained for some lengths, one after another.

        Args:
          *lengths: steps; the rate is annealed over each of them, or constant.
        """
        annealed = lengths if self.schedule == "annealed" else ()
        return optimizer(self.optimizer, self.learning_rate, annealed)


@dataclasses.dataclass(frozen=True)
class MethodTask(Task):
    """A task that a comparison can run as one of its methods."""

    USUAL: ClassVar[dict[str, Length]] = {"epochs": TRAINING}  # settings of lengths

    @property
    @abc.abstractmethod
    def passes(self) -> float:
        """Passes over the training images, of all networks and gradients together."""

    def planned_steps(self, dataset: Dataset) -> int:
        """Return how many training steps all networks take together, at most."""
        return self.steps(self.with_lengths(dataset).passes, dataset)

    def with_lengths(self, dataset: Dataset) -> MethodTask:
        """Return these settings with the passes that depend on the data filled in."""
        lengths: dict[str, Any] = {
            name: self.passes_over(dataset, getattr(self, name), usual)
            for name, usual in self.USUAL.items()
        }
        return dataclasses.replace(self, **lengths)

    def first_model(self) -> Any:
        """Return the network to begin with: the ambient group in all layers."""
        return self.model(eq.Architecture.uniform(self.ambient_group, self.layers))

    def check(self) -> None:
        """Raise ValueError or OSError where it cannot run."""
        self.inputs(self.load())
        self.first_model()


@dataclasses.dataclass(frozen=True)
class SingleTask(MethodTask):
    """A task that trains a single network, or one after another."""

    @abc.abstractmethod
    def prepare(self, dataset: Dataset) -> Experiment:
        """Return the network, how it is trained and what is reported."""

    def first_model(self) -> Any:
        """Return the network that is trained first."""
        return self.prepare(self.load()).trial.model

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Train, or continue to, in a folder; return the rows of the report."""
        dataset = self.load()
        return experiment.run(self.prepare(dataset), dataset, folder, console)
