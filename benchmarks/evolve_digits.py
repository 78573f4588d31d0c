"""Test errors of EquiNAS_E on the digits over several seeds, in the small setting.

    python -m benchmarks.evolve_digits [--quick] [--json FILE]

Runs `python -m experiments.evolve --data rotated --seed S` for S = 0 to 4 (0 alone, and
smaller, with --quick). Prints one line per seed and, as its last line, the summary as
one JSON object.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks.report import arguments, finish
from eqjax_experiments.tasks.evolve import EvolutionTask, evolve


def main() -> None:
    """Run all seeds and report."""
    options = arguments(__doc__)
    setting = (
        EvolutionTask(generations=1, first_epochs=0.5)
        if options.quick
        else EvolutionTask()
    )
    console = Console(width=120, highlight=False)
    rows: dict[str, float] = {}
    best, seconds = [], []
    for seed in range(1 if options.quick else 5):
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            config = dataclasses.replace(setting, seed=seed)
            result = evolve(config, config.load(), Path(folder), console)
        seconds.append(time.perf_counter() - begin)
        if not result["front"]:
            raise RuntimeError(f"every member diverged with seed {seed}")
        chosen = min(result["front"], key=lambda member: member["validation_error"])
        best.append(100 * chosen["test_error"])
        for member in result["front"]:
            groups = " ".join(member["groups"])
            name = f"seed {seed}, {groups}, {member['parameters']} parameters"
            rows[f"{name}: test error (%)"] = 100 * member["test_error"]
        rows[f"seed {seed}: seconds"] = seconds[-1]
    summary = {
        "test_error_percent_mean": statistics.mean(best),
        "test_error_percent_deviation": statistics.stdev(best) if best[1:] else 0.0,
        "seconds_median": statistics.median(seconds),
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
