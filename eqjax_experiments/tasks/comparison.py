"""Several methods, each with several seeds, on the same data and network."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro
from rich.console import Console

from eqjax_experiments.runs.collect import MethodRun, collect
from eqjax_experiments.tasks.methods import Method, methods
from eqjax_experiments.tasks.task import MethodTask, Task


@dataclasses.dataclass(frozen=True)
class ComparisonTask(Task):
    """Compare methods over several seeds, at equal training steps per network."""

    COMMAND: ClassVar[str] = "compare"

    methods: tuple[str, ...] | None = None
    """Which methods; all if not given."""
    seeds: int = 5
    """Seeds of each, from --seed on."""
    epochs: float | None = None
    """Passes over the training images behind every network; 4 if not given, and at
    least 1,000 steps."""
    show: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Print a line per method, with what it is, its source, and its gradient steps with
    these settings, of all networks, weights and mixtures together; run nothing."""
    reference: str | None = None
    """Row of the table that all others are tested against; the ambient group if not
    given."""

    def __post_init__(self) -> None:
        """Reject methods that do not exist."""
        super().__post_init__()
        self.check_whole("seeds")
        self.check_positive("epochs")
        for method in self.method_names:
            if method not in self.known:
                near = difflib.get_close_matches(method, self.known, 1, 0)[0]
                raise ValueError(
                    f"there is no method {method!r} for --methods, nearest: {near!r}; "
                    f"known are {', '.join(self.known)}"
                )
        if self.reference_name not in self.method_names:
            raise ValueError(
                f"--reference {self.reference_name!r} must be one of --methods, "
                f"{', '.join(self.method_names)}"
            )

    @property
    def known(self) -> dict[str, Method]:
        """All methods over the ambient group."""
        return methods(self.ambient)

    @property
    def method_names(self) -> tuple[str, ...]:
        """Which methods, given or not."""
        return self.methods or tuple(self.known)

    @property
    def reference_name(self) -> str:
        """The row that all others are tested against, given or not."""
        return self.reference or self.ambient_group.name

    def configure(self, method: str, seed: int) -> MethodTask:
        """Return the task of a method with this network, data and seed."""
        shared = (field.name for field in dataclasses.fields(Task))
        own = {name: getattr(self, name) for name in shared}
        epochs = self.passes_over(self.load(), self.epochs)
        changes = {"seed": seed, "name": None, "resume": False, "epochs": epochs}
        return self.known[method](**{**own, **changes})

    def gradient_steps(self, method: str) -> int:
        """Return how many gradient steps all networks of a method take together."""
        task = self.configure(method, self.seed)
        return self.steps(task.passes, self.load())

    def method_runs(self) -> list[MethodRun]:
        """Return every method with every seed."""
        return [
            MethodRun(self.data_label, method, self.configure(method, seed))
            for method in self.method_names
            for seed in range(self.seed, self.seed + self.seeds)
        ]

    def check(self) -> None:
        """Raise ValueError or OSError where a method cannot run."""
        for each in self.method_runs():
            each.task.check()

    def run(self, folder: Path, console: Console) -> list[dict[str, Any]]:
        """Run what is not done yet; return the rows of all methods and seeds."""
        return collect(self.method_runs(), folder, console)
