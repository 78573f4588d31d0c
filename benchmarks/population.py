"""Throughput and memory of a population under every strategy and size.

    python -m benchmarks.population [--quick] [--json FILE]

Members of the 8-layer D4 network with different groups, 28x28, batch 64, Adam, are
trained one after another, by vmap in stacks of several widths, and with several steps
per call. Reports members x samples per second, and what the compiled step takes of
memory. 2 channels per fiber element on CPUs, 8 on accelerators.
"""

from __future__ import annotations

import functools
import statistics
import time

import jax
import numpy as np
import optax

import eqjax as eq
from benchmarks.report import arguments, finish
from benchmarks.step import BATCH
from eqjax.capacity import bytes_per_device, choose_strategy
from eqjax.devices import Strategy
from eqjax.population import Population

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


def samples_per_second(
    population: Population, members: int, channels: int, quick: bool
) -> float:
    """Return how many samples all members together take in per second."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 28, 28, 1)).astype(np.float32)
    y = rng.integers(10, size=BATCH)
    steps = max(2, population.strategy.steps_per_call)
    groups = [GROUPS[i % len(GROUPS)] for i in range(members)]
    models = [network(group, channels, quick) for group in groups]
    stacks = [
        population.init(
            jax.random.split(jax.random.key(0), len(models[part])), models[part]
        )
        for part in population.split(members)
    ]
    taken = []
    for _ in range(3):
        begin = time.perf_counter()
        stacks = [population.train(stack, [(x, y)] * steps)[0] for stack in stacks]
        jax.block_until_ready(stacks)
        taken.append(time.perf_counter() - begin)
    return members * BATCH * steps / statistics.median(taken[1:])


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    on_cpu = jax.devices()[0].platform == "cpu"
    channels = 2 if on_cpu else 8
    sizes = (1, 4) if options.quick else (1, 2, 4, 8, 16, 64)
    inputs = jax.ShapeDtypeStruct((BATCH, 28, 28, 1), np.float32)
    model, optimizer = network("D4", channels, options.quick), optax.adam(1e-3)
    default = choose_strategy(model, optimizer, inputs, members=sizes[-1])
    widths = (4,) if options.quick else (4, 16)
    strategies = {"one after another": Strategy()}
    strategies |= {f"vmap, {w} wide": Strategy(width=w) for w in widths}
    strategies["vmap, 4 wide, 8 steps per call"] = Strategy(4, 8)
    strategies["one after another, 8 steps per call"] = Strategy(1, 8)
    strategies["default"] = default
    rows: dict[str, float] = {}
    speed: dict[str, dict[int, float]] = {}
    for name, strategy in strategies.items():
        population = Population(model, optimizer, inputs, strategy)
        rows[f"{name}: memory (MB)"] = bytes_per_device(population) / 1e6
        speed[name] = {}
        for members in sizes:
            if members % strategy.width:
                continue  # a padded stack does work that no one asked for
            if members > 16 and strategy.steps_per_call > 1 and on_cpu:
                continue  # takes minutes
            speed[name][members] = samples_per_second(
                population, members, channels, options.quick
            )
            rows[f"{name}: {members} members (samples/s)"] = speed[name][members]
    one = speed["one after another"]
    summary = {
        "default_strategy": str(default),
        "throughput_over_one_after_another": {
            f"{name}, {members} members": value / one[members]
            for name, by_size in speed.items()
            for members, value in by_size.items()
            if members > 1
        },
        "throughput_over_one_member": {n: s / one[1] for n, s in one.items()},
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
