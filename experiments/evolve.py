"""Evolve which symmetry each layer of a network has.

python -m experiments.evolve [--data rotated] [--groups D4 C4 C1] ...
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console

import eqjax as eq
from eqjax.capacity import choose_strategy
from eqjax.evolution import SELECTIONS, Evolution, pareto_front
from eqjax.population import Population
from experiments import command, runs
from experiments.data.splits import Dataset
from experiments.display import (
    print_front,
    print_readings,
    progress,
    say_what_is_exact,
    summary,
)
from experiments.hosts import Hosts
from experiments.pictures import draw_search
from experiments.runs import Checkpoint
from experiments.search import Search
from experiments.task import AMBIENT, Task, named_groups


@dataclasses.dataclass(frozen=True)
class Config(Task):
    """Evolve which symmetry each layer of a network has."""

    groups: tuple[str, ...] = ("D4", "C4", "D2", "C2", "D1", "C1")
    """Subgroups of D4 that layers may have; the search starts from the largest."""
    generations: int = 4
    """Generations after the first training."""
    population: int = 4
    """Members kept after every generation."""
    children: int = 3
    """Children per member and generation, the unchanged copy among them."""
    selection: Literal["pareto", "two_fronts", "unique", "top", "random"] = "pareto"
    """Which children survive; random is the control."""
    first_epochs: float = 2.0
    """Passes over the training images before the first generation."""
    epochs: float = 0.5
    """Passes over the training images per child."""
    retrain: bool = False
    """Control: train the best architecture from scratch, for as many steps."""

    def __post_init__(self) -> None:
        """Reject values that no search can run with."""
        super().__post_init__()
        self.check_whole("population", "children")
        self.check_positive("epochs", "first_epochs")
        if self.generations < 0:
            raise ValueError("--generations must be at least 0")

    @property
    def passes(self) -> float:
        """Passes over the training images of all children together, at most."""
        children = self.generations * self.population * self.children
        alone = self.first_epochs + self.generations * self.epochs
        return self.first_epochs + children * self.epochs + self.retrain * alone

    def lengths(self, dataset: Dataset) -> list[int]:
        """Return the training steps of a member in every generation."""
        later = [self.steps(self.epochs, dataset)] * self.generations
        return [self.steps(self.first_epochs, dataset), *later]


def make_search(
    config: Config,
    dataset: Dataset,
    devices: Sequence[jax.Device] | None = None,
    data_devices: int = 1,
) -> Search:
    """Return the search that a configuration describes, on these devices."""
    lengths = config.lengths(dataset)
    model = config.model(first_architecture(config))
    optimizer = config.weight_optimizer(*lengths)
    inputs = config.inputs(dataset)
    strategy = choose_strategy(
        model,
        optimizer,
        inputs,
        members=config.population * config.children,
        devices=devices,
        data=data_devices,
    )
    return Search(
        evolution=Evolution(
            population_size=config.population,
            select=SELECTIONS[config.selection],
            candidates=named_groups(config.groups),
            children=config.children,
        ),
        make_model=config.model,
        population=Population(model, optimizer, inputs, strategy),
        data=dataset,
        first_steps=lengths[0],
        steps=config.steps(config.epochs, dataset),
        seed=config.seed,
    )


def prepare(config: Config, dataset: Dataset) -> eq.EquivariantCNN:
    """Return the network that the search starts from.

    Raises:
      ValueError: a batch is larger than the training split.
    """
    config.inputs(dataset)
    return config.model(first_architecture(config))


def first_architecture(config: Config) -> eq.Architecture:
    """Return the most symmetric architecture, where the search starts."""
    return eq.Architecture.uniform(named_groups(config.groups)[0], config.layers)


def evolve(
    config: Config,
    dataset: Dataset,
    folder: Path,
    console: Console,
    devices: Sequence[jax.Device] | None = None,
    data_devices: int = 1,
) -> dict[str, Any]:
    """Run, or go on with, the search of a folder and return its result."""
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    search = make_search(config, dataset, devices, data_devices)
    console.print(f"training {search.population.strategy}")
    saved, metrics = folder / "checkpoint.msgpack", folder / "metrics.jsonl"
    timing = folder / "timing.jsonl"
    if saved.exists():
        point = runs.load_checkpoint(saved, AMBIENT, search.template)
    else:
        point = search.start(first_architecture(config))
    records = runs.read_lines(metrics, before=point.state.generation)
    runs.read_lines(timing, before=point.state.generation)
    with progress(console, "children") as shown:
        bar = shown.add_task("", total=None)
        while point.state.generation <= config.generations:
            begin = time.perf_counter()
            label = f"generation {point.state.generation}/{config.generations}"

            def show(done: int, total: int, label: str = label) -> None:
                shown.update(bar, completed=done, total=total, description=label)

            point, record = search.generation(point, show)
            seconds = time.perf_counter() - begin
            runs.append_line(metrics, record)
            runs.append_line(
                timing, {"generation": record["generation"], "seconds": seconds}
            )
            runs.save_checkpoint(saved, point)
            records.append(record)
            console.print(f"{label}: {summary(point, record)} ({seconds:.0f} s)")
    front = test_front(search, point)
    layers = [f"layer {i + 1}" for i in range(len(config.features))]
    names = [*layers, "head"] if config.preset == "exact" else layers
    draw_search(folder / "search.png", records, front, names)
    steps = sum(config.lengths(dataset))
    found = {
        "front": front,
        "diverged": point.state.diverged,
        "readings": [best_of(front, steps)] if front else [],
    }
    runs.write_json(result, found)
    return found


def best_of(front: Sequence[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Return the member with the least validation error as a row of the report."""
    best = min(front, key=lambda member: member["validation_error"])
    return {
        "reading": "best of front",
        "groups": best["groups"],
        "validation_error": best["validation_error"],
        "test_error": best["test_error"],
        "training_parameters": best["parameters"],
        "test_parameters": best["parameters"],
        "steps": steps,
    }


