"""Finer angles on RotMNIST in the small setting: which group, at which cost.

    python -m benchmarks.finer [--quick] [--json FILE] [--seeds 3] [--only 'C16*']

Networks of four convolutions over C4, D4, C8, D8, C16 for all layers, 2,025 steps each:
as wide in real channels (16 32 32 64), which is the same cost of a step, and as many
parameters as D4 then has. And the guided search over the lattice of D16, as wide. Rows
are kept in results/finer.jsonl, and what is there is not trained again. With --quick on
the embedded digits, a few steps. `test_error` is in percent, the mean over seeds, and
seconds their median; `over_C4` is the paired difference to C4 as wide, with a 95 %
interval.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.report import arguments, finish, interval
from benchmarks.small import RESULTS
from eqjax_experiments.runs import files
from eqjax_experiments.runs.reading import EVIDENCE
from eqjax_experiments.tasks.baseline import BaselineTask
from eqjax_experiments.tasks.guide import GuidedTask

ROWS = RESULTS / "finer.jsonl"
GROUPS = {"C4": 4, "D4": 8, "C8": 8, "D8": 16, "C16": 16}
REAL = (16, 32, 32, 64)  # channels
TAPS = {"C4": 25, "D4": 25}  # parameters of a 5x5 filter
HARMONICS = 11
LONG = {"data": "rotmnist", "epochs": 6.0}
QUICK: dict[str, Any] = {"data": "rotated", "epochs": 0.1, "image_size": 14}


def widths(name: str, *, like_d4: bool) -> tuple[int, ...]:
    """Return channels per element of a network over a group.

    Args:
      name: of the group.
      like_d4: as many parameters as D4 has at the real width, else that width.
    """
    times = 1.0
    if like_d4:
        own = TAPS.get(name, HARMONICS) / GROUPS[name]
        times = (TAPS["D4"] / GROUPS["D4"] / own) ** 0.5
    return tuple(max(1, round(times * n / GROUPS[name])) for n in REAL)


def methods() -> dict[str, tuple[type[Any], Mapping[str, Any]]]:
    """Return the task of every method with its settings, by name."""
    found: dict[str, tuple[type[Any], Mapping[str, Any]]] = {}
    for name in GROUPS:
        own = {"ambient": name, "features": widths(name, like_d4=False)}
        found[f"{name}, as wide"] = BaselineTask, own
    guided = {"ambient": "D16", "features": (1, 1, 1, 2), "level": 0.01}
    found["EquiNAS_S over D16, as wide"] = GuidedTask, guided
    for name in GROUPS:
        if name != "D4":
            own = {"ambient": name, "features": widths(name, like_d4=True)}
            found[f"{name}, as many parameters"] = BaselineTask, own
    return found


def run(method: str, seed: int, console: Console, *, quick: bool) -> dict[str, Any]:
    """Train, and return a row."""
    make, own = methods()[method]
    task = make(**own, **(QUICK if quick else LONG), seed=seed)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = task.run(Path(folder), console)
        row = {"method": method, "seed": seed, **_result(rows[-1])}
        if make is GuidedTask:
            row["named"] = json.loads((Path(folder) / EVIDENCE).read_text())[-1][
                "named"
            ]
    return {**row, "seconds": round(time.perf_counter() - begin)}


def _result(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("groups", "test_parameters", "validation_error", "test_error")
    return {name: row[name] for name in kept}


def main() -> None:
    """Train, compare, and print."""
    options = arguments(__doc__, seeds=3, only="*")
    console = Console(width=120, highlight=False)
    before = files.read_lines(ROWS) if ROWS.exists() and not options.quick else []
    known = {(row["method"], row["seed"]): row for row in before}
    chosen = [m for m in methods() if any(fnmatchcase(m, p) for p in options.only)]
    if options.quick:
        chosen = ["C4, as wide", "C8, as wide"]
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for seed, method in itertools.product(range(options.seeds), chosen):
        if options.quick and seed:
            break
        row = known.get((method, seed))
        if row is None:
            row = run(method, seed, console, quick=options.quick)
            if not options.quick:
                files.append_line(ROWS, row)
            console.print(row)
        found.setdefault(method, {})[seed] = row
    rows: dict[str, float] = {}
    errors, over, parameters = {}, {}, {}
    for method, own in found.items():
        each = {seed: 100 * row["test_error"] for seed, row in own.items()}
        errors[method] = round(float(np.mean(list(each.values()))), 2)
        parameters[method] = next(iter(own.values()))["test_parameters"]
        rows[f"{method}: test error (%)"] = errors[method]
        rows[f"{method}: parameters"] = parameters[method]
        rows[f"{method}: seconds"] = float(
            np.median([r["seconds"] for r in own.values()])
        )
        base = {
            s: 100 * r["test_error"] for s, r in found.get("C4, as wide", {}).items()
        }
        shared = sorted(base.keys() & each.keys())
        if method != "C4, as wide" and len(shared) > 1:
            over[method] = interval(np.array([each[s] - base[s] for s in shared]))
    summary = {"test_error": errors, "over_C4": over, "parameters": parameters}
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
