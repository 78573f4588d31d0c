"""What the power of the symmetry test depends on.

    python -m benchmarks.probes --out runs/probes.npz      # once, on an accelerator
    python -m benchmarks.power --probes runs/probes.npz [--json FILE] [--seeds N]

The tasks that are hard to tell are digits turned by right angles and by any angle,
whose group C4 differs from D4 by mirror images alone. One setting is varied at a time:
steps of training of the probe, images, blocks, whitening, images seen in training or
held out. Given for each are the share of runs in which C4 is the only maximal group at
the levels 5 % and 1 %, the share in which it is that with the least evidence among the
maximal ones at 1 %, which is what EquiNAS_S takes, and the median of the largest
adjusted p value of a group with a mirror.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import jax
import numpy as np

import eqjax as eq
from benchmarks.probes import D4, SEEDS, probe_network, variables_of
from benchmarks.report import environment
from eqjax.analysis.evidence import maximal
from eqjax.search import named_group
from eqjax_experiments.data import digits

TASKS, TRUE = ("quarter", "rotated"), D4.subgroup("C4")


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a probe is trained and tested."""

    steps: int = 375
    images: int = 4000
    blocks: int = 200
    whiten: bool = True
    held_out: bool = False


BASE = Setting()
SETTINGS = {
    "as EquiNAS_S has it": BASE,
    "125 steps": dataclasses.replace(BASE, steps=125),
    "250 steps": dataclasses.replace(BASE, steps=250),
    "1,000 steps": dataclasses.replace(BASE, steps=1000),
    "8,000 images": dataclasses.replace(BASE, images=8000),
    "2,000 images": dataclasses.replace(BASE, images=2000),
    "2,000 held-out images": dataclasses.replace(BASE, images=2000, held_out=True),
    "50 blocks": dataclasses.replace(BASE, blocks=50),
    "400 blocks": dataclasses.replace(BASE, blocks=400),
    "not whitened": dataclasses.replace(BASE, whiten=False),
}


def outcome(file: Any, task: str, seed: int, setting: Setting) -> dict[str, float]:
    """Return what a test of one probe says."""
    dataset = digits.load(task)
    images, labels = dataset.validation if setting.held_out else dataset.train
    part = slice(setting.images)
    report = eq.symmetry_test(
        variables_of(file, task, seed, setting.steps),
        model=probe_network(),
        x=images[part],
        y=labels[part],
        key=jax.random.key(seed),
        level=0.01,
        block_size=setting.images // setting.blocks,
        whiten=setting.whiten,
    )
    usual = {
        name: dataclasses.replace(row, rejected=row.adjusted <= 0.05)
        for name, row in report.network.items()
    }
    mirrored = [row for row in report.network.values() if not row.group <= TRUE]
    return {
        "right_at_5": maximal(usual, D4.smallest) == (TRUE,),
        "right_at_1": report.maximal == (TRUE,),
        "named": named_group(report).group == TRUE,
        "largest_p_of_a_mirror": max(row.adjusted for row in mirrored),
    }


def measure(
    file: Any, name: str, setting: Setting, seeds: int, found: dict[str, Any]
) -> None:
    """Test all probes in one setting."""
    rows = [
        outcome(file, task, seed, setting) for task in TASKS for seed in range(seeds)
    ]
    means = {
        kind: statistics.mean(row[kind] for row in rows)
        for kind in ("right_at_5", "right_at_1", "named")
    }
    largest = statistics.median(row["largest_p_of_a_mirror"] for row in rows)
    found["environments"][name] = environment()
    found["rows"][name] = rows
    found["summary"][name] = {**means, "median_largest_p": largest}


def main() -> None:
    """Test the probes in every setting that the file does not have."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--probes", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {"environments": {}, "rows": {}, "summary": {}}
    if options.json and options.json.exists():
        found = json.loads(options.json.read_text())
    with np.load(options.probes, allow_pickle=False) as file:
        for name, setting in SETTINGS.items():
            if len(found["rows"].get(name, ())) < options.seeds * len(TASKS):
                measure(file, name, setting, options.seeds, found)
            print(f"{name}: {found['summary'][name]}", flush=True)
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["summary"]))


if __name__ == "__main__":
    main()
