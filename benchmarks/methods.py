"""Every method of `experiments.compare` on the embedded digits, in a small setting.

    python -m benchmarks.methods [--quick] [--json FILE] [--only rotated:D4 'quarter:*']

Digits as they are, flipped, rotated by right angles, and by any angle, reduced to 14 x
14 pixels; a network of three narrow layers, 500 steps behind every network, five seeds
each, and the rates of `benchmarks.tuning`. Runs go to runs/methods-DATA and continue
where they were interrupted, so that two processes may share the work by --only,
patterns of DATA:METHOD (about five hours of one core in all; --quick: a few steps of
each method on the rotated ones, with one seed and a network of two layers, to see that
all of them run). The errors depend on the seeds alone, the seconds on what else the
machine does.
"""

from __future__ import annotations

import dataclasses
from fnmatch import fnmatchcase
from typing import Any

from rich.console import Console

from benchmarks.report import arguments, finish
from benchmarks.small import FEW_STEPS, SMALL, TUNED, tuned_values, varied
from experiments.reports.statistics import summarize
from experiments.reports.tables import print_table
from experiments.runs import files, run_folder
from experiments.runs.collect import MethodRun, collect
from experiments.tasks.comparison import ComparisonTask

TASKS = ("upright", "flipped", "quarter", "rotated")


def fits(data: str, pattern: str) -> bool:
    """Tell whether a pattern of DATA:METHOD is about some data."""
    return fnmatchcase(data, pattern.partition(":")[0])


def tuned(run: MethodRun) -> MethodRun:
    """Return a run with the tuned value of its method."""
    if run.method not in TUNED:
        return run
    place, _ = TUNED[run.method]
    task = varied(run.task, place, tuned_values()[run.method])
    return dataclasses.replace(run, task=task)


def main() -> None:
    """Compare, print, and write."""
    options = arguments(__doc__, only="*:*")
    console = Console(width=120, highlight=False)
    rows: dict[str, float] = {}
    summary: dict[str, Any] = {}
    for data in TASKS[-1:] if options.quick else TASKS:
        if options.quick:
            config = ComparisonTask(data=data, seeds=1, **FEW_STEPS)
            folder = run_folder.open_run(config, f"methods-{data}-quick")
        else:
            name = f"methods-{data}"
            resume = (run_folder.ROOT / name / files.CONFIG).exists()
            config = ComparisonTask(data=data, name=name, resume=resume, **SMALL)
            folder = run_folder.open_run(config, name)
        patterns = [p.partition(":")[2] for p in options.only if fits(data, p)]
        if not patterns:
            continue
        patterns.append(config.reference_name)
        wanted = [
            run
            for run in config.method_runs()
            if any(fnmatchcase(run.method, pattern) for pattern in patterns)
        ]
        if not options.quick:
            wanted = [tuned(run) for run in wanted]
        wanted.sort(key=lambda run: run.task.seed)  # all methods, however far it comes
        found = collect(wanted, folder, console)
        comparison = summarize(found, config.reference_name)
        print_table(console, data, comparison)
        summary[data] = [dataclasses.asdict(line) for line in comparison.lines]
        for row in found:
            key = f"{data}, {row['method']}, {row['reading']}, seed {row['seed']}"
            rows[f"{key}: test error (%)"] = 100 * row["test_error"]
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
