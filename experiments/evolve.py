"""Evolve which symmetry each layer of a network has, on handwritten digits.

python -m experiments.evolve [--data rotated] [--groups D4 C4 C1] ...
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import optax
import tyro
from rich.console import Console

import eqjax as eq
from eqjax.capacity import choose_strategy
from eqjax.evolution import SELECTIONS, Evolution, pareto_front
from eqjax.population import Population
from experiments import runs
from experiments.data import digits
from experiments.display import (
    child_progress,
    print_front,
    say_what_is_exact,
    summary,
)
from experiments.hosts import Hosts
from experiments.pictures import draw_search
from experiments.runs import Checkpoint
from experiments.search import Search

OPTIMIZERS = {
    "adam": optax.adam,
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Evolve which symmetry each layer of a network has, on handwritten digits."""

    data: digits.Task = "rotated"
    """Digits as they are, turned by right angles, or turned by any angle."""
    groups: tuple[str, ...] = ("D4", "C4", "D2", "C2", "D1", "C1")
    """Subgroups of D4 that layers may have; the search starts from the largest."""
    generations: int = 4
    """Generations after the first training."""
    population: int = 4
    """Members kept after every generation."""
    children: int = 3
    """Children per member and generation, the unchanged copy among them."""
    selection: Literal["pareto", "two_fronts", "unique", "top", "random"] = "pareto"
    """Which children survive."""
    preset: Literal["exact", "paper"] = "exact"
    """Network with exact symmetry, or as the paper's authors have it."""
    features: tuple[int, ...] = (2, 4, 4, 8)
    """Channels per group element of every convolution."""
    kernel_size: int = 5
    """Taps per axis of every convolution."""
    pool_after: tuple[int, ...] = (1, 2, 3)
    """Numbers of the convolutions, from 1, that a pooling follows."""
    head_features: int = 32
    """Width of the hidden layer of the head."""
    optimizer: Literal["adam", "sgd", "momentum"] = "adam"
    """Optimizer of every training."""
    learning_rate: float = 0.005
    """Its learning rate, the largest one under a schedule."""
    schedule: Literal["restart", "constant"] = "restart"
    """Anneal the rate within every generation, or keep it."""
    batch_size: int = 32
    """Samples per training step."""
    first_epochs: float = 2.0
    """Passes over the training digits before the first generation."""
    epochs: float = 0.5
    """Passes over the training digits per child."""
    seed: int = 0
    """Of weights, batches and selection."""
    name: str | None = None
    """Folder under runs/; made up if not given."""
    resume: bool = False
    """Go on with the run --name from its last complete generation."""

    def __post_init__(self) -> None:
        """Reject values that no search can run with."""
        whole = ("population", "children", "batch_size", "kernel_size", "head_features")
        for name in whole:
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        for name in ("learning_rate", "epochs", "first_epochs"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')} must be positive")
        if self.seed < 0:
            raise ValueError("--seed must be at least 0")
        if self.generations < 0:
            raise ValueError("--generations must be at least 0")
        if not self.features or min(self.features) < 1:
            raise ValueError("--features needs one positive number per convolution")
        if self.batch_size > digits.TRAIN:
            raise ValueError(f"--batch-size must be at most {digits.TRAIN}")
        layers = range(1, len(self.features) + 1)
        if not set(self.pool_after) <= set(layers):
            raise ValueError(f"--pool-after takes numbers from 1 to {layers[-1]}")
        if self.resume and self.name is None:
            raise ValueError("--resume needs the --name of a run")


def make_model(config: Config, architecture: eq.Architecture) -> eq.EquivariantCNN:
    """Return the network of an architecture."""
    preset = {"exact": eq.exact, "paper": eq.paper}[config.preset]
    return preset(
        architecture,
        features=config.features,
        kernel_size=config.kernel_size,
        pool_after=config.pool_after,
        head_features=config.head_features,
    )


def make_search(
    config: Config,
    dataset: digits.Dataset,
    devices: Sequence[jax.Device] | None = None,
    data_devices: int = 1,
) -> Search:
    """Return the search that a configuration describes, on these devices."""
    per_epoch = len(dataset.train.labels) / config.batch_size
    first_steps = max(1, round(config.first_epochs * per_epoch))
    steps = max(1, round(config.epochs * per_epoch))
    rate: float | optax.Schedule = config.learning_rate
    if config.schedule == "restart":
        rate = restarting_schedule(
            config.learning_rate, [first_steps] + [steps] * config.generations
        )
    model = make_model(config, first_architecture(config))
    optimizer = OPTIMIZERS[config.optimizer](rate)
    images = dataset.train.images
    inputs = jax.ShapeDtypeStruct((config.batch_size, *images.shape[1:]), images.dtype)
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
            candidates=candidate_groups(config),
            children=config.children,
        ),
        make_model=functools.partial(make_model, config),
        population=Population(model, optimizer, inputs, strategy),
        data=dataset,
        first_steps=first_steps,
        steps=steps,
        seed=config.seed,
    )


def restarting_schedule(peak: float, lengths: Sequence[int]) -> optax.Schedule:
    """Return a cosine decay to zero, after a short warm-up, in every generation.

    Scores are taken at the end of a generation, where the weights have settled and the
    running statistics of the norms have caught up with them.
    """
    cycles = [
        {
            "init_value": 0.1 * peak,
            "peak_value": peak,
            "warmup_steps": steps // 10,
            "decay_steps": steps,
            "end_value": 0.0,
        }
        for steps in lengths
    ]
    return optax.sgdr_schedule(cycles)


