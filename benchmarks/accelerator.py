"""The paper's networks with exact symmetry on RotMNIST, at full length, on one GPU.

    python -m benchmarks.accelerator [--quick] [--json FILE]

Runs, or continues, `exact/rotmnist/C4`, `D4` and `C1` of `experiments.reproduce`, one
seed each: 100 passes with Adam as reported (with --quick two passes of C4), from the
full MNIST that `make mnist` fetches. On two CPU cores one of them takes many hours.
Rows are written beside the JSON file as `exact-rotmnist.jsonl`.
"""

from __future__ import annotations

import dataclasses

from rich.console import Console

from benchmarks.report import arguments, finish
from experiments.folders import files, runs
from experiments.folders.collect import ROWS, collect
from experiments.tasks.presets import presets

METHODS = ("C4", "D4", "C1")


def main() -> None:
    """Train, and write errors and seconds."""
    options = arguments(__doc__)
    methods = METHODS[:1] if options.quick else METHODS
    wanted = [presets()[f"exact/rotmnist/{name}"].method_run(0) for name in methods]
    if options.quick:
        short = [dataclasses.replace(each.task, epochs=2.0) for each in wanted]
        wanted = [
            dataclasses.replace(each, task=task)
            for each, task in zip(wanted, short, strict=True)
        ]
    folder = runs.named_folder("exact-rotmnist" + "-quick" * options.quick)
    folder.mkdir(parents=True, exist_ok=True)
    rows = collect(wanted, folder, Console(width=120, highlight=False))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        kept = options.json.with_name("exact-rotmnist.jsonl")
        files.write_atomically(kept, (folder / ROWS).read_bytes())
    table: dict[str, float] = {}
    for row in rows:
        table[f"{row['method']}: test error (%)"] = 100 * row["test_error"]
        table[f"{row['method']}: seconds"] = row["seconds"]
        table[f"{row['method']}: ms per step"] = 1e3 * row["seconds"] / row["steps"]
    summary = {
        row["method"]: {
            "test_error_percent": 100 * row["test_error"],
            "seconds": row["seconds"],
            "steps": row["steps"],
        }
        for row in rows
    }
    finish(options, table, summary)


if __name__ == "__main__":
    main()
