"""Volumes and sequences: what a step costs, and which symmetry is found.

    python -m benchmarks.volumes [--quick] [--json FILE] [--seeds 3] [--only 'axis:E']

First, forward and backward of one 3x3x3 layer over Oh, regular and over cosets, against
a plain convolution of the same real width, with the memory of each beside it. Then, on
the volumes and sequences that are made by a formula, what each search names: the
symmetry test of one network in the ambient group (S), evolution (E), and what is read
off a mixture by perturbation (D), where parts count that cost three standard errors:
the group that all layers of the network have in common. `named_right` is the share of
seeds where that is the group of the data. Patterns of DATA:SEARCH choose what is
searched; rows are kept in results/volumes.jsonl, and what is there is reported, and not
searched again.
"""

from __future__ import annotations

import functools
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

import eqjax as eq
from benchmarks.plain import PlainConv
from benchmarks.report import arguments, finish, seconds_in_turns
from benchmarks.small import RESULTS
from eqjax_experiments.data import synthetic
from eqjax_experiments.runs import files
from eqjax_experiments.runs.reading import EVIDENCE
from eqjax_experiments.tasks.differentiate import DifferentiationTask
from eqjax_experiments.tasks.evolve import EvolutionTask, evolve
from eqjax_experiments.tasks.guide import GuidedTask

OH = eq.full_octahedral()
ROWS = RESULTS / "volumes.jsonl"
GROUPS = {"Oh": ("Oh", "O", "D4h", "D4", "C4", "C1"), "flip": ("D1", "C1")}
QUICK = {"epochs": 0.3}


def layers() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Return layers with the shape of what they read, by name."""
    found: dict[str, tuple[Any, tuple[int, ...]]] = {}
    for points, channels, stabilizer in (
        (8, 1, "C1"),
        (8, 2, "C1"),
        (16, 1, "C1"),
        (16, 4, "C4:i"),
        (16, 8, "D4:i"),
    ):
        subgroup = OH.subgroup(stabilizer)
        fiber = eq.quotient(subgroup)
        kind: dict[str, Any] = {"group": OH, "fiber_in": fiber, "fiber_out": fiber}
        size = (points,) * 3
        name = f"{points}^3, {fiber.size} elements of {channels} channels"
        layer = eq.GroupConv(channels, 3, use_bias=False, **kind)
        found[name] = layer, (8, *size, fiber.size, channels)
    irreps = "8x0e + 8x1o + 3x2e"
    turned = eq.IrrepsConv(irreps, 3, group=OH, irreps_in=irreps, use_bias=False)
    found["16^3, irreps of 47 components"] = turned, (8, 16, 16, 16, 47)
    return found


def program(layer: Any, shape: tuple[int, ...]) -> Any:
    """Return the compiled gradients of a layer by weights and input."""
    x = jax.random.normal(jax.random.key(1), shape)
    variables = layer.init(jax.random.key(0), x)

    def loss(variables, x):
        return jnp.sum(layer.apply(variables, x) ** 2)

    run = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(variables, x).compile()
    return run, functools.partial(run, variables, x)


def cost(repeats: int, *, quick: bool) -> tuple[dict[str, float], dict, dict]:
    """Return milliseconds, and what a tied step takes over a plain one."""
    rows: dict[str, float] = {}
    steps: dict[str, float] = {}
    memory: dict[str, float] = {}
    chosen = list(layers().items())[: 1 if quick else None]
    for name, (layer, shape) in chosen:
        real = shape[4] * (shape[5] if len(shape) > 5 else 1)
        tied, run_tied = program(layer, shape)
        plain, run_plain = program(PlainConv(real, 3), (*shape[:4], real))
        seconds = seconds_in_turns({"tied": run_tied, "plain": run_plain}, repeats)
        for kind, taken in seconds.items():
            rows[f"{name}: {kind} (ms)"] = 1e3 * taken
        steps[name] = round(seconds["tied"] / seconds["plain"], 3)
        sizes = [p.memory_analysis().temp_size_in_bytes for p in (tied, plain)]
        memory[name] = round(sizes[0] / sizes[1], 3)
    return rows, steps, memory


def settings(data: str, seed: int, *, quick: bool) -> dict[str, Any]:
    """Return the settings that all searches share."""
    ambient = synthetic.KINDS[data].ambient
    own = {"data": data, "ambient": ambient, "groups": GROUPS[ambient], "seed": seed}
    return {**own, **(QUICK if quick else {})}


def tested(folder: Path, console: Console, **own: Any) -> str:
    """Return what the test names."""
    if own["ambient"] == "Oh":
        own["groups"] = None
    task = GuidedTask(level=0.01, **own)
    task.run(folder, console)
    return json.loads((folder / EVIDENCE).read_text())[-1]["named"]


def evolved(folder: Path, console: Console, **own: Any) -> str:
    """Return what an evolution says."""
    task = EvolutionTask(generations=3, population_size=3, **own)
    found = evolve(task, task.load(), folder, console, jax.devices()[:1], 1)
    return str(found["verdict"]["group"])


def read_off(folder: Path, console: Console, **own: Any) -> str:
    """Return what all layers of the network that is read off have in common."""
    kind: dict[str, Any] = {"read_off": "perturbation", "margin": 3.0}
    task = DifferentiationTask(**kind, retrain=False, **own)
    rows = task.run(folder, console)
    names = next(r for r in rows if r["reading"] == "perturbation")["groups"]
    groups = [task.ambient_group.subgroup(name) for name in names]
    return groups[0].meet(*groups[1:]).name


SEARCHES: dict[str, Callable[..., str]] = {"S": tested, "E": evolved, "D": read_off}


def kept() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the rows that were found before, by data, search and seed."""
    rows = files.read_lines(ROWS) if ROWS.exists() else []
    return {(row["data"], row["search"], row["seed"]): row for row in rows}


def main() -> None:
    """Measure, search, and print."""
    options = arguments(__doc__, seeds=3, only="*:*")
    console = Console(width=120, highlight=False)
    rows, steps, memory = cost(3 if options.quick else 9, quick=options.quick)
    before = {} if options.quick else kept()
    names = ["direction"] if options.quick else list(synthetic.KINDS)
    seeds = range(1 if options.quick else options.seeds)
    found = dict(before)
    for seed, data, search in itertools.product(seeds, names, SEARCHES):
        wanted = any(fnmatchcase(f"{data}:{search}", p) for p in options.only)
        if not wanted or (options.quick and search == "D"):
            continue
        if (data, search, seed) not in found:
            begin = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                own = settings(data, seed, quick=options.quick)
                named = SEARCHES[search](Path(folder), console, **own)
            row = {"data": data, "search": search, "seed": seed, "named": named}
            row["truth"] = synthetic.KINDS[data].group
            row["seconds"] = round(time.perf_counter() - begin)
            if not options.quick:
                files.append_line(ROWS, row)
            console.print(row)
            found[data, search, seed] = row
    right: dict[str, list[bool]] = {}
    for (data, search, seed), row in sorted(found.items()):
        right.setdefault(f"{data}, {search}", []).append(row["named"] == row["truth"])
        rows[f"{data}, {search}, seed {seed}: {row['named']} (s)"] = row["seconds"]
    summary = {
        "step_over_plain": steps,
        "memory_over_plain": memory,
        "named_right": {n: round(statistics.mean(own), 2) for n, own in right.items()},
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
