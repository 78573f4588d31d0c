"""The experiments of Maile et al. (2023), each with its settings.

A preset is a data set, a method and a flavour. `paper` has the authors' settings and
their network; `exact` the same settings and a network whose symmetry is exact; `small`
an exact network and a training of minutes on two CPU cores. The paper reports optimizer
and passes of both searches; baselines here have those of EquiNAS_D, and with ", SGD" in
their name those of EquiNAS_E.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from eqjax_experiments.runs.collect import MethodRun
from eqjax_experiments.tasks.differentiate import DifferentiationTask
from eqjax_experiments.tasks.evolve import EvolutionTask
from eqjax_experiments.tasks.methods import methods
from eqjax_experiments.tasks.task import MethodTask

FLAVOURS = ("paper", "exact", "small")
METHODS = methods("D4")


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, and the settings that the paper reports for it.

    Attributes:
      load: what to load.
      images: training images, about; only for what `--list` says of the cost.
      space: pixels per side.
      channels: of an image.
      batch_size: images per step.
      rate: of the weights, by Adam.
      epochs: passes over the training images.
      small_epochs: the same of the small flavour; about 2,000 steps.
      pool_after: convolutions that a pooling follows.
      head_features: width of the hidden layer of the head.
    """

    load: dict[str, str]
    images: int
    space: int = 28
    channels: int = 1
    batch_size: int = 64
    rate: float = 0.01
    epochs: float = 100.0
    small_epochs: float = 6.0
    pool_after: tuple[int, ...] = (3, 5, 7)
    head_features: int = 64


def _augmented(group: str) -> Data:
    """Upright digits, in all splits moved by a random element of a group."""
    return Data(
        {"data": "mnist", "data_group": group},
        images=54_000,
        epochs=20.0,  # not reported; as many steps as on RotMNIST
        small_epochs=1.2,
    )


_COLOR: dict[str, Any] = {
    "space": 64,
    "channels": 3,
    "pool_after": (3, 5, 6, 7),
    "head_features": 128,
}
DATA = {
    "rotmnist": Data({"data": "rotmnist"}, images=10_800),
    "galaxy10": Data(
        {"data": "galaxy10"},
        images=14_366,
        batch_size=32,
        epochs=50.0,
        small_epochs=4.5,
        **_COLOR,
    ),
    "isic2019": Data(
        {"data": "isic2019"},
        images=20_518,
        batch_size=32,
        rate=0.001,
        epochs=50.0,
        small_epochs=3.0,
        **_COLOR,
    ),
    "mnist": _augmented("C1"),
    "mnist-D1": _augmented("D1"),
    "mnist-C4": _augmented("C4"),
    "mnist-D4": _augmented("D4"),
}
GRADIENT_DESCENT: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "batch_size": 64,
}
EVOLUTION: dict[str, Any] = {
    "generations": 50,
    "population_size": 10,
    "children": 6,  # not reported; the rules seldom give more
    "first_epochs": 0.5,  # "briefly"
    "epochs": 0.5,
}
# Networks that need no search, trained as long as an evolution and by its optimizer.
SGD = ", SGD"
UNDER_SGD = tuple(
    method + SGD
    for method in ("D4", "C4", "C1", "C4 from trained D4", "C1 from trained D4")
)
# What the paper's network leaves without effect or a group to test, or cannot grow.
IDLE = (
    "partial group",
    "EquiNAS_S",
    "EquiNAS_S, continued",
    "layer-wise evidence",
    "NASH",
    "NASH, restarts alone",
)


@dataclasses.dataclass(frozen=True)
class Preset:
    """An experiment of the paper, for one seed.

    Attributes:
      flavour: paper, exact or small.
      data: name of the data set.
      method: name of the method; with ", SGD" under the settings of the evolution.
      task: all settings.
    """

    flavour: str
    data: str
    method: str
    task: MethodTask

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        method = self.method.replace(",", "").replace(" ", "-")
        return f"{self.flavour}/{self.data}/{method}"

    def method_run(self, seed: int) -> MethodRun:
        """Return what runs it with a seed."""
        task = dataclasses.replace(self.task, seed=seed)
        return MethodRun(f"{self.flavour}/{self.data}", self.method, task)

    @property
    def steps(self) -> int:
        """How many training steps it takes, of all networks together, at most."""
        images = DATA[self.data].images
        return round(images / self.task.batch_size * self.task.passes)

    @property
    def multiplications(self) -> float:
        """How many multiplications its convolutions take, there and back."""
        task, data = self.task, DATA[self.data]
        space, before, per_image = data.space, data.channels, 0
        for layer, features in enumerate(task.size.features, 1):
            channels = task.ambient_group.order * features
            per_image += space**2 * task.size.kernel_size**2 * before * channels
            before = channels
            if layer in task.size.pool_after:
                space = -(-space // 2)
        return 3.0 * per_image * task.batch_size * self.steps


def _reported(data: Data, method: str, flavour: str) -> MethodTask:
    """Return the settings of the paper; for `exact`, with an exact network."""
    base = method.removesuffix(SGD)
    settings: dict[str, Any] = {
        **data.load,
        "network": flavour,
        "features": (16, 16, 16, 16, 32, 32, 32, 32),
        "pool_after": data.pool_after,
        "head_features": data.head_features,
        "learning_rate": data.rate,
        "schedule": "constant",
        "batch_size": data.batch_size,
        "epochs": data.epochs,
    }
    if base != method:
        later = EVOLUTION["generations"] * EVOLUTION["epochs"]
        passes = EVOLUTION["first_epochs"] + later
        settings |= {**GRADIENT_DESCENT, "epochs": passes}
    task = METHODS[base](**settings)
    if isinstance(task, DifferentiationTask):
        return dataclasses.replace(task, mixture_rate=0.01)
    if isinstance(task, EvolutionTask):
        return dataclasses.replace(task, **GRADIENT_DESCENT, **EVOLUTION)
    return task


def _small(data: Data, method: str) -> MethodTask:
    settings: dict[str, Any] = {**data.load, "epochs": data.small_epochs}
    return METHODS[method](**settings)


@functools.cache
def presets() -> dict[str, Preset]:
    """Return all presets by their name."""
    found = []
    for flavour in FLAVOURS:
        for name, data in DATA.items():
            if flavour == "small":
                settings = {method: _small(data, method) for method in METHODS}
            else:
                settings = {
                    method: _reported(data, method, flavour)
                    for method in (*METHODS, *UNDER_SGD)
                    if flavour != "paper" or method not in IDLE
                }
            found += [Preset(flavour, name, m, c) for m, c in settings.items()]
    return {preset.name: preset for preset in found}
