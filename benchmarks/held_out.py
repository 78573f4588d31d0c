"""Does the test by held-out losses name the group that the data have?

    python -m benchmarks.held_out [--quick] [--json FILE] [--seeds N]

`eqjax test-symmetry` with its defaults (500 steps on half of the training images, level
1 %) on data of known group: digits upright (C1), flipped (D1:i), turned by right angles
(C4) and by any angle (C4 of D4); the 600 pictures of `own_images`, of which a
reflection exchanges two classes (C4); volumes over Oh, screws against their mirror
images (O) and pairs of cubes (Oh). On pictures and screws `--by gradients` is asked,
too. `named_right` is the share of runs that are decided and name the true group,
`named_wrong` of those that name another one, and `undecided` the rest.

The level: `rejected` is the share of data sets, 400 digits moved by random elements of
D4, of which any group is rejected at the level 5 %, each by a network of its own that
200 others of them have trained for 40 steps.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from scipy import stats

import eqjax as eq
from benchmarks import own_images
from benchmarks.report import arguments, finish
from eqjax import training
from eqjax_experiments.data import digits, synthetic
from eqjax_experiments.data.catalogue import ROOT_VARIABLE
from eqjax_experiments.tasks.symmetry import SymmetryTask, found_in

TRUE = {"upright": "C1", "flipped": "D1:i", "quarter": "C4", "rotated": "C4"}
VOLUMES = ("chirality", "isotropic")
BLIND = ("pictures", "chirality")  # where the gradients of a tied network see nothing
D4 = eq.dihedral(4)
LEVEL, SETS, IMAGES, STEPS = 0.05, 200, 400, 40
OPTIMIZER = optax.adam(0.01)


def settings(pictures: Path, *, quick: bool) -> Iterator[tuple[str, str, dict]]:
    """Yield the name, the true group and the settings of every question."""
    for data, group in TRUE.items():
        yield data, group, {"data": data}
    if quick:
        return
    for by in ("losses", "gradients"):
        for data in ("pictures", *VOLUMES):
            if by == "gradients" and data not in BLIND:
                continue
            name = data if by == "losses" else f"{data}, by gradients"
            if data == "pictures":
                yield name, own_images.TRUTH, {"data": str(pictures), "by": by}
            else:
                kind = synthetic.KINDS[data]
                yield (
                    name,
                    kind.group,
                    {"data": data, "ambient": kind.ambient, "by": by},
                )


def asked(folder: Path, seed: int, *, quick: bool, **own: Any) -> dict[str, Any]:
    """Return what the command answers."""
    length: dict[str, Any] = {"epochs": 0.2, "tested_images": 200} if quick else {}
    task = SymmetryTask(seed=seed, **length, **own)
    task.run(folder, Console(quiet=True))
    return found_in(folder)


def rejects(seed: int) -> bool:
    """Return whether any group is rejected of data that have all of D4."""
    upright = digits.load("upright", size=14).train
    rng = np.random.default_rng([seed, digits.MOVES])
    chosen = rng.permutation(len(upright.labels))[: IMAGES + IMAGES // 2]
    x, y = np.array(upright.images[chosen]), upright.labels[chosen]
    images = jnp.asarray(x)
    every = np.stack([eq.transform(images, u, group=D4) for u in D4.elements])
    x = every[rng.integers(D4.order, size=len(x)), np.arange(len(x))]
    model = eq.exact(
        eq.Architecture.uniform(D4.smallest, 3),
        features=(2, 2),
        kernel_size=3,
        pool_after=(1, 2),
        head_features=8,
    )
    state = training.init_state(jax.random.key(seed), model, OPTIMIZER, x[:32])
    seen = training.Split(x[IMAGES:], y[IMAGES:])
    drawn = training.batches(seen, 32, STEPS, np.random.default_rng([seed, 1]))
    state, _ = training.train(state, drawn, model=model, optimizer=OPTIMIZER)
    report = eq.held_out_test(
        state.variables,
        model=model,
        x=x[:IMAGES],
        y=y[:IMAGES],
        group=D4,
        key=jax.random.key(seed),
        level=LEVEL,
    )
    return any(row.rejected for row in report.network.values())


def main() -> None:
    """Ask, and measure the level."""
    options = arguments(__doc__, seeds=3)
    rows: dict[str, float] = {}
    named: dict[str, list[str]] = {}
    right: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ.setdefault(ROOT_VARIABLE, temporary)  # of what is cached
        pictures = Path(temporary) / "pictures"
        own_images.draw(pictures)
        for name, truth, own in settings(pictures, quick=options.quick):
            for seed in range(1 if options.quick else options.seeds):
                begin = time.perf_counter()
                folder = Path(temporary) / f"{name}-{seed}"
                found = asked(folder, seed, quick=options.quick, **own)
                said = found["named"] if found["decided"] else "undecided"
                named.setdefault(name, []).append(said)
                rows[f"{name}, seed {seed}: seconds"] = time.perf_counter() - begin
                print(f"{name}, true {truth}, seed {seed}: {said}", flush=True)
            count = len(named[name])
            right[name] = [
                named[name].count(truth) / count,
                named[name].count("undecided") / count,
            ]
    sets = 3 if options.quick else SETS
    rejected = sum(map(rejects, range(sets)))
    low, high = stats.binomtest(rejected, sets).proportion_ci()
    summary = {
        "named_right": {name: both[0] for name, both in right.items()},
        "undecided": {name: both[1] for name, both in right.items()},
        "named_wrong": {name: round(1 - sum(both), 4) for name, both in right.items()},
        "named": named,
        "rejected": rejected / sets,
        "rejected_interval": [round(float(low), 4), round(float(high), 4)],
        "data_sets": sets,
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
