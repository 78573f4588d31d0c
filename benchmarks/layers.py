"""One group convolution against a plain one of the same real width, and its two forms.

    python -m benchmarks.layers [--quick] [--json FILE]

Forward and backward of one layer, 5x5, batch 64, regular to regular over D4, for
several groups and shapes: tied over plain, both through eqjax's convolution, then the
form that eqjax chooses over `jax.lax` and its autodiff; the same for convolutions of
other kinds (`benchmarks.forms`), where `another_form` says whether it differs from that
of `lax`. Then, for a plain convolution in both forms, `vmap` over 4 members against 4
calls, and a pass inside `lax.scan` against one outside; and eqjax's own form without
chunks.
"""

from __future__ import annotations

import functools
import statistics

import jax
import jax.numpy as jnp
from jax import lax

import eqjax as eq
from benchmarks import forms
from benchmarks.forms import compiled
from benchmarks.plain import PlainConv
from benchmarks.report import arguments, finish, seconds_in_turns
from eqjax.ops import winograd

D4 = eq.dihedral(4)
SHAPES = [(28, 4), (28, 16), (14, 16), (14, 32), (7, 8)]  # points, channels per element
GROUPS = ["D4", "C4", "D1", "C1"]


def gradients(layer, variables, x):
    """Return the layer's gradients with respect to weights and input."""

    def loss(variables, x):
        return jnp.sum(layer.apply(variables, x) ** 2)

    return jax.grad(loss, argnums=(0, 1))(variables, x)


def forward_and_backward(layer, x, form: str):
    """Return a program for the layer's gradients."""
    variables = layer.init(jax.random.key(0), x)
    return compiled(functools.partial(gradients, layer), form, variables, x)


def traps(channels: int, repeats: int) -> dict[str, float]:
    """Return how much slower a plain convolution gets by vmap and in a loop."""
    layer, members = PlainConv(8 * channels, 5), 4
    xs = jax.random.normal(jax.random.key(1), (members, 64, 28, 28, 8 * channels))
    keys = jax.random.split(jax.random.key(0), members)
    many = jax.vmap(layer.init)(keys, xs)
    one = jax.tree.map(lambda v: v[0], many)
    own = functools.partial(gradients, layer)

    def scanned(variables, x):
        twice = jnp.stack([x, x])  # XLA takes a loop of one pass apart
        return lax.scan(lambda c, x: (c, own(variables, x)), None, twice)[1]

    programs = {}
    for name, form in (("ours", "winograd"), ("lax", "direct")):
        programs[f"{name}: alone"] = compiled(own, form, one, xs[0])
        programs[f"{name}: vmap"] = compiled(jax.vmap(own), form, many, xs)
        programs[f"{name}: in a loop"] = compiled(scanned, form, one, xs[0])
    chunk = winograd._CHUNK_BYTES
    winograd._CHUNK_BYTES = dict.fromkeys(chunk, 2**40)
    programs["ours: in one piece"] = compiled(own, "winograd", one, xs[0])
    winograd._CHUNK_BYTES = chunk
    seconds = seconds_in_turns(programs, repeats)
    result = {}
    for name in ("ours", "lax"):
        alone = seconds[f"{name}: alone"]
        result[f"{name}: vmap over calls"] = seconds[f"{name}: vmap"] / members / alone
        result[f"{name}: in a loop over outside"] = (
            seconds[f"{name}: in a loop"] / 2 / alone
        )
    result["ours: in one piece over chunks"] = (
        seconds["ours: in one piece"] / seconds["ours: alone"]
    )
    return result


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
    kinds, another = forms.over_lax(rows, repeats, quick=options.quick)
    slower = {"4 channels": traps(4, 1 if options.quick else 3)}
    summary = {
        "slower": slower,
        "equivariant_over_dense": over_dense,
        "equivariant_over_dense_median": statistics.median(over_dense.values()),
        "ours_over_lax_autodiff": over_lax,
        **{f"{kind.replace(' ', '_')}_over_lax": own for kind, own in kinds.items()},
        "another_form": another,
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
