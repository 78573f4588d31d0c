"""Does the test name the group that the data have, and at what cost?

    python -m benchmarks.symmetry [--quick] [--json FILE] [--seeds N]

The small network with D4 in all layers is trained for 500 steps on digits of known
symmetry: the embedded ones upright (C1), flipped (D1:i), turned by right angles (C4)
and by any angle (C4 of D4), and, where `make mnist` has fetched them, all of MNIST
moved by C1, D1:i, C4 and D4. Then `eq.symmetry_test` with 8,000 training images at the
level 1 %. `named_right` is the share of runs in which the true group is the only
maximal one; `false_rejections` the share of runs, of those whose true group is not
trivial, that reject it; `seconds_over_training` the median of the seconds of a test,
without compiling, over those of the training of its network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import eqjax as eq
from benchmarks.report import environment
from eqjax import training
from eqjax_experiments.data import digits
from eqjax_experiments.tasks.baseline import BaselineTask

TRUE = {"upright": "C1", "flipped": "D1:i", "quarter": "C4", "rotated": "C4"}
AUGMENTED = ("C1", "D1:i", "C4", "D4")
LEVEL, STEPS, IMAGES = 0.01, 500, 8000


def settings(quick: bool, seeds: int) -> Iterator[tuple[str, BaselineTask, str]]:
    """Yield the name, task and true group of every run."""
    variants = ("upright", "flipped") if quick else digits.VARIANTS
    for seed, data in itertools.product(range(seeds), variants):
        yield f"{data}, seed {seed}", BaselineTask(data=data, seed=seed), TRUE[data]
    if quick:
        return
    for seed, group in itertools.product(range(seeds), AUGMENTED):
        task = BaselineTask(data="mnist", data_group=group, seed=seed)
        try:
            task.check()
        except OSError:
            print("no MNIST here: `make mnist` fetches it")
            return
        yield f"MNIST moved by {group}, seed {seed}", task, group


def run(task: BaselineTask, truth: str, quick: bool) -> dict[str, Any]:
    """Train a network and test it."""
    dataset, inputs = task.load(), task.inputs(task.load())
    steps, images = (60, 400) if quick else (STEPS, IMAGES)
    model = task.model(task.architecture)
    optimizer = task.weight_optimizer(steps)
    key = jax.random.fold_in(jax.random.key(task.seed), 0)
    x = jax.numpy.zeros(inputs.shape, inputs.dtype)
    state = training.init_state(key, model, optimizer, x)
    kind: dict[str, Any] = {"model": model, "optimizer": optimizer}

    def drawn(count: int, order: int) -> Iterator:
        rng = np.random.default_rng([task.seed, order])
        return training.batches(dataset.train, task.batch_size, count, rng)

    training.train(state, drawn(2, 1), **kind)  # compiles
    begin = time.perf_counter()
    state, _ = training.train(state, drawn(steps, 0), **kind)
    jax.block_until_ready(state.step)
    trained = time.perf_counter() - begin
    part = slice(min(images, len(dataset.train.labels)))
    sample: dict[str, Any] = {
        "x": np.asarray(dataset.train.images[part]),
        "y": dataset.train.labels[part],
        "model": model,
        "key": jax.random.key(task.seed),
        "level": LEVEL,
    }
    eq.symmetry_test(state.variables, **sample)  # compiles
    begin = time.perf_counter()
    report = eq.symmetry_test(state.variables, **sample)
    tested = time.perf_counter() - begin
    true = task.ambient_group.subgroup(truth)
    error = training.evaluate(state.variables, *dataset.validation, model=model).error
    return {
        "validation_error": float(error),
        "named": [group.name for group in report.maximal],
        "right": report.maximal == (true,),
        "true_rejected": true.order > 1 and report.network[truth].rejected,
        "nontrivial": true.order > 1,
        "seconds_training": trained,
        "seconds_test": tested,
        "p": {name: row.adjusted for name, row in report.network.items()},
        "evidence": {
            name: round(row.evidence, 4) for name, row in report.network.items()
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of all runs."""
    nontrivial = [row["true_rejected"] for row in rows if row["nontrivial"]]
    return {
        "named_right": statistics.mean(row["right"] for row in rows),
        "false_rejections": statistics.mean(nontrivial) if nontrivial else 0.0,
        "seconds_over_training": statistics.median(
            row["seconds_test"] / row["seconds_training"] for row in rows
        ),
        "runs": len(rows),
    }


def main() -> None:
    """Run everything that the JSON file does not have, and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="end within two minutes")
    parser.add_argument("--json", type=Path, help="write the result here, too")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())["rows"]
    seeds = 1 if options.quick else options.seeds
    for name, task, truth in settings(options.quick, seeds):
        if name not in rows:
            rows[name] = run(task, truth, options.quick)
        row = rows[name]
        print(
            f"{name}: {' or '.join(row['named'])}, true {truth} "
            f"(training {row['seconds_training']:.1f} s, test "
            f"{row['seconds_test']:.1f} s)",
            flush=True,
        )
        if options.json:
            result = {
                "environment": environment(),
                "rows": rows,
                "summary": summary(list(rows.values())),
            }
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(summary(list(rows.values()))))


if __name__ == "__main__":
    main()
