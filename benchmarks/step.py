"""A training step of the 8-layer D4 network: against lax's convolutions, against none.

    python -m benchmarks.step [--quick] [--json FILE]

28x28 images, batch 64, 5x5 kernels, Adam; (4, 8) and (16, 32) channels per fiber
element, with --quick the former alone. `ours_over_lax_autodiff`: the same network with
`jax.lax` convolutions and their autodiff. `equivariant_over_dense`: against a plain
network of the same real width through the same convolution.
"""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import numpy as np
import optax

import eqjax as eq
from benchmarks.plain import PlainCNN
from benchmarks.report import arguments, finish, seconds_in_turns
from eqjax import training
from eqjax.ops.convolution import prefer

BATCH = 64


def network(channels: int) -> eq.EquivariantCNN:
    """Return the 8-layer D4 network with so many channels in its first half."""
    features = (channels,) * 4 + (2 * channels,) * 4
    architecture = eq.Architecture.uniform(eq.dihedral(4), len(features) + 1)
    return eq.exact(architecture, features=features)


def training_step(model: nn.Module, form: str):
    """Return a compiled step of a model, with convolutions of this form."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, 28, 28, 1)).astype(np.float32)
    y = rng.integers(10, size=BATCH)
    optimizer = optax.adam(1e-3)
    state = training.init_state(jax.random.key(0), model, optimizer, x)
    step = functools.partial(training.train_step, model=model, optimizer=optimizer)
    with prefer(form):
        run = jax.jit(step).lower(state, x, y).compile()
    return functools.partial(run, state, x, y)


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    rows: dict[str, float] = {}
    over_lax, over_dense = {}, {}
    for channels in (4,) if options.quick else (4, 16):
        ours = network(channels)
        plain = PlainCNN(tuple(8 * n for n in ours.features))
        programs = {
            "ours": training_step(ours, "auto"),
            "ours, lax": training_step(ours, "direct"),
            "plain": training_step(plain, "auto"),
            "plain, lax": training_step(plain, "direct"),
        }
        seconds = seconds_in_turns(programs, 5 if options.quick else 9)
        for name, taken in seconds.items():
            rows[f"{channels} channels: {name} (ms)"] = 1e3 * taken
        over_lax[f"{channels} channels"] = seconds["ours"] / seconds["ours, lax"]
        over_dense[f"{channels} channels"] = seconds["ours"] / seconds["plain"]
    summary = {
        "ours_over_lax_autodiff": over_lax[f"{channels} channels"],
        "equivariant_over_dense": over_dense[f"{channels} channels"],
        "ours_over_lax_autodiff_by_width": over_lax,
        "equivariant_over_dense_by_width": over_dense,
        "channels": channels,
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
