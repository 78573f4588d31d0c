"""Every method of `experiments.compare` on digits rotated by any angle, and upright.

    python -m benchmarks.methods [--quick] [--json FILE]

Runs `python -m experiments.compare --data D --name methods-D` for both, with five seeds
each, or continues these runs where they were interrupted (about an hour and a half
on two cores; --quick: a few steps of each method on the rotated ones, with one seed and
a network of two narrow layers, to see that all of them run). The errors
depend on the seeds alone, the seconds on what else the machine does.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console

from benchmarks.report import arguments, finish
from experiments.reports.statistics import summarize
from experiments.reports.tables import print_table
from experiments.runs import files, run_folder
from experiments.tasks.comparison import ComparisonTask

TASKS = ("rotated", "upright")
FEW_STEPS: dict[str, Any] = {
    "epochs": 0.08,  # 20 steps
    "image_size": 14,
    "features": (1, 1),
    "kernel_size": 3,
    "pool_after": (1,),
    "head_features": 4,
}


def main() -> None:
    """Compare, print, and write."""
    options = arguments(__doc__)
    console = Console(width=120, highlight=False)
    rows: dict[str, float] = {}
    summary: dict[str, Any] = {}
    for data in TASKS[:1] if options.quick else TASKS:
        if options.quick:
            config = ComparisonTask(data=data, seeds=1, **FEW_STEPS)
            folder = run_folder.open_run(config, f"methods-{data}-quick")
        else:
            name = f"methods-{data}"
            resume = (run_folder.ROOT / name / files.CONFIG).exists()
            config = ComparisonTask(data=data, name=name, resume=resume)
            folder = run_folder.open_run(config, name)
        found = config.run(folder, console)
        comparison = summarize(found, config.reference_name)
        print_table(console, data, comparison)
        summary[data] = [dataclasses.asdict(line) for line in comparison.lines]
        for row in found:
            key = f"{data}, {row['method']}, {row['reading']}, seed {row['seed']}"
            rows[f"{key}: test error (%)"] = 100 * row["test_error"]
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
