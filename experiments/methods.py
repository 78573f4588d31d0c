"""Every method by its name, as a function of the settings that all methods share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import baseline, differentiate, evolve
from experiments.task import Task

SIX = ("D4", "C4", "D2", "C2", "D1", "C1")
GENERATIONS = 4


def _baseline(method: baseline.Method, *groups: str, **fixed: Any):
    return lambda **task: baseline.Config(
        **{**task, "method": method, "groups": groups, **fixed}
    )


def _relaxed(group: str):
    """Half of the passes with D4, half with another group."""

    def configure(epochs: float, **task: Any) -> baseline.Config:
        fixed = {"groups": (group,), "relaxed_from": "D4", "relaxed_after": epochs / 2}
        return baseline.Config(**{**task, "epochs": epochs, **fixed})

    return configure


def _evolve(**fixed: Any):
    """A first training for half of the passes, and four generations."""

    def configure(epochs: float, **task: Any) -> evolve.Config:
        lengths = {"first_epochs": epochs / 2, "epochs": epochs / 2 / GENERATIONS}
        return evolve.Config(**{**task, **lengths, "generations": GENERATIONS, **fixed})

    return configure


METHODS: dict[str, Callable[..., Task]] = {
    "D4": _baseline("static", "D4"),
    "C4": _baseline("static", "C4"),
    "C1": _baseline("static", "C1"),
    "C4 from D4": _baseline("static", "C4", relaxed_from="D4"),
    "C1 from D4": _baseline("static", "C1", relaxed_from="D4"),
    "C4 from trained D4": _relaxed("C4"),
    "C1 from trained D4": _relaxed("C1"),
    "random static": _baseline("random", *SIX),
    "augmented by D4": _baseline("augmented", "D4"),
    "augmented by C4": _baseline("augmented", "C4"),
    "residual pathway": _baseline("residual", "D4"),
    "relaxed weights": _baseline("relaxed", "D4"),
    "partial group": _baseline("partial", "D4"),
    "soft projection": _baseline("soft", "D4", learned_softness=True),
    "EquiNAS_D": differentiate.Config,
    "random mixture": lambda **task: differentiate.Config(mixture="random", **task),
    "EquiNAS_E": _evolve(retrain=True),
    "random selection": _evolve(selection="random"),
}


def _module(config: Task) -> Any:
    return {
        baseline.Config: baseline,
        differentiate.Config: differentiate,
        evolve.Config: evolve,
    }[type(config)]


def check(config: Task) -> None:
    """Raise ValueError or OSError where a method cannot run, before it leaves files."""
    _module(config).prepare(config, config.load())


def run(config: Task, folder: Path, console: Console) -> list[dict[str, Any]]:
    """Run a method, or go on with it, in a folder; return the rows of its report."""
    return _module(config).run(config, folder, console)
