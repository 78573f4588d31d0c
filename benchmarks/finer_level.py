"""The symmetry test for finer angles: is its level what it says, and what can it see?

    python -m benchmarks.finer_level [--quick] [--json FILE]

Two shapes made of bumps, functions of the plane, turned at random by multiples of 45
degrees ("C8"), by right angles ("C4"), or by any angle ("SO2"), and then sampled on
15x15 pixels. One network over C8, trained for 60 steps on samples of its own, tests
fresh data sets of 400 samples at the level 0.05: `rejected`, by the group of the data,
is the share that rejects each group. What the data have may be rejected in 5 %.
"""

from __future__ import annotations

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import eqjax as eq
from benchmarks.report import arguments, finish
from eqjax import training

C8 = eq.cyclic(8)
PIXELS = 15
SHAPES = (
    np.array([[0, 0], [2.6, 0], [-2.6, 0], [2.6, 2.2]]),
    np.array([[0, 0], [2.6, 0], [-2.6, 0], [-2.6, 2.2], [0, 2.0]]),
)
STEPS = {"C8": math.pi / 4, "C4": math.pi / 2, "SO2": 0.0}


def samples(
    count: int, group: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return images (count, 15, 15, 1) of two classes, and labels."""
    axis = np.arange(PIXELS) - (PIXELS - 1) / 2
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    labels = rng.integers(2, size=count)
    images = rng.normal(0, 0.02, size=(count, PIXELS, PIXELS, 1))
    for image, label in zip(images, labels, strict=True):
        shape = SHAPES[label]
        places = shape + rng.normal(0, 0.45, size=shape.shape)
        angle = rng.uniform(0, 2 * math.pi)
        if step := STEPS[group]:
            angle = step * rng.integers(round(2 * math.pi / step))
        cos, sin = math.cos(angle), math.sin(angle)
        places = places @ np.array([[cos, -sin], [sin, cos]]).T
        away = ((grid - places[:, None, None]) ** 2).sum(-1)
        image[..., 0] += np.exp(-0.5 * away / 1.1**2).sum(0)
    return images.astype(np.float32), labels


def trained(group: str) -> tuple[eq.EquivariantCNN, dict]:
    """Return a network over C8 and its variables."""
    model = eq.exact(
        eq.Architecture.uniform(C8, 3),
        features=(2, 4),
        pool_after=(1,),
        pooling="blur",
        classes=2,
        head_features=8,
    )
    x, y = samples(2000, group, np.random.default_rng(100))
    optimizer = optax.adam(5e-3)
    state = training.init_state(jax.random.key(0), model, optimizer, x[:32])
    rng = np.random.default_rng(0)
    for _ in range(60):
        chosen = rng.integers(len(x), size=32)
        state, _ = training.train_step(
            state, jnp.asarray(x[chosen]), y[chosen], model=model, optimizer=optimizer
        )
    return model, state.variables


def main() -> None:
    """Simulate, and print."""
    options = arguments(__doc__)
    count, draws = (3, 39) if options.quick else (100, 199)
    rows: dict[str, float] = {}
    rejected: dict[str, dict[str, float]] = {}
    for group in STEPS:
        model, variables = trained(group)
        found: list[dict[str, bool]] = []
        begin = time.perf_counter()
        for number in range(count if group != "C4" or options.quick else count // 4):
            x, y = samples(400, group, np.random.default_rng(1000 + number))
            report = eq.symmetry_test(
                variables,
                model=model,
                x=x,
                y=y,
                key=jax.random.key(number),
                draws=draws,
            )
            found.append({n: row.rejected for n, row in report.network.items()})
        taken = (time.perf_counter() - begin) / len(found)
        rows[f"data of {group}: data sets"] = len(found)
        rows[f"data of {group}: seconds a test"] = taken
        rejected[group] = {
            name: round(float(np.mean([each[name] for each in found])), 3)
            for name in ("C8", "C4", "C2")
        }
        for name, share in rejected[group].items():
            rows[f"data of {group}: {name} rejected (%)"] = 100 * share
    finish(options, rows, {"rejected": rejected, "level": 0.05})


if __name__ == "__main__":
    main()
