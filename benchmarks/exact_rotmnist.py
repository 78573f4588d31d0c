"""The paper's networks with exact symmetry on RotMNIST, at full length, on one GPU.

    python -m benchmarks.exact_rotmnist [--quick] [--json FILE]

Runs, or continues, `exact/rotmnist/C4`, `D4` and `C1` of `experiments.reproduce` with
two seeds each: 100 passes with Adam as reported (with --quick two passes of C4), from
the full MNIST that `make mnist` fetches. On two CPU cores one of them takes hours.
Rows are written beside the JSON file as `exact-rotmnist.jsonl`.
"""

from __future__ import annotations

import dataclasses
import statistics

from rich.console import Console

from benchmarks.report import arguments, finish
from eqjax_experiments.runs import files, run_folder
from eqjax_experiments.runs.collect import collect
from eqjax_experiments.runs.files import ROWS
from eqjax_experiments.tasks.presets import presets

METHODS = ("C4", "D4", "C1")
SEEDS = 2


def main() -> None:
    """Train, and write errors and seconds."""
    options = arguments(__doc__)
    methods, seeds = (METHODS[:1], 1) if options.quick else (METHODS, SEEDS)
    wanted = [
        presets()[f"exact/rotmnist/{name}"].method_run(seed)
        for seed in range(seeds)
        for name in methods
    ]
    if options.quick:
        short = [dataclasses.replace(each.task, epochs=2.0) for each in wanted]
        wanted = [
            dataclasses.replace(each, task=task)
            for each, task in zip(wanted, short, strict=True)
        ]
    folder = run_folder.named_folder("exact-rotmnist" + "-quick" * options.quick)
    folder.mkdir(parents=True, exist_ok=True)
    rows = collect(wanted, folder, Console(width=120, highlight=False))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        kept = options.json.with_name("exact-rotmnist.jsonl")
        files.write_atomically(kept, (folder / ROWS).read_bytes())
    table: dict[str, float] = {}
    for row in rows:
        name = f"{row['method']}, seed {row['seed']}"
        table[f"{name}: test error (%)"] = 100 * row["test_error"]
        table[f"{name}: seconds"] = row["seconds"]
    summary = {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        seconds = statistics.median(row["seconds"] for row in own)
        summary[method] = {
            "test_error_percent": [100 * row["test_error"] for row in own],
            "seconds_median": seconds,
            "ms_per_step_median": 1e3 * seconds / own[0]["steps"],
        }
    finish(options, table, summary)


if __name__ == "__main__":
    main()
