"""Every method of `experiments.compare` on the embedded digits, in a small setting.

    python -m benchmarks.methods [--quick] [--json FILE] [--seeds 5] [--only 'D:*']

Digits as they are, flipped, rotated by right angles, and by any angle, reduced to 14 x
14 pixels; a network of three narrow layers, 500 steps behind every network, five seeds
each, and the rates of `benchmarks.tuning`. Runs go to runs/methods-DATA and continue
where they were interrupted, seed by seed, or from the rows that are kept in
benchmarks/results; two processes may share the work by --only, patterns of DATA:METHOD
(about six hours of one core in all; --quick: a few steps of each method on the rotated
ones, with one seed and a network of two layers, to see that all of them run). The
errors depend on the seeds alone, the seconds on what else the machine does.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.report import arguments, finish, interval
from benchmarks.small import FEW_STEPS, RESULTS, SMALL, TUNED, tuned_values, varied
from eqjax_experiments.reports.statistics import Line, summarize
from eqjax_experiments.reports.tables import print_table
from eqjax_experiments.runs import files, run_folder
from eqjax_experiments.runs.collect import MethodRun, collect
from eqjax_experiments.tasks.comparison import ComparisonTask

KEPT = (  # of a row
    "experiment",
    "method",
    "seed",
    "seconds",
    "data",
    "reading",
    "groups",
    "validation_error",
    "test_error",
    "training_parameters",
    "test_parameters",
    "steps",
)
BY_HAND = ("D4", "C4", "C1")
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


def open_table(data: str, *, quick: bool) -> tuple[ComparisonTask, Path]:
    """Return the comparison on some data, and the folder where it goes on."""
    if quick:
        config = ComparisonTask(data=data, seeds=1, **FEW_STEPS)
        return config, run_folder.open_run(config, f"methods-{data}-quick")
    name = f"methods-{data}"
    resume = (run_folder.ROOT / name / files.CONFIG).exists()
    config = ComparisonTask(data=data, name=name, resume=resume, **SMALL)
    folder = run_folder.open_run(config, name)
    if kept(data).exists() and not (folder / files.ROWS).exists():
        shutil.copy(kept(data), folder / files.ROWS)
    return config, folder


def kept(data: str) -> Path:
    """Return the file that the rows of a table are kept in."""
    return RESULTS / f"methods-{data}.jsonl"


def keep(folder: Path, data: str) -> None:
    """Keep the rows of a folder, without what the table does not need."""
    lines = [
        json.dumps({name: row[name] for name in KEPT}) + "\n"
        for row in files.read_lines(folder / files.ROWS)
    ]
    files.write_atomically(kept(data), "".join(lines))


def chosen(config: ComparisonTask, options: argparse.Namespace) -> list[MethodRun]:
    """Return the runs that are wanted, with those of the reference; or none."""
    patterns = [p.partition(":")[2] for p in options.only if fits(config.data, p)]
    if not patterns:
        return []
    patterns.append(config.reference_name)
    wanted = [
        run
        for run in config.method_runs()
        if run.task.seed < options.seeds
        and any(fnmatchcase(run.method, pattern) for pattern in patterns)
    ]
    return wanted if options.quick else [tuned(run) for run in wanted]


def in_markdown(comparisons: Mapping[str, Sequence[Line]]) -> str:
    """Return the table of docs/mixtures.md: a line per method, a column per task.

    Mean errors, with their deviation where there are several seeds; parameters in
    training and seconds are medians over tasks and seeds. Mixtures that were only
    discretized are left out.
    """
    by_method: dict[str, dict[str, Line]] = {}
    for data, lines in comparisons.items():
        for line in lines:
            by_method.setdefault(line.method, {})[data] = line
    tasks = list(comparisons)
    rows = [["", *tasks, "parameters", "seconds"], ["---"] * (len(tasks) + 3)]
    for method, own in by_method.items():
        if method.endswith(", discretized"):
            continue
        parameters = [
            n for line in own.values() for n in line.training_parameters.values()
        ]
        seconds = statistics.median(line.seconds for line in own.values())
        cells = [_error(own.get(data)) for data in tasks]
        count = f"{statistics.median_high(parameters):,}"
        rows.append([method, *cells, count, f"{seconds:.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _error(line: Line | None) -> str:
    if line is None:
        return ""
    errors = list(line.errors.values())
    spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
    return f"{statistics.mean(errors):.2f}{spread}"


def over_hand(lines: Sequence[Line]) -> dict[str, dict[str, dict[str, float]]]:
    """Return paired differences of errors to groups by hand, with 95 % intervals."""
    errors = {line.method: line.errors for line in lines}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for reference in BY_HAND:
        for method, own in errors.items():
            seeds = sorted(own.keys() & errors.get(reference, {}).keys())
            if method != reference and len(seeds) > 1:
                pairs = [own[seed] - errors[reference][seed] for seed in seeds]
                to = found.setdefault(f"to {reference}", {})
                to[method] = interval(np.array(pairs))
    return found


def main() -> None:
    """Compare, print, and write."""
    options = arguments(__doc__, seeds=5, only="*:*")
    console = Console(width=120, highlight=False)
    tasks = TASKS[-1:] if options.quick else TASKS
    tables = {data: open_table(data, quick=options.quick) for data in tasks}
    wanted = {data: chosen(config, options) for data, (config, _) in tables.items()}
    wanted = {data: runs for data, runs in wanted.items() if runs}
    seeds = sorted({run.task.seed for runs in wanted.values() for run in runs})
    for seed, data in itertools.product(seeds, wanted):
        folder = tables[data][1]
        collect([r for r in wanted[data] if r.task.seed == seed], folder, console)
        if not options.quick:
            keep(folder, data)
    rows: dict[str, float] = {}
    lines: dict[str, Sequence[Line]] = {}
    for data, runs in wanted.items():
        config, folder = tables[data]
        found = collect(runs, folder, console)
        comparison = summarize(found, config.reference_name)
        print_table(console, data, comparison)
        lines[data] = comparison.lines
        for row in found:
            key = f"{data}, {row['method']}, {row['reading']}, seed {row['seed']}"
            rows[f"{key}: test error (%)"] = 100 * row["test_error"]
    print(in_markdown(lines))
    summary = {data: list(map(dataclasses.asdict, own)) for data, own in lines.items()}
    differences = {data: over_hand(own) for data, own in lines.items()}
    finish(options, rows, {**summary, "differences": differences})


if __name__ == "__main__":
    main()
