"""Experiments that train a single network, or one after another, in a folder."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
import optax
from rich.console import Console

import eqjax as eq
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine.records import record_all, resume_records
from eqjax_experiments.engine.trial import (
    TrainingState,
    Trial,
    fit,
    ledger,
    pack,
    piece_lengths,
    reading,
    unpack,
    weights_of,
)
from eqjax_experiments.reports.printing import percent, progress
from eqjax_experiments.runs import files, networks

REPORTED_POINTS = 25  # of the mixtures' trajectory in the report
LINES = 20  # at most, on a training


class TrainingSettings(Protocol):
    """What an experiment asks of the task that it belongs to."""

    @property
    def seed(self) -> int:
        """Of weights and batches."""
        ...

    def inputs(self, dataset: Dataset) -> jax.ShapeDtypeStruct:
        """Return the shape of a batch."""
        ...

    def steps(self, epochs: float, dataset: Dataset) -> int:
        """Return how many steps so many passes over the training images take."""
        ...


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A task with its trial, and what is reported of the trained network.

    Attributes:
      task: of the command line.
      trial: what it describes.
      steps: of the training.
      read: variables, data -> rows of the report.
      begin: the state to start from; that of an untrained network if None.
      follow: the trained state -> what is trained next, if anything.
      name: of its folder, where it follows another.
      seen: what it is trained on, if that is not all of the data.
    """

    task: TrainingSettings
    trial: Trial
    steps: int
    read: Callable[[Any, Dataset], list[dict[str, Any]]]
    begin: Callable[[], TrainingState] | None = None
    follow: Callable[[TrainingState], Experiment] | None = None
    name: str = ""
    seen: Dataset | None = None


def retraining(
    task: TrainingSettings,
    model: eq.EquivariantCNN,
    optimizer: optax.GradientTransformation,
    steps: int,
) -> Experiment:
    """Return the training from scratch of a network that a search found."""

    def read(variables: Any, dataset: Dataset) -> list[dict[str, Any]]:
        return [reading("retrained", model, variables, dataset, steps)]

    return Experiment(task, Trial(model, optimizer), steps, read, name="retrained")


def run(
    experiment: Experiment, dataset: Dataset, folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Train, or continue to train, the network of a folder, and all that follow it.

    Returns:
      The rows of the report. Those of a network that were written before are read
      again: the test images are looked at once.
    """
    folder.mkdir(exist_ok=True)
    result = folder / files.RESULT
    seen = dataset if experiment.seen is None else experiment.seen
    state, records = _train(experiment, seen, folder, console)
    if not result.exists():
        _check_records(experiment, seen, folder, records)
        variables = weights_of(state).variables
        distances = ledger(
            variables, experiment.trial.model, experiment.task.inputs(dataset)
        )
        from eqjax_experiments.reports import pictures  # slow to import

        picture = pictures.trial_figure(records, distances)
        pictures.save(picture, folder / "trial.png")
        rows = experiment.read(variables, dataset)
        networks.save(
            networks.inside(folder) / "trained",
            experiment.trial.model,
            variables,
            dataset,
            experiment.task.inputs(dataset),
            validation_error=records[-1]["validation_error"],
            test_error=rows[0]["test_error"] if rows else None,
        )
        points = [point for record in records for point in record["mixtures"]]
        if points[-1]["weights"]:
            rows[0]["mixtures"] = [points[i] for i in _spread(len(points))]
        files.write_record(result, {"readings": rows, "distances": distances})
    rows = files.read_record(result)["readings"]
    if experiment.follow is not None:
        after = experiment.follow(state)
        rows += run(after, dataset, folder / after.name, console)
    return rows


def _train(
    experiment: Experiment, dataset: Dataset, folder: Path, console: Console
) -> tuple[TrainingState, list[dict[str, Any]]]:
    """Return the trained state, and the records of all pieces."""
    task, trial, steps = experiment.task, experiment.trial, experiment.steps
    inputs = task.inputs(dataset)
    lengths = piece_lengths(steps, task.steps(1, dataset))
    saved = folder / files.CHECKPOINT
    done, untrained = 0, lambda: trial.init(task.seed, inputs)
    if saved.exists():
        done, state = unpack(saved, jax.eval_shape(untrained))
    else:
        state = (experiment.begin or untrained)()
    records = resume_records(folder, done)
    count = itertools.count(done + 1)

    with progress(console, "steps") as shown:
        bar = shown.add_task("training", total=steps)
        shown.update(bar, completed=sum(lengths[:done]))

        def save(state: TrainingState) -> None:
            files.write_atomically(saved, pack(next(count), state))

        def report(_: TrainingState, record: dict[str, Any], seconds: float) -> None:
            records.append(record)
            shown.update(bar, completed=record["step"])
            before = records[-2]["step"] if len(records) > 1 else 0
            if record["step"] * LINES // steps == before * LINES // steps:
                return  # passes over a few images are many
            console.print(
                f"step {record['step']}/{steps}: training error "
                f"{percent(record['train_error'])}, validation error "
                f"{percent(record['validation_error'])} ({seconds:.0f} s)"
            )

        produced = fit(trial, dataset, inputs, task.seed, lengths, state, done)
        last = record_all(state, produced, folder, key="step", save=save, report=report)
    return last, records


def _check_records(
    experiment: Experiment,
    dataset: Dataset,
    folder: Path,
    records: list[dict[str, Any]],
) -> None:
    """Raise DamagedFileError if lines are lost that the report is made of.

    These are the last one, and all of them where there are mixtures.
    """
    pieces = piece_lengths(experiment.steps, experiment.task.steps(1, dataset))
    lost = len(pieces) - len(records)
    complete = records and records[-1]["step"] == experiment.steps
    if lost and (not complete or records[-1]["mixtures"][-1]["weights"]):
        raise files.DamagedFileError(
            folder / files.METRICS, f"it lacks {lost} of {len(pieces)} lines"
        )


def _spread(count: int) -> list[int]:
    """Return some numbers below a count, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, REPORTED_POINTS)})
