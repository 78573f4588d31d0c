"""EquiNAS_S beside the groups that one would pick by hand, on digits of known symmetry.

    python -m benchmarks.probes --out runs/probes.npz      # once, on an accelerator
    python -m benchmarks.guided --probes runs/probes.npz [--json FILE]

For the four variants of the embedded digits and five seeds, the probe of 375 steps is
tested with 4,000 training images, as `experiments.guide` does by default; the network
that it then trains from scratch for 1,000 steps is among those of the file, and so are
those with one group in all layers, for the same steps, weights and batches. One rule
and the same settings for all four. Given are test errors in percent, the mean
difference to the group picked by hand (the true one, in all layers) with a paired 95 %
t interval over seeds, to the best single group in hindsight, parameters, and all
gradient steps of the search over those of one network; a gradient of the test counts
as one.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

import eqjax as eq
from benchmarks.probes import (
    BATCH,
    D4,
    FINAL,
    LAYERS,
    SEEDS,
    probe_network,
    variables_of,
)
from benchmarks.report import environment, interval
from eqjax.search import guided_schedule, named_group
from eqjax_experiments.data import digits
from eqjax_experiments.tasks.guide import GuidedTask
from eqjax_experiments.tasks.probe import key_of_test

TRUE = {"upright": "C1", "flipped": "D1:i", "quarter": "C4", "rotated": "C4"}
PROBE = 375


def named(file: Any, task: str, seed: int) -> dict[str, Any]:
    """Return what the test of a probe names, and the groups of the network."""
    config = GuidedTask(data=task, seed=seed)
    images, labels = digits.load(task).train
    part = slice(config.tested_images)
    report = eq.symmetry_test(
        variables_of(file, task, seed, PROBE),
        model=probe_network(),
        x=images[part],
        y=labels[part],
        key=key_of_test(seed, 0),
        level=config.level,
    )
    group, decided = named_group(report)
    probe = eq.Architecture.uniform(D4, LAYERS)
    schedule = guided_schedule(probe, group, config.late)
    return {
        "named": group.name,
        "decided": decided,
        "right": group.name == TRUE[task],
        "schedule": str(schedule),
        "p": {name: row.adjusted for name, row in report.network.items()},
    }


def compare(file: Any, task: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how the networks that were named do, beside the uniform ones."""
    names = file["finals"].tolist()
    tables = [file[f"{task}/{seed}/finals"] for seed in range(len(rows))]

    def errors(name: str) -> np.ndarray:
        return np.array([100 * table[names.index(name), 1] for table in tables])

    uniform = {H.name: errors(" ".join([H.name] * LAYERS)) for H in D4.subgroups}
    found = np.array(
        [
            100 * table[names.index(row["schedule"]), 1]
            for table, row in zip(tables, rows, strict=True)
        ]
    )
    best = min(uniform, key=lambda name: uniform[name].mean())
    parameters = [tables[0][names.index(row["schedule"]), 2] for row in rows]
    by_hand = " ".join([TRUE[task]] * LAYERS)
    return {
        "test_error": [round(float(e), 3) for e in found],
        "mean": round(float(found.mean()), 3),
        "by_hand": TRUE[task],
        "by_hand_mean": round(float(uniform[TRUE[task]].mean()), 3),
        "difference_to_hand": interval(found - uniform[TRUE[task]]),
        "best_single_group": best,
        "difference_to_best": interval(found - uniform[best]),
        "D4_mean": round(float(uniform["D4"].mean()), 3),
        "parameters": int(max(parameters)),
        "parameters_by_hand": int(tables[0][names.index(by_hand), 2]),
        "named": [row["named"] for row in rows],
        "decided": [row["decided"] for row in rows],
    }


def main() -> None:
    """Test all probes, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--probes", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    tested: dict[str, list[dict[str, Any]]] = {}
    tasks: dict[str, Any] = {}
    with np.load(options.probes, allow_pickle=False) as file:
        for task, seed in itertools.product(digits.VARIANTS, range(options.seeds)):
            tested.setdefault(task, []).append(named(file, task, seed))
            print(f"{task}, seed {seed}: {tested[task][-1]['named']}", flush=True)
        for task, rows in tested.items():
            tasks[task] = compare(file, task, rows)
            print(f"{task}: {json.dumps(tasks[task])}")
    images = GuidedTask().tested_images // BATCH
    every = [row for rows in tested.values() for row in rows]
    summary = {
        "named_right": float(np.mean([row["right"] for row in every])),
        "decided": float(np.mean([row["decided"] for row in every])),
        "steps_over_one_training": (PROBE + images + FINAL) / FINAL,
        "difference_to_hand": {
            task: found["difference_to_hand"] for task, found in tasks.items()
        },
    }
    if options.json:
        result = {
            "environment": environment(),
            "probes": "one NVIDIA H100, jax 0.11.2, flax 0.12.10, optax 0.2.8",
            "tasks": tasks,
            "rows": tested,
            "summary": summary,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
