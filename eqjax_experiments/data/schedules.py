"""Errors of all 126 schedules of groups of a small network, trained and kept.

The file is what `python -m benchmarks.truth` writes, which says what the networks are
and how they are trained. Searches can be judged by it without training anything:

    table = Schedules.load()
    table.best("quarter").schedule
    table.query("quarter", ("D4", "D4", "C4", "C4", "C4")).test_error
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eqjax_experiments.data.npz import read_arrays

FILE = Path(__file__).with_name("schedules.npz")
METRICS = ("validation_error", "validation_loss", "test_error", "test_loss")
DESCRIBED = ("tasks", "seeds", "schedules", "steps", "parameters")

Schedule = tuple[str, ...]  # the name of the group of every layer, from input to output


class Record(NamedTuple):
    """What is known of a schedule on a task.

    Attributes:
      schedule: names of its groups.
      validation_error: in [0, 1]; not a number where the training diverged.
      validation_loss: in nats.
      test_error: in [0, 1].
      test_loss: in nats.
      parameters: trainable ones.
      steps: of the training, up to the pass asked for.
    """

    schedule: Schedule
    validation_error: float
    validation_loss: float
    test_error: float
    test_loss: float
    parameters: int
    steps: int


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Schedules:
    """Every schedule with its errors and losses, by task, seed and pass.

    Attributes:
      arrays: those of the file; every metric is (tasks, seeds, schedules, passes), and
        not a number for tasks and seeds that were not trained.

    >>> one = {name: np.full((1, 1, 2, 1), 0.5) for name in METRICS}
    >>> one["test_error"] = np.array([[[[0.25], [0.125]]]])
    >>> table = Schedules(one | {
    ...     "tasks": np.array(["quarter"]), "seeds": np.array([0]),
    ...     "schedules": np.array([["D4", "D4"], ["D4", "C4"]]),
    ...     "steps": np.array([250]), "parameters": np.array([10, 20])})
    >>> table.best("quarter").schedule
    ('D4', 'C4')
    >>> table.query("quarter", ("D4", "D4")).test_error
    0.25
    """

    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        """Refuse arrays that are missing or of other shapes."""
        missing = [n for n in (*DESCRIBED, *METRICS) if n not in self.arrays]
        if missing:
            raise ValueError(f"the table has no array {', '.join(missing)}")
        shape = tuple(len(self.arrays[name]) for name in DESCRIBED[:-1])
        for name in METRICS:
            if self.arrays[name].shape != shape:
                raise ValueError(
                    f"{name} has shape {self.arrays[name].shape}, expected {shape}: "
                    "tasks, seeds, schedules, passes"
                )

    @classmethod
    def load(cls, path: Path | None = None) -> Schedules:
        """Read a file, by default the one beside this module.

        Raises:
          FileNotFoundError: it is missing.
          ValueError: it is no table.
        """
        path = FILE if path is None else path
        if not path.exists():
            raise FileNotFoundError(
                f"there are no schedules at {path}; python -m benchmarks.truth --out "
                f"{path.name} trains them"
            )
        try:
            return cls(read_arrays(path))
        except ValueError as error:
            raise ValueError(f"{path} is no table of schedules: {error}") from error

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that were trained with at least one seed."""
        names = self.arrays["tasks"].tolist()
        return tuple(n for i, n in enumerate(names) if self._trained[i].any())

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The names of the groups of every schedule, from input to output."""
        return tuple(tuple(names) for names in self.arrays["schedules"].tolist())

    @property
    def passes(self) -> int:
        """Passes over the training images of every training."""
        return len(self.arrays["steps"])

    def seeds(self, task: str) -> tuple[int, ...]:
        """Return the seeds that a task was trained with."""
        trained = self._trained[self._task(task)]
        return tuple(self.arrays["seeds"][trained].tolist())

    def query(
        self,
        task: str,
        schedule: Sequence[str],
        seed: int | None = None,
        passes: int | None = None,
    ) -> Record:
        """Return what is known of a schedule.

        Args:
          task: one of `tasks`.
          schedule: names of the groups, one of `schedules`; a string is split.
          seed: one of `seeds`; the mean over all of them if None.
          passes: after how many passes; after the last if None.

        Raises:
          ValueError: nothing is known of it; the message names the nearest value.
        """
        number = self._schedule(schedule)
        passes = self._passes(passes)
        found = {
            name: float(self.column(name, task, seed, passes)[number])
            for name in METRICS
        }
        return Record(
            schedule=self.schedules[number],
            **found,
            parameters=int(self.arrays["parameters"][number]),
            steps=int(self.arrays["steps"][passes - 1]),
        )

    def column(
        self, name: str, task: str, seed: int | None = None, passes: int | None = None
    ) -> np.ndarray:
        """Return a metric of all schedules, in the order of `schedules`.

        Args:
          name: of the metric, one of `METRICS`.
          task: as in `query`.
          seed: as in `query`.
          passes: as in `query`.
        """
        if name not in METRICS:
            raise ValueError(_no("metric", name, METRICS))
        row, last = self._task(task), self._passes(passes) - 1
        values = self.arrays[name][row, :, :, last].astype(float)
        if seed is None:
            return values[self._trained[row]].mean(0)
        if seed not in self.seeds(task):
            raise ValueError(_no(f"seed of {task}", seed, self.seeds(task)))
        return values[self.arrays["seeds"].tolist().index(seed)]

    def best(self, task: str) -> Record:
        """Return the schedule of the least test error, in the mean over seeds."""
        number = int(np.nanargmin(self.column("test_error", task)))
        return self.query(task, self.schedules[number])

    def __repr__(self) -> str:
        return f"Schedules({len(self.schedules)} on {', '.join(self.tasks)})"

    @property
    def _trained(self) -> np.ndarray:
        return ~np.isnan(self.arrays[METRICS[0]]).all((2, 3))

    def _task(self, task: str) -> int:
        if task not in self.tasks:
            raise ValueError(_no("task", task, self.tasks))
        return self.arrays["tasks"].tolist().index(task)

    def _passes(self, passes: int | None) -> int:
        if passes is None:
            return self.passes
        if not 1 <= passes <= self.passes:
            raise ValueError(_no("passes", passes, range(1, self.passes + 1)))
        return passes

    def _schedule(self, schedule: Sequence[str]) -> int:
        names = tuple(schedule.split() if isinstance(schedule, str) else schedule)
        known = self.schedules
        if names in known:
            return known.index(names)
        groups = sorted({name for each in known for name in each})
        for name in names:
            if name not in groups:
                raise ValueError(_no("group", name, groups))
        if len(names) != len(known[0]):
            raise ValueError(
                f"a schedule has {len(known[0])} groups, got {len(names)}: "
                f"{' '.join(names)}"
            )
        same = [sum(a == b for a, b in zip(names, s, strict=True)) for s in known]
        near = known[int(np.argmax(same))]
        raise ValueError(
            f"no schedule {' '.join(names)!r}: groups do not grow from input to "
            f"output; nearest: {' '.join(near)!r}"
        )


def _no(kind: str, value: Any, known: Sequence[Any]) -> str:
    """Return the message that a value is not known, with the nearest one that is."""
    if not known:
        return f"no {kind} {value!r}: the table holds none"
    if isinstance(value, int):
        near = min(known, key=lambda each: abs(each - value))
    else:
        near = difflib.get_close_matches(str(value), list(map(str, known)), 1, 0)[0]
    listed = ", ".join(map(str, known))
    return f"no {kind} {value!r}, nearest: {near!r}; known are {listed}"
