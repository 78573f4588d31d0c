"""What a task would cost: its steps, and the time of one, measured here."""

from __future__ import annotations

import dataclasses
import time

import jax
import numpy as np

from eqjax import training
from eqjax_experiments.engine.trial import Trial, trial_step, weights_of
from eqjax_experiments.tasks.task import MethodTask, SingleTask

TIMED_STEPS = 5  # behind one that compiles


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a task would cost.

    Attributes:
      groups: of the network that is trained first.
      parameters: of the same.
      images: training images.
      steps: of all networks together, at most.
      seconds_per_step: of the first network, the median of some steps.
      seconds: of all steps at this rate, without compiling, tests and files.
    """

    groups: tuple[str, ...]
    parameters: int
    images: int
    steps: int
    seconds_per_step: float
    seconds: float

    def __str__(self) -> str:
        """Return some lines for people."""
        return (
            f"first network: {' '.join(self.groups)}, {self.parameters:,} parameters\n"
            f"training steps of all networks, at most: {self.steps:,}\n"
            f"time on this machine: about {duration(self.seconds)}, at "
            f"{1000 * self.seconds_per_step:.0f} ms a step as the first network takes, "
            "and compiling"
        )


def duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    >>> duration(20), duration(5400), duration(86_400 * 3)
    ('1 min', '90 min', '3 days')
    """
    for unit, length in (("days", 86_400), ("hours", 3_600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{max(1, seconds / 60):.0f} min"


def cost_of(task: MethodTask, steps: int | None = None) -> Cost:
    """Return what a task would cost, by training its first network for some steps.

    Args:
      task: that can run.
      steps: of all networks together; those of the task if None.
    """
    dataset = task.load()
    if isinstance(task, SingleTask):
        trial = task.prepare(dataset).trial
    else:
        trial = Trial(task.first_model(), task.weight_optimizer(TIMED_STEPS + 1))
    inputs = task.inputs(dataset)
    state = trial.init(task.seed, inputs)
    count = training.count_parameters(weights_of(state).params)
    key = jax.random.key(task.seed)
    drawn = trial.batches(dataset.train, task.batch_size, TIMED_STEPS + 1, [task.seed])
    times = []
    for pair in drawn:
        begin = time.perf_counter()
        state, metrics = trial_step(state, *pair, key, trial=trial)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - begin)
    seconds = float(np.median(times[1:]))
    steps = task.planned_steps(dataset) if steps is None else steps
    return Cost(
        groups=trial.model.architecture.names,
        parameters=count,
        images=len(dataset.train.labels),
        steps=steps,
        seconds_per_step=seconds,
        seconds=seconds * steps,
    )
