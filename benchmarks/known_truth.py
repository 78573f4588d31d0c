"""Does EquiNAS_D find the symmetry that the digits have?

    python -m benchmarks.known_truth [--quick] [--json FILE]

Digits as they are have no symmetry but C1; upside down at random, D1 (reflected along
the rows); rotated by right angles, C4. For each, EquiNAS_D learns a mixture of C1, C2,
C4, D1, D2 and D4 in every layer, in the small setting and with five seeds. A candidate
is present where the data has all of its elements, else absent. The figure is the mean
weight of a present candidate minus that of an absent one, over the first half of the
convolutions, and in the last layer, the head; zero for equal weights.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.report import arguments, finish
from eqjax_experiments.engine.trial import fit, piece_lengths
from eqjax_experiments.tasks.differentiate import DifferentiationTask

SYMMETRY = {"upright": "C1", "flipped": "D1", "quarter": "C4"}


def final_weights(data: str, seed: int, epochs: float):
    """Return the weights at the end of a search, by layer and candidate."""
    task = DifferentiationTask(data=data, seed=seed, epochs=epochs)
    dataset = task.load()
    experiment = task.prepare(dataset)
    lengths = piece_lengths(experiment.steps, task.steps(1, dataset))
    *_, (_, record) = fit(
        experiment.trial, dataset, task.inputs(dataset), seed, lengths
    )
    return record["mixtures"][-1]["weights"]


def preference(weights, layers, present) -> float:
    """Return the mean weight of present candidates minus that of absent ones."""
    inside = [z for n in layers for name, z in weights[n].items() if name in present]
    outside = [
        z for n in layers for name, z in weights[n].items() if name not in present
    ]
    return statistics.mean(inside) - statistics.mean(outside)


def main() -> None:
    """Search, compare with the truth, and write."""
    options = arguments(__doc__)
    seeds, epochs = (1, 0.5) if options.quick else (5, 4.0)
    rows: dict[str, float] = {}
    summary: dict[str, Any] = {}
    task = DifferentiationTask()
    groups = task.candidates
    for data, name in SYMMETRY.items():
        truth = task.ambient_group.subgroup(name)
        present = {group.name for group in groups if group <= truth}
        early, last = [], []
        for seed in range(seeds):
            weights = final_weights(data, seed, epochs)
            convs = [layer for layer in weights if layer.startswith("conv")]
            early.append(preference(weights, convs[: len(convs) // 2], present))
            last.append(preference(weights, [list(weights)[-1]], present))
            for layer, own in weights.items():
                for candidate, z in own.items():
                    rows[f"{data}, seed {seed}: {layer}, {candidate}"] = z
        summary[data] = {
            "present": sorted(present),
            "early_mean": statistics.mean(early),
            "early_deviation": statistics.stdev(early) if early[1:] else 0.0,
            "early_seeds_that_prefer_present": sum(e > 0 for e in early),
            "last_mean": statistics.mean(last),
            "last_deviation": statistics.stdev(last) if last[1:] else 0.0,
            "last_seeds_that_prefer_present": sum(e > 0 for e in last),
        }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
