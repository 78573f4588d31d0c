"""Experiments that train a single network, or one after another, in a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import optax
import tyro
from rich.console import Console

import eqjax as eq
from experiments import runs
from experiments.data.splits import Dataset
from experiments.display import print_readings, progress, say_what_is_exact
from experiments.pictures import draw_trial
from experiments.task import Task
from experiments.trial import (
    State,
    Trial,
    fit,
    ledger,
    pack,
    pieces,
    reading,
    unpack,
    weights_of,
)

POINTS = 25  # of the mixtures' trajectory in the report
Kind = TypeVar("Kind", bound=Task)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A configuration with its trial, and what is reported of the trained network.

    Attributes:
      config: of the command line.
      trial: what it describes.
      steps: of the training.
      read: variables, data -> rows of the report.
      begin: the state to start from; that of an untrained network if None.
      follow: the trained state -> what is trained next, if anything.
      name: of its folder, where it follows another.
    """

    config: Task
    trial: Trial
    steps: int
    read: Callable[[Any, Dataset], list[dict[str, Any]]]
    begin: Callable[[], State] | None = None
    follow: Callable[[State], Experiment] | None = None
    name: str = ""


def retraining(
    config: Task,
    model: eq.EquivariantCNN,
    optimizer: optax.GradientTransformation,
    steps: int,
) -> Experiment:
    """Return the training from scratch of a network that a search found."""

    def read(variables: Any, dataset: Dataset) -> list[dict[str, Any]]:
        return [reading("retrained", model, variables, dataset, steps)]

    return Experiment(config, Trial(model, optimizer), steps, read, name="retrained")


def run(
    experiment: Experiment, dataset: Dataset, folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Train, or go on training, the network of a folder, and all that follow it.

    Returns:
      The rows of the report. Those of a network that were written before are read
      again: the test images are looked at once.
    """
    folder.mkdir(exist_ok=True)
    result = folder / "result.json"
    state, records = _train(experiment, dataset, folder, console)
    if not result.exists():
        variables = weights_of(state).variables
        distances = ledger(
            variables, experiment.trial.model, experiment.config.inputs(dataset)
        )
        draw_trial(folder / "trial.png", records, distances)
        rows = experiment.read(variables, dataset)
        points = [point for record in records for point in record["mixtures"]]
        if points[-1]["weights"]:
            rows[0]["mixtures"] = [points[i] for i in _spread(len(points))]
        runs.write_json(result, {"readings": rows, "distances": distances})
    rows = json.loads(result.read_text())["readings"]
    if experiment.follow is not None:
        after = experiment.follow(state)
        rows += run(after, dataset, folder / after.name, console)
    return rows


def _train(
    experiment: Experiment, dataset: Dataset, folder: Path, console: Console
) -> tuple[State, list[dict[str, Any]]]:
    """Return the trained state, and the records of all pieces."""
    config, trial = experiment.config, experiment.trial
    inputs = config.inputs(dataset)
    lengths = pieces(experiment.steps, config.steps(1, dataset))
    saved, metrics = folder / "checkpoint.msgpack", folder / "metrics.jsonl"
    timing = folder / "timing.jsonl"
    done, untrained = 0, lambda: trial.init(config.seed, inputs)
    if saved.exists():
        done, state = unpack(saved.read_bytes(), jax.eval_shape(untrained))
    else:
        state = (experiment.begin or untrained)()
    records = runs.read_lines(metrics, before=done)
    runs.read_lines(timing, before=done)
    begin = time.perf_counter()
    with progress(console, "steps") as shown:
        bar = shown.add_task("training", total=experiment.steps)
        shown.update(bar, completed=sum(lengths[:done]))
        for piece in fit(trial, dataset, inputs, config.seed, lengths, state, done):
            state, record = piece
            done += 1
            seconds = time.perf_counter() - begin
            begin += seconds
            runs.append_line(metrics, record)
            runs.append_line(timing, {"step": record["step"], "seconds": seconds})
            runs.write_atomically(saved, pack(done, state))
            records.append(record)
            shown.update(bar, completed=record["step"])
            console.print(
                f"step {record['step']}/{experiment.steps}: training error "
                f"{100 * record['train_error']:.2f} %, validation error "
                f"{100 * record['validation_error']:.2f} % ({seconds:.0f} s)"
            )
    return state, records


def _spread(count: int) -> list[int]:
    """Return at most POINTS numbers below a count, the first and last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, POINTS)})


def main(
    kind: type[Kind],
    name: str,
    prepare: Callable[[Kind, Dataset], Experiment],
    arguments: list[str] | None,
) -> None:
    """Run an experiment from the command line."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    with contextlib.ExitStack() as held:
        try:
            config = tyro.cli(kind, args=arguments, description=kind.__doc__)
            if not config.resume:
                prepare(config, config.load())  # errors leave no folder behind
            folder = runs.open_run(config, f"{name}-{config.label}")
            config = runs.saved_config(folder, kind)
            dataset = config.load()
            experiment = prepare(config, dataset)
            held.enter_context(runs.alone(folder))
        except (ValueError, OSError) as error:
            console.print(f"error: {error}", markup=False)
            raise SystemExit(2) from None
        console.print(f"writing to {folder}")
        say_what_is_exact(console, experiment.trial.model, dataset.image_shape[:2])
        try:
            rows = run(experiment, dataset, folder, console)
        except KeyboardInterrupt:
            console.print(f"interrupted; go on with: --name {folder.name} --resume")
            raise SystemExit(130) from None
        print_readings(console, rows)
        console.print(f"picture: {folder / 'trial.png'}")
