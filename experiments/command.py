"""The command line of experiments that train a single network."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
import tyro
from rich.console import Console

import eqjax as eq
from experiments import runs
from experiments.data import digits
from experiments.display import print_readings, say_what_is_exact, step_progress
from experiments.pictures import draw_trial
from experiments.task import Task
from experiments.trial import (
    Trial,
    fit,
    ledger,
    member,
    pack,
    pieces,
    reading,
    unpack,
    weights_of,
)

Kind = TypeVar("Kind", bound=Task)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A configuration with its trial, and what is reported of the trained network.

    Attributes:
      config: of the command line.
      trial: what it describes.
      steps: of the training.
      read: variables, data -> rows of the report.
    """

    config: Task
    trial: Trial
    steps: int
    read: Callable[[Any, digits.Dataset], list[dict[str, Any]]]


def train(
    experiments: Sequence[Experiment], dataset: digits.Dataset
) -> list[list[dict[str, Any]]]:
    """Train networks that differ in their seeds alone, together under `vmap`.

    Returns:
      The rows of each.
    """
    first = experiments[0]
    inputs = first.config.inputs(dataset)
    lengths = pieces(first.steps, first.config.steps(1, dataset))
    seeds = [experiment.config.seed for experiment in experiments]
    *_, last = fit(first.trial, dataset, inputs, seeds, lengths)
    return [
        experiment.read(weights_of(member(last.stack, i)).variables, dataset)
        for i, experiment in enumerate(experiments)
    ]


def retrain(
    config: Task,
    model: eq.EquivariantCNN,
    optimizer: optax.GradientTransformation,
    steps: int,
    dataset: digits.Dataset,
) -> dict[str, Any]:
    """Train a network that a search found from scratch; return its row."""

    def read(variables: Any, dataset: digits.Dataset) -> list[dict[str, Any]]:
        return [reading("retrained", model, variables, dataset, steps)]

    experiment = Experiment(config, Trial(model, optimizer), steps, read)
    ((row,),) = train([experiment], dataset)
    return row


def main(
    kind: type[Kind],
    name: str,
    prepare: Callable[[Kind, digits.Dataset], Experiment],
    arguments: list[str] | None,
) -> None:
    """Run an experiment from the command line."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        config = tyro.cli(kind, args=arguments, description=kind.__doc__)
        if not config.resume:
            prepare(config, digits.load(config.data))  # errors leave no folder behind
        folder = runs.open_run(config, f"{name}-{config.data}-{config.seed}")
        config = runs.saved_config(folder, kind)
        experiment = prepare(config, digits.load(config.data))
    except (ValueError, FileNotFoundError) as error:
        console.print(f"error: {error}", markup=False)
        raise SystemExit(2) from None
    console.print(f"writing to {folder}")
    say_what_is_exact(console, experiment.trial.model)
    try:
        rows = run(experiment, folder, console)
    except KeyboardInterrupt:
        console.print(f"interrupted; go on with: --name {folder.name} --resume")
        raise SystemExit(130) from None
    print_readings(console, rows)
    console.print(f"picture: {folder / 'trial.png'}")


def run(experiment: Experiment, folder: Path, console: Console) -> list[dict[str, Any]]:
    """Train, or go on training, the network of a folder; return the report's rows."""
    config, trial = experiment.config, experiment.trial
    dataset = digits.load(config.data)
    inputs = config.inputs(dataset)
    lengths = pieces(experiment.steps, config.steps(1, dataset))
    saved, metrics = folder / "checkpoint.msgpack", folder / "metrics.jsonl"
    stack = jax.tree.map(
        lambda leaf: jnp.asarray(leaf)[None], trial.init(config.seed, inputs)
    )
    done = 0
    if saved.exists():
        done, stack = unpack(saved.read_bytes(), stack)
    records = runs.read_lines(metrics, before=done)
    begin = time.perf_counter()
    with step_progress(console) as progress:
        bar = progress.add_task("training", total=experiment.steps)
        progress.update(bar, completed=sum(lengths[:done]))
        for piece in fit(trial, dataset, inputs, [config.seed], lengths, stack, done):
            stack, (record,) = piece
            done += 1
            runs.append_line(metrics, record)
            runs.write_atomically(saved, pack(done, stack))
            records.append(record)
            progress.update(bar, completed=record["step"])
            console.print(
                f"step {record['step']}/{experiment.steps}: training error "
                f"{100 * record['train_error']:.2f} %, validation error "
                f"{100 * record['validation_error']:.2f} % "
                f"({time.perf_counter() - begin:.0f} s)"
            )
    variables = weights_of(member(stack, 0)).variables
    rows = experiment.read(variables, dataset)
    distances = ledger(variables, trial.model, inputs)
    result = {"readings": rows, "distances": distances}
    runs.write_json(folder / "result.json", result)
    draw_trial(folder / "trial.png", records, distances)
    return rows
