"""Whether memory stays flat while everything is done again and again in one process.

    python -m benchmarks.soak [--minutes 120] [--json FILE] [--quick]

Every iteration trains a network, relaxes, evaluates, saves and loads it, predicts,
tests the symmetry of the data, searches by `eq.evolve`, and runs the search of
`experiments.evolve` in a folder of its own, all on a few digits with another seed.
Models are made anew, optimizers and losses once, as `eqjax.training` asks for.

FILE is one JSON line per iteration: seconds, resident memory, live arrays of JAX and
what they hold, and programs that XLA keeps. Lines are appended: a soak that was stopped
goes on by the same command, as another process, until there are lines of so many
minutes. The slope of each count over iterations is fitted to the process with the most
of them, from its fifth part on (before, programs are compiled and allocators grow), and
the last line, printed and written to FILE, says whether it is flat.

Memory is flat if the upper end of the 95 % interval of its slope is below 0.5 MiB per
iteration. An array or a program that is leaked every time may cost less, but they are
counted: the upper ends of their slopes must be below half a one per iteration.
Successive values are not independent, so that the line is fitted to the means of ten
parts.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console
from scipy import stats

import eqjax as eq
from benchmarks.report import environment
from eqjax import training
from eqjax_experiments.data import digits
from eqjax_experiments.tasks.evolve import EvolutionTask

D4 = eq.dihedral(4)
GROUPS = ("D4 D4 D4", "D4 C4 C4", "C4 C4 C1", "D4 D1 C1")  # one after another
SIZE: dict[str, Any] = {
    "features": (1, 2),
    "kernel_size": 3,
    "pool_after": (1, 2),
    "head_features": 4,
}
IMAGES = 256
OPTIMIZER = optax.adam(1e-2)
TASK = EvolutionTask(
    groups=("D4", "C4", "C1"),
    image_size=14,
    generations=1,
    population_size=2,
    children=2,
    first_epochs=0.02,
    epochs=0.02,
    **SIZE,
)
WARM_UP = 0.2  # share of the iterations
PARTS = 10
BOUNDS = {"rss_mib": 0.5, "arrays": 0.5, "programs": 0.5}  # per iteration


def model_of(architecture: eq.Architecture) -> eq.EquivariantCNN:
    """Return the network of an architecture, made anew."""
    return eq.exact(architecture, **SIZE)


def network(data: training.Split, seed: int) -> None:
    """Train, relax, evaluate, save, load, predict with and test one network."""
    images, labels = data
    source = model_of(eq.Architecture.uniform(D4, len(SIZE["features"]) + 1))
    state = training.init_state(jax.random.key(seed), source, OPTIMIZER, images[:32])
    drawn = training.batches(data, 32, 8, np.random.default_rng(seed))
    state, _ = training.train(state, drawn, model=source, optimizer=OPTIMIZER)
    target = model_of(eq.Architecture.parse(D4, GROUPS[seed % len(GROUPS)]))
    models = {"source": source, "target": target, "inputs": images[:32]}
    variables, _ = eq.morph(state.variables, **models)
    training.evaluate(variables, images, labels, model=target)
    eq.distances(variables, model=target, inputs=images[:32])
    with tempfile.TemporaryDirectory() as folder:
        eq.save(f"{folder}/net", target, variables, inputs=images[:32])
        eq.load(f"{folder}/net").predict(images[:32])
    key = jax.random.key(seed)
    test = {"model": source, "x": images, "y": labels, "key": key, "draws": 99}
    eq.symmetry_test(state.variables, **test)


def search(data: training.Split, seed: int) -> None:
    """Search in one call, and as the command does."""
    start = eq.Architecture.uniform(D4, len(SIZE["features"]) + 1)
    lengths = {"generations": 1, "first_steps": 4, "steps": 4}
    evolution = eq.Evolution(population_size=2, children=2)
    settings = {"search": evolution, "optimizer": OPTIMIZER, "seed": seed, **lengths}
    eq.evolve(model_of, start, data, data, **settings)
    with tempfile.TemporaryDirectory() as folder:
        TASK.run(Path(folder), Console(quiet=True))


def resident_mib() -> float:
    """Return the memory of this process that is not swapped out."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure() -> dict[str, float]:
    """Return what is alive once all that may be collected is."""
    gc.collect()
    arrays = jax.live_arrays()
    return {
        "rss_mib": round(resident_mib(), 3),
        "arrays": len(arrays),
        "arrays_mib": round(sum(a.nbytes for a in arrays) / 2**20, 3),
        "programs": len(jax.devices()[0].client.live_executables()),
        "objects": len(gc.get_objects()),
    }


