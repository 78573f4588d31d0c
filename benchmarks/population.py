"""Throughput and memory of a population under every strategy and size.

    python -m benchmarks.population [--quick] [--json FILE]

Members of the 8-layer D4 network with different groups, 28x28, batch 64, Adam, are
trained one after another, by vmap in stacks of several widths, and with several steps
per call. Reports members x samples per second, and what the compiled step takes of
memory. 2 channels per fiber element on CPUs, 8 on accelerators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax

import eqjax as eq
from benchmarks.report import arguments, finish, seconds_in_turns
from benchmarks.step import BATCH
from eqjax.population.devices import Strategy
from eqjax.population.memory import bytes_per_device, choose_strategy
from eqjax.population.stack import Population

D4 = eq.dihedral(4)
GROUPS = ("D4", "C4", "D2", "C1")


@functools.cache
def network(group: str, channels: int, quick: bool) -> eq.EquivariantCNN:
    """Return a network of 8 layers, or of 2, the later half and head in a group."""
    half, pool_after = (1, (1, 2)) if quick else (4, (3, 5, 7))
    features = (channels,) * half + (2 * channels,) * half
    names = ["D4"] * half + [group] * (half + 1)
    architecture = eq.Architecture.parse(D4, " ".join(names))
    return eq.exact(architecture, features=features, pool_after=pool_after)


def training(
    population: Population, members: int, channels: int, quick: bool
) -> tuple[Callable[[], Any], int]:
    """Return a program that trains a population, and how many samples it takes in."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 28, 28, 1)).astype(np.float32)
    y = rng.integers(10, size=BATCH)
    steps = max(2, population.strategy.steps_per_call)
    groups = [GROUPS[i % len(GROUPS)] for i in range(members)]
    models = [network(group, channels, quick) for group in groups]
    keys = jax.random.split(jax.random.key(0), members)
    stacks = [
        population.init(keys[part], models[part]) for part in population.split(members)
    ]

    def run():
        for i, stack in enumerate(stacks):
            stacks[i], _ = population.train(stack, [(x, y)] * steps)
        return stacks

    return run, members * BATCH * steps


def samples_per_second(
    populations: Mapping[str, Population],
    members: int,
    channels: int,
    quick: bool,
) -> dict[str, float]:
    """Return how many samples all members together take in, timed in turns."""
    programs = {
        name: training(population, members, channels, quick)
        for name, population in populations.items()
    }
    seconds = seconds_in_turns({name: run for name, (run, _) in programs.items()}, 3)
    return {name: samples / seconds[name] for name, (_, samples) in programs.items()}


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    channels = 2 if jax.devices()[0].platform == "cpu" else 8
    sizes = (1, 4) if options.quick else (1, 4, 16, 64)
    inputs = jax.ShapeDtypeStruct((BATCH, 28, 28, 1), np.float32)
    model, optimizer = network("D4", channels, options.quick), optax.adam(1e-3)
    default = choose_strategy(model, optimizer, inputs, members=sizes[-1])
    strategies = {
        "one after another": Strategy(),
        "one after another, 8 steps per call": Strategy(1, 8),
        "vmap, 4 wide": Strategy(4),
        "vmap, 4 wide, 8 steps per call": Strategy(4, 8),
    }
    if not options.quick:
        strategies["vmap, 16 wide"] = Strategy(16)
    if default not in strategies.values():
        strategies["default"] = default
    populations = {
        name: Population(model, optimizer, inputs, strategy)
        for name, strategy in strategies.items()
    }
    rows = {
        f"{name}: memory (MB)": bytes_per_device(population) / 1e6
        for name, population in populations.items()
    }
    over_one: dict[str, float] = {}
    for members in sizes:
        fitting = {  # a padded stack does work that no one asked for
            name: population
            for name, population in populations.items()
            if members % population.strategy.width == 0
            and (members <= 16 or population.strategy.steps_per_call == 1)
        }
        speed = samples_per_second(fitting, members, channels, options.quick)
        for name, value in speed.items():
            rows[f"{name}: {members} members (samples/s)"] = value
            over_one[f"{name}, {members} members"] = value / speed["one after another"]
    one = "one after another: {} members (samples/s)"
    summary = {
        "default_strategy": str(default),
        "throughput_over_one_after_another": over_one,
        "throughput_over_one_member": {
            str(n): rows[one.format(n)] / rows[one.format(1)] for n in sizes
        },
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