def candidate_groups(config: Config) -> tuple[eq.Group, ...]:
    """Return the groups that layers may have, the one to start from first."""
    if not config.groups:
        raise ValueError("--groups needs at least one group")
    D4 = eq.dihedral(4)
    groups = sorted({D4.subgroup(n) for n in config.groups}, key=D4.subgroups.index)
    if not all(group <= groups[0] for group in groups):
        raise ValueError(
            f"--groups must hold one that contains all others, got "
            f"{', '.join(config.groups)}; add {groups[0].join(*groups).name}"
        )
    return tuple(groups)


def first_architecture(config: Config) -> eq.Architecture:
    """Return the most symmetric architecture, where the search starts."""
    head = "invariant" if config.preset == "exact" else "dense"
    layers = eq.EquivariantCNN.searchable_layers(config.features, head)
    return eq.Architecture.uniform(candidate_groups(config)[0], layers)


def evolve(
    config: Config,
    folder: Path,
    console: Console,
    devices: Sequence[jax.Device] | None = None,
    data_devices: int = 1,
) -> dict[str, Any]:
    """Run, or go on with, the search of a folder and return its result."""
    search = make_search(config, digits.load(config.data), devices, data_devices)
    console.print(f"training {search.population.strategy}")
    saved, metrics = folder / "checkpoint.msgpack", folder / "metrics.jsonl"
    if saved.exists():
        point = runs.load_checkpoint(saved, eq.dihedral(4), search.template)
    else:
        point = search.start(first_architecture(config))
    records = runs.read_lines(metrics, before=point.state.generation)
    with child_progress(console) as progress:
        bar = progress.add_task("", total=None)
        while point.state.generation <= config.generations:
            begin = time.perf_counter()
            label = f"generation {point.state.generation}/{config.generations}"

            def show(done: int, total: int, label: str = label) -> None:
                progress.update(bar, completed=done, total=total, description=label)

            point, record = search.generation(point, show)
            runs.append_line(metrics, record)
            runs.save_checkpoint(saved, point)
            records.append(record)
            seconds = time.perf_counter() - begin
            runs.append_line(
                folder / "timing.jsonl",
                {"generation": record["generation"], "seconds": round(seconds, 2)},
            )
            console.print(f"{label}: {summary(point, record)} ({seconds:.0f} s)")
    front = test_front(search, point)
    result = {"front": front, "diverged": point.state.diverged}
    runs.write_json(folder / "result.json", result)
    layers = [f"layer {i + 1}" for i in range(len(config.features))]
    names = [*layers, "head"] if config.preset == "exact" else layers
    draw_search(folder / "search.png", records, front, names)
    return result


def test_front(search: Search, point: Checkpoint) -> list[dict[str, Any]]:
    """Evaluate the Pareto front of the last population once on the test digits."""
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


def _environment() -> dict[str, str]:
    packages = {name: version(name) for name in ("eqjax", "jax", "flax", "optax")}
    device = jax.devices()[0]
    return {"python": platform.python_version(), **packages, "device": str(device)}


def _open_run(config: Config) -> Path:
    """Return the folder of a run, a new one or the one to go on with."""
    if not config.resume:
        candidate_groups(config)
        default = f"evolve-{config.data}-{config.seed}"
        folder = runs.new_folder(config.name, default)
        saved = {**dataclasses.asdict(config), "name": folder.name, "resume": False}
        environment = _environment()
        runs.write_json(
            folder / runs.CONFIG, {"config": saved, "environment": environment}
        )
        return folder
    folder = runs.named_folder(str(config.name))
    if not (folder / runs.CONFIG).exists():
        known = sorted(p.parent.name for p in runs.ROOT.glob(f"*/{runs.CONFIG}"))
        raise ValueError(
            f"there is no run {config.name!r}; known: {', '.join(known) or 'none'}"
        )
    saved = dataclasses.asdict(_saved_config(folder))
    for field in dataclasses.fields(Config):
        asked = getattr(config, field.name)
        if field.name == "resume" or asked in (field.default, saved[field.name]):
            continue
        raise ValueError(
            f"run {config.name!r} has {field.name} {saved[field.name]}, and --resume "
            f"cannot change it to {asked}"
        )
    return folder


def _saved_config(folder: Path) -> Config:
    saved = json.loads((folder / runs.CONFIG).read_text())["config"]
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()
    }
    return Config(**values)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclasses.dataclass(frozen=True)
class Options:
    """Evolve which symmetry each layer of a network has, on handwritten digits."""

    config: Config
    hosts: Hosts


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        options = tyro.cli(Options, args=arguments, description=__doc__)
        config, hosts = options.config, options.hosts
        devices = hosts.connect(config.batch_size)
        folder = hosts.mirror(functools.partial(_open_run, config))
        config = _saved_config(folder)
    except (ValueError, FileNotFoundError) as error:
        console.print(f"error: {error}", markup=False)
        raise SystemExit(2) from None
    except jax.errors.JaxRuntimeError as error:
        hosts.leave(f"process {hosts.process} failed, or lost the others: {error}")
    console.quiet = hosts.process > 0
    console.print(f"writing to {folder}")
    say_what_is_exact(console, make_model(config, first_architecture(config)))
    try:
        result = evolve(config, folder, console, devices, hosts.data_devices)
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
    console.print(f"picture: {folder / 'search.png'}")


if __name__ == "__main__":
    main()
