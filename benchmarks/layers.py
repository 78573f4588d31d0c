"""One group convolution against a plain one of the same real width, and its two forms.

    python -m benchmarks.layers [--quick] [--json FILE]

Forward and backward of one layer, 5x5, batch 64, regular to regular over D4, for
several groups and shapes: tied over plain, both through eqjax's convolution, then the
form that eqjax chooses over `jax.lax` and its autodiff.
"""

from __future__ import annotations

import functools
import statistics

import jax
import jax.numpy as jnp

import eqjax as eq
from benchmarks.plain import PlainConv
from benchmarks.report import arguments, finish, seconds_in_turns
from eqjax.convolution import prefer

D4 = eq.dihedral(4)
SHAPES = [(28, 4), (28, 16), (14, 16), (14, 32), (7, 8)]  # points, channels per element
GROUPS = ["D4", "C4", "D1", "C1"]


def forward_and_backward(layer, x, form: str):
    """Return a program for the layer's gradients with respect to weights and input."""
    variables = layer.init(jax.random.key(0), x)

    def loss(variables, x):
        return jnp.sum(layer.apply(variables, x) ** 2)

    with prefer(form):
        run = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(variables, x).compile()
    return functools.partial(run, variables, x)


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    repeats = 3 if options.quick else 7
    shapes = SHAPES[:1] + SHAPES[-1:] if options.quick else SHAPES
    groups = GROUPS[:2] if options.quick else GROUPS
    rows: dict[str, float] = {}
    over_dense, over_lax = {}, {}
    for points, channels in shapes:
        x = jax.random.normal(jax.random.key(1), (64, points, points, 8, channels))
        real = x.reshape(*x.shape[:-2], 8 * channels)
        plain = PlainConv(8 * channels, 5)
        programs = {
            "plain": forward_and_backward(plain, real, "auto"),
            "plain, lax": forward_and_backward(plain, real, "direct"),
        }
        for name in groups:
            layer = eq.GroupConv(channels, 5, group=D4.subgroup(name), use_bias=False)
            programs[name] = forward_and_backward(layer, x, "auto")
        seconds = seconds_in_turns(programs, repeats)
        shape = f"{points}x{points}, {channels} channels"
        for name, taken in seconds.items():
            rows[f"{shape}: {name} (ms)"] = 1e3 * taken
        for name in groups:
            over_dense[f"{name}, {shape}"] = seconds[name] / seconds["plain"]
        over_lax[shape] = seconds["plain"] / seconds["plain, lax"]
    summary = {
        "equivariant_over_dense": over_dense,
        "equivariant_over_dense_median": statistics.median(over_dense.values()),
        "ours_over_lax_autodiff": over_lax,
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
