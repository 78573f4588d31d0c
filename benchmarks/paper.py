"""The paper's experiments in the small setting, and what is to be expected of them.

    python -m benchmarks.paper [--quick] [--json FILE]

Runs, or continues, these two (about two hours on two cores, from the full MNIST that
`make mnist` fetches), and writes their rows beside the JSON file as `small-*.jsonl`:

    python -m experiments.reproduce --name small-rotmnist --seeds 3 --only ...
    python -m experiments.reproduce --name small-augmented --seeds 2 --only ...

Expected of RotMNIST: D4 and C4 are far ahead of C1, and C1 that was relaxed from D4 is
clearly ahead of C1 from scratch. Of upright digits augmented by a known group in all
splits: the searches find that group, in the last layer, whose group the network is
invariant to. An evolution finds it if the best network's last layer has it; a mixture
prefers it if in the last layer the candidates that the data has weigh more, in the
mean, than those that it lacks. --quick: one seed of four experiments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from benchmarks.known_truth import preference
from benchmarks.report import arguments, finish
from eqjax.groups import standard_group
from eqjax_experiments.reports.statistics import by_experiment, summarize
from eqjax_experiments.reports.tables import print_table
from eqjax_experiments.runs import files, run_folder
from eqjax_experiments.runs.collect import collect
from eqjax_experiments.runs.files import ROWS
from eqjax_experiments.tasks.presets import presets

RIVALS = (
    "D4",
    "C4",
    "C1",
    "C1-from-D4",
    "C4-from-D4",
    "C1-from-trained-D4",
    "C4-from-trained-D4",
    "residual-pathway",
    "EquiNAS_D",
    "EquiNAS_E",
    "random-selection",
    "random-static",
    "random-mixture",
)
SEARCHES = ("EquiNAS_D", "EquiNAS_E")
AUGMENTED = ("mnist", "mnist-D1", "mnist-C4", "mnist-D4")


def run(name: str, chosen: Sequence[str], seeds: int, console: Console):
    """Return the rows of some presets, from a run of this name."""
    folder = run_folder.named_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    known = presets()
    wanted = [known[preset].method_run(s) for s in range(seeds) for preset in chosen]
    return collect(wanted, folder, console), folder / ROWS


def expectations(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return by how much C1 from scratch is worse than each that should be better."""
    lines = {line.method: line for line in summarize(rows, "C1").lines}
    return {
        method: {
            "C1_minus_it": -line.difference,
            "interval": line.interval and [-bound for bound in line.interval[::-1]],
        }
        for method, line in lines.items()
        if method in ("D4", "C4", "C1 from D4", "C1 from trained D4")
        and line.difference is not None
    }


def found(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the searches say of the symmetry of one data set."""
    # Rows of before the ambient group was a setting have D4.
    ambient = standard_group(rows[0]["config"].get("ambient", "D4"))
    truth = ambient.subgroup(rows[0]["config"]["data_group"])
    evolved = [
        row["groups"][-1]
        for row in rows
        if row["method"] == "EquiNAS_E" and row["reading"] == "best of front"
    ]
    mixed = [row["mixtures"][-1]["weights"] for row in rows if "mixtures" in row]
    candidates = {name for weights in mixed for name in weights["head"]}
    present = {name for name in candidates if ambient.subgroup(name) <= truth}
    return {
        "truth": truth.name,
        "evolved": evolved,
        "evolved_is_truth": sum(name == truth.name for name in evolved),
        "evolved_is_within_truth": sum(
            ambient.subgroup(name) <= truth for name in evolved
        ),
        "preference": [
            preference(weights, ["head"], present) if candidates > present else None
            for weights in mixed
        ],
    }


def main() -> None:
    """Run, compare with what is expected, and write."""
    options = arguments(__doc__)
    console = Console(width=160, highlight=False)
    plan: dict[str, tuple[int, Sequence[str], Sequence[str]]]  # seeds, data, methods
    if options.quick:
        plan = {
            "small-rotmnist-quick": (1, ("rotmnist",), ("C1", "D4")),
            "small-augmented-quick": (1, AUGMENTED[-1:], SEARCHES),
        }
    else:
        plan = {
            "small-rotmnist": (3, ("rotmnist",), RIVALS),
            "small-augmented": (2, AUGMENTED, SEARCHES),
        }
    every: list[dict[str, Any]] = []
    for name, (seeds, data, methods) in plan.items():
        chosen = [f"small/{each}/{method}" for each in data for method in methods]
        rows, file = run(name, chosen, seeds, console)
        every += rows
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            kept = options.json.with_name(f"{name}.jsonl")
            files.write_atomically(kept, file.read_bytes())
    errors: dict[str, float] = {}
    summary: dict[str, Any] = {}
    for experiment, rows in by_experiment(every).items():
        for row in rows:
            key = f"{experiment}, {row['method']}, {row['reading']}, seed {row['seed']}"
            errors[f"{key}: test error (%)"] = 100 * row["test_error"]
        comparison = summarize(rows)
        print_table(console, experiment, comparison)
        summary[experiment] = {
            "lines": [dataclasses.asdict(line) for line in comparison.lines],
            **(
                {"expectations": expectations(rows)}
                if experiment.endswith("rotmnist")
                else {"found": found(rows)}
            ),
        }
    finish(options, errors, summary)


if __name__ == "__main__":
    main()