def slope(values: np.ndarray) -> dict[str, float]:
    """Return the slope per iteration of some values, with a 95 % interval.

    >>> slope(np.arange(40.0))
    {'slope': 1.0, 'low': 1.0, 'high': 1.0}
    >>> slope(np.full(40, 7.0))
    {'slope': 0.0, 'low': 0.0, 'high': 0.0}
    """
    y = np.array([part.mean() for part in np.array_split(values, PARTS)])
    x = np.array([p.mean() for p in np.array_split(np.arange(len(values)), PARTS)])
    x, y = x - x.mean(), y - y.mean()
    line = (x @ y) / (x @ x)
    error = np.sqrt(((y - line * x) ** 2).sum() / (PARTS - 2) / (x @ x))
    half = stats.t.ppf(0.975, PARTS - 2) * error
    ends = {"slope": line, "low": line - half, "high": line + half}
    return {name: round(float(end), 4) for name, end in ends.items()}


def verdict(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the slopes of the longest process, and whether all of them are flat.

    Raises:
      ValueError: there are too few iterations to fit a line to.
    """
    processes: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        processes.setdefault(line["process"], []).append(line)
    longest = max(processes.values(), key=len)
    warm = longest[int(WARM_UP * len(longest)) :]
    if len(warm) < 2 * PARTS:
        raise ValueError(
            f"a slope needs {2 * PARTS} iterations after warming up, got {len(warm)}; "
            "run for more --minutes"
        )
    slopes = {
        name: slope(np.array([line[name] for line in warm]))
        for name in (*BOUNDS, "arrays_mib", "objects")
    }
    flat = all(slopes[name]["high"] < bound for name, bound in BOUNDS.items())
    ends = {"first_mib": warm[0]["rss_mib"], "last_mib": warm[-1]["rss_mib"]}
    counts = {"iterations": len(longest), "fitted": len(warm), **ends}
    return {"flat": flat, **counts, "per_iteration": slopes}


def read(file: Path | None) -> list[dict[str, Any]]:
    """Return the iterations in a file; a line that was cut in two is left out."""
    if file is None or not file.exists():
        return []
    found = []
    for line in file.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # the process was killed while it wrote it
    return [line for line in found if "iteration" in line]


def append(file: Path | None, line: dict[str, Any]) -> None:
    """Add a line to a file, on a line of its own whatever was cut before it."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+") as opened:
            opened.seek(0)
            whole = (opened.read()[-1:] or "\n") == "\n"
            opened.write("\n" * (not whole) + json.dumps(line) + "\n")


def main() -> None:
    """Go on until there are enough minutes, and say whether memory was flat."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--quick", action="store_true", help="25 iterations")
    parser.add_argument("--json", type=Path, help="append a line per iteration here")
    options = parser.parse_args()
    lines = read(options.json)
    process = 1 + max((line["process"] for line in lines), default=0)
    train = digits.load("rotated", size=14).train
    data = training.Split(train.images[:IMAGES], train.labels[:IMAGES])
    seconds = sum(line["seconds"] for line in lines)
    while seconds < 60 * options.minutes and not (options.quick and len(lines) > 24):
        begin, number = time.perf_counter(), len(lines)
        network(data, number)
        search(data, number)
        taken = time.perf_counter() - begin
        seconds += taken
        line = {"iteration": number, "process": process, "seconds": round(taken, 2)}
        lines.append({**line, **measure()})
        append(options.json, lines[-1])
    found = verdict(lines)
    append(options.json, {"environment": environment(), "summary": found})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
