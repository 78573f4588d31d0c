"""Training a population on 1, 2 and 4 devices.

    python -m benchmarks.devices [--quick] [--json FILE]

Uses the accelerators that there are; on a CPU, virtual devices, which share its cores:
there the figures show what spreading costs, not what it brings.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
import optax

from benchmarks.population import network, samples_per_second
from benchmarks.report import arguments, finish
from benchmarks.step import BATCH
from eqjax.population.memory import choose_strategy
from eqjax.population.stack import Population


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    jax.config.update("jax_num_cpu_devices", 4)
    devices = jax.devices()
    channels = 2 if devices[0].platform == "cpu" else 8
    members = 4 if options.quick else 16
    model, optimizer = network("D4", channels, options.quick), optax.adam(1e-3)
    inputs = jax.ShapeDtypeStruct((BATCH, 28, 28, 1), np.float32)
    choose = functools.partial(choose_strategy, model, optimizer, inputs, members)
    meshes = [(n, 1) for n in (1, 2, 4) if n <= len(devices)]
    meshes += [(n, 2) for n in (2, 4) if n <= len(devices)]
    populations = {}
    for count, data in meshes:
        strategy = choose(devices=devices[:count], data=data)
        name = f"{count // data} x {data}"
        populations[name] = Population(model, optimizer, inputs, strategy)
    speed = samples_per_second(populations, members, channels, options.quick)
    rows = {f"{n} devices: {members} members (samples/s)": s for n, s in speed.items()}
    summary = {
        "throughput_over_one_device": {n: s / speed["1 x 1"] for n, s in speed.items()},
        "members": members,
        "virtual": devices[0].platform == "cpu",
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
