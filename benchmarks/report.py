"""What all benchmarks share: options, a table, and JSON with where it was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy import stats

from eqjax.training.evaluation import mean_and_error


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all benchmarks have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="end within a minute")
    made.add_argument("--json", type=Path, help="write the result here, too")
    return made


def arguments(
    description: str | None, seeds: int = 0, only: str = ""
) -> argparse.Namespace:
    """Parse --quick and --json, and --seeds and --only where they have defaults."""
    options = parser(description)
    if only:
        options.add_argument("--only", nargs="+", default=[only], help="patterns")
    if seeds:
        options.add_argument("--seeds", type=int, default=seeds, help="seeds of each")
    return options.parse_args()


def seconds_in_turns(
    programs: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
    """Return the median seconds of each program, called in turns.

    A busy machine then slows all of them alike. Each is called once before, to compile.
    """
    for program in programs.values():
        jax.block_until_ready(program())
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program())
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def interval(differences: np.ndarray) -> dict[str, float]:
    """Return the mean and a 95 % t interval."""
    mean, error = mean_and_error(differences)
    half = float(stats.t.ppf(0.975, len(differences) - 1) * error)
    return {
        "mean": round(mean, 3),
        "low": round(mean - half, 3),
        "high": round(mean + half, 3),
    }


def environment() -> dict[str, Any]:
    """Return versions and device, and how to run this again."""
    packages = ("eqjax", "jax", "jaxlib", "flax", "optax", "numpy")
    module = getattr(sys.modules["__main__"].__spec__, "name", "?")
    return {
        "command": " ".join(["python -m", module, *sys.argv[1:]]),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
    }


def finish(
    options: argparse.Namespace, rows: dict[str, float], summary: dict[str, Any]
) -> None:
    """Print a table and its summary as the last line, and write both as JSON."""
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value:10.4g}")
    if options.json:
        result = {"environment": environment(), "rows": rows, "summary": summary}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(summary))
