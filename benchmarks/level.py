"""Is the level of the symmetry test what it says? Hundreds of networks on true nulls.

    python -m benchmarks.level [--quick] [--json FILE]

Every repetition moves 14 x 14 upright digits by random elements of D4, so that each
group is a true one; trains a tiny network with D4 everywhere on 600 of them for 40
steps; and tests it with those 600 and with 600 others, 60 blocks and 99 draws each.
Reported are the mean of p over repetitions, the share of p <= 5 %, the p value of a
Kolmogorov-Smirnov test for uniformity (of p made continuous by a uniform number below
1 / 100), and the share of repetitions that reject any group at the level 5 %.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import optax
from scipy import stats

import eqjax as eq
from benchmarks.report import arguments, finish
from eqjax import training
from eqjax_experiments.data import digits

D4 = eq.dihedral(4)
IMAGES, STEPS, DRAWS, BLOCK, LEVEL = 600, 40, 99, 10, 0.05
GROUPS = ("D4", "C4", "D2:i", "D1:i", "D1:i+j")
OPTIMIZER = optax.adam(0.01)


@functools.cache
def network() -> eq.EquivariantCNN:
    """Return the tiny network."""
    return eq.exact(
        eq.Architecture.uniform(D4, 3),
        features=(2, 2),
        kernel_size=3,
        pool_after=(1, 2),
        head_features=8,
    )


@functools.partial(jax.jit, static_argnames="u")
def _moved(x, u: int):
    return eq.transform(x, u, group=D4)


def repetition(seed: int, steps: int) -> dict[str, eq.analysis.SymmetryTest]:
    """Train a network on moved digits; test it with these and with others."""
    upright = digits.load("upright", size=14).train
    rng = np.random.default_rng([seed, digits.MOVES])
    chosen = rng.permutation(len(upright.labels))[: 2 * IMAGES]
    x, y = np.array(upright.images[chosen]), upright.labels[chosen]
    elements = rng.integers(D4.order, size=len(x))
    every = np.stack([np.asarray(_moved(x, u)) for u in D4.elements])
    x = every[elements, np.arange(len(x))]
    split = training.Split(x[:IMAGES], y[:IMAGES])
    model = network()
    state = training.init_state(jax.random.key(seed), model, OPTIMIZER, x[:32])
    drawn = training.batches(split, 32, steps, np.random.default_rng([seed, 1]))
    state, _ = training.train(state, drawn, model=model, optimizer=OPTIMIZER)
    key = jax.random.key(seed)
    settings: dict[str, Any] = {"model": model, "block_size": BLOCK, "draws": DRAWS}
    return {
        name: eq.symmetry_test(
            state.variables, x=x[part], y=y[part], key=key, level=LEVEL, **settings
        )
        for name, part in (
            ("training images", slice(IMAGES)),
            ("held-out images", slice(IMAGES, None)),
        )
    }


def main() -> None:
    """Repeat, and compare with uniform p values."""
    options = arguments(__doc__)
    repetitions, steps = (3, 2) if options.quick else (200, STEPS)
    p: dict[str, list[float]] = {}
    any_rejected: dict[str, list[bool]] = {}
    for seed in range(repetitions):
        for kind, report in repetition(seed, steps).items():
            for name in GROUPS:
                p.setdefault(f"{kind}, {name}", []).append(report.network[name].p)
            rejected = any(row.rejected for row in report.network.values())
            any_rejected.setdefault(kind, []).append(rejected)
        if seed % 25 == 24:
            print(f"{seed + 1} repetitions", flush=True)
    rng = np.random.default_rng(0)
    rows: dict[str, float] = {}
    for name, values in p.items():
        smooth = np.array(values) - rng.uniform(0, 1 / (1 + DRAWS), len(values))
        rows[f"{name}: mean p"] = float(np.mean(values))
        rows[f"{name}: share of p <= .05"] = float(np.mean(np.array(values) <= 0.05))
        rows[f"{name}: Kolmogorov-Smirnov p"] = float(
            stats.kstest(smooth, "uniform").pvalue
        )
    summary: dict[str, Any] = {"repetitions": repetitions}
    for kind, found in any_rejected.items():
        low, high = stats.binomtest(sum(found), len(found)).proportion_ci()
        summary[f"family-wise, {kind}"] = {
            "rate": float(np.mean(found)),
            "interval": [round(float(low), 4), round(float(high), 4)],
        }
        own = [v for name, v in rows.items() if kind in name and "Kolm" in name]
        summary[f"least Kolmogorov-Smirnov p of {len(own)}, {kind}"] = min(own)
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
