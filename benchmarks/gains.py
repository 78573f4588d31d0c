"""Does the predicted gain of a relaxation say what its child gains?

    python -m benchmarks.gains --train FILE.npz     # on an accelerator, some minutes
    python -m benchmarks.gains --read FILE.npz [--json FILE]

For every variant of the embedded digits and three seeds, D4 networks are trained for
250 steps as probes. Each child relaxes one layer to one subgroup, keeps everything
else, and is trained for 500 steps more, its rate annealed; so is a copy that relaxes
nothing. Measured is how much lower than the copy's a child's loss on the 2,000
validation images is. Predicted is the gain of `eq.symmetry_test` from 4,000 training
images. Reported is Spearman's rank correlation over the 45 children of a network, of
gain and of gain per added parameter with what they measured per added parameter; and,
over the nine subgroups with all layers summed, how often the best is among those that
the gain puts first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from scipy import stats

import eqjax as eq
from benchmarks.probes import (
    BATCH,
    D4,
    LAYERS,
    flat,
    network,
    population,
    probe_network,
    trained,
)
from benchmarks.report import environment
from eqjax.training.batches import batches
from eqjax_experiments.data import digits

PROBE, CHILD, SEEDS, IMAGES = 250, 500, 3, 4000
PROBED = eq.Architecture.uniform(D4, LAYERS)
SMALLER = D4.subgroups[1:]
STEPS = list(itertools.product(range(LAYERS), SMALLER))


def children(task: str, seed: int) -> dict[str, np.ndarray]:
    """Train a probe and its children; return its variables and their losses."""
    dataset = digits.load(task)
    models = [probe_network()] + [network(PROBED.replace(i, H)) for i, H in STEPS]
    ((_, (probe,)),) = trained(population(PROBE, 1), models[:1], dataset, seed, PROBE)
    programs = population(CHILD, len(models))
    fresh = programs.optimizer.init
    losses: list[float] = []
    for part in programs.split(len(models)):
        own = models[part]
        start = probe._replace(opt_state=jax.device_get(fresh(probe.params)))
        stack = programs.load([start] * len(own), [models[0]] * len(own))
        stack = programs.relax(stack, own)
        rng = np.random.default_rng([seed, PROBE])
        stack, _ = programs.train(stack, batches(dataset.train, BATCH, CHILD, rng))
        measured = programs.evaluate(stack, *dataset.validation)
        losses += [float(np.asarray(measured.loss)[i]) for i in range(len(own))]
    names = {f"{task}/{seed}/probe/{PROBE}/{n}": a for n, a in flat(probe).items()}
    return {**names, f"{task}/{seed}/losses": np.array(losses)}


def train_all(path: Path, seeds: int) -> None:
    """Train everything that the file does not have."""
    arrays: dict[str, Any] = {}
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    for seed, task in itertools.product(range(seeds), digits.VARIANTS):
        if f"{task}/{seed}/losses" not in arrays:
            arrays |= children(task, seed)
            np.savez_compressed(path, **arrays)
            print(f"{task}, seed {seed}: done", flush=True)


def compare(file: Any, task: str, seed: int) -> dict[str, float]:
    """Return how predictions and measurements of a network agree."""
    start = f"{task}/{seed}/probe/{PROBE}/"
    own = {
        tuple(n[len(start) :].split("/")): file[n]
        for n in file.files
        if n.startswith(start)
    }
    model, dataset = probe_network(), digits.load(task)
    x, y = (a[:IMAGES] for a in dataset.train)
    report = eq.symmetry_test(
        unflatten_dict(own), model=model, x=x, y=y, key=jax.random.key(seed)
    )
    copy, *others = file[f"{task}/{seed}/losses"]
    measured = np.array([copy - loss for loss in others])
    rows = [report.layers[model.layer_names[i]][H.name] for i, H in STEPS]
    gains = np.array([row.gain for row in rows])
    added = np.array([row.added_parameters for row in rows])
    by_group = measured.reshape(LAYERS, -1).mean(0)
    predicted = np.array([report.network[H.name].gain for H in SMALLER])
    return {
        "gain": float(stats.spearmanr(gains, measured).statistic),
        "gain per parameter": float(
            stats.spearmanr(gains / added, measured / added).statistic
        ),
        "parameters alone": float(stats.spearmanr(added, measured).statistic),
        "groups, layers summed": float(stats.spearmanr(predicted, by_group).statistic),
        "positive and measured positive": float(np.mean((gains > 0) == (measured > 0))),
        "nats measured, mean of the ten of largest gain": float(
            measured[np.argsort(-gains)[:10]].mean()
        ),
        "nats measured, mean of all": float(measured.mean()),
    }


def main() -> None:
    """Train, or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    if options.train is not None:
        train_all(options.train, options.seeds)
        return
    if options.read is None:
        parser.error("give --train FILE or --read FILE")
    rows: dict[str, dict[str, float]] = {}
    with np.load(options.read, allow_pickle=False) as file:
        for task, seed in itertools.product(digits.VARIANTS, range(options.seeds)):
            if f"{task}/{seed}/losses" in file.files:
                rows[f"{task}, seed {seed}"] = compare(file, task, seed)
                print(f"{task}, seed {seed}: {rows[f'{task}, seed {seed}']}")
    kinds = next(iter(rows.values()))
    summary = {
        kind: round(statistics.mean(row[kind] for row in rows.values()), 4)
        for kind in kinds
    }
    if options.json:
        result = {"environment": environment(), "rows": rows, "summary": summary}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