def retrain(
    config: Config, result: dict[str, Any], folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Train the best architecture from scratch, for the steps that led to it."""
    if not (config.retrain and result["readings"]):
        return []
    dataset = config.load()
    (best,) = result["readings"]
    experiment = command.retraining(
        config,
        config.model(eq.Architecture.parse(AMBIENT, best["groups"])),
        config.weight_optimizer(best["steps"]),
        best["steps"],
    )
    return command.run(experiment, dataset, folder / experiment.name, console)


def run(config: Config, folder: Path, console: Console) -> list[dict[str, Any]]:
    """Search, or go on with it, in a folder; return the rows of the report."""
    result = evolve(config, config.load(), folder, console, jax.devices()[:1])
    if not result["front"]:
        return [{"reading": "diverged", "groups": [], "test_error": None}]
    return result["readings"] + retrain(config, result, folder, console)


def test_front(search: Search, point: Checkpoint) -> list[dict[str, Any]]:
    """Evaluate the Pareto front of the last population once on the test images."""
    state = point.state
    front = pareto_front(state.scores)
    measured = search.evaluate(point, front, search.data.test)
    return [
        {
            "groups": list(state.population[i].names),
            "parameters": state.scores[i].parameters,
            "validation_error": state.scores[i].error,
            "test_error": float(metrics.error),
        }
        for i, metrics in zip(front, measured, strict=True)
    ]


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclasses.dataclass(frozen=True)
class Options:
    """Evolve which symmetry each layer of a network has."""

    config: Config
    hosts: Hosts


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    with contextlib.ExitStack() as held:
        try:
            options = tyro.cli(Options, args=arguments, description=__doc__)
            config, hosts = options.config, options.hosts
            devices = hosts.connect(config.batch_size)
            if not config.resume:
                prepare(config, config.load())  # errors leave no folder behind
            default = f"evolve-{config.label}"
            folder = hosts.mirror(functools.partial(runs.open_run, config, default))
            config = runs.saved_config(folder, Config)
            dataset = config.load()
            held.enter_context(runs.alone(folder))
        except (ValueError, OSError) as error:
            console.print(f"error: {error}", markup=False)
            raise SystemExit(2) from None
        except jax.errors.JaxRuntimeError as error:
            hosts.leave(f"process {hosts.process} failed, or lost the others: {error}")
        console.quiet = hosts.process > 0
        console.print(f"writing to {folder}")
        model = prepare(config, dataset)
        say_what_is_exact(console, model, dataset.image_shape[:2])
        try:
            result = evolve(
                config, dataset, folder, console, devices, hosts.data_devices
            )
            retrained = retrain(config, result, folder, console)
        except KeyboardInterrupt:
            console.print(f"interrupted; go on with: --name {config.name} --resume")
            raise SystemExit(130) from None
        except jax.errors.JaxRuntimeError as error:
            if hosts.processes == 1:
                raise
            hosts.leave(
                f"process {hosts.process} failed, or lost the others: {error}\n"
                f"start all of them again with --name {config.name} --resume"
            )
        print_front(console, result["front"])
        if retrained:
            print_readings(console, retrained)
        console.print(f"picture: {folder / 'search.png'}")


if __name__ == "__main__":
    main()
