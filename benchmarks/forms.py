"""Convolutions of every kind: in the form that eqjax chooses over `jax.lax`.

Measured by `benchmarks.layers`: forward and backward, batch 32, by kind, points, real
channels and taps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.report import seconds_in_turns
from eqjax.ops.convolution import convolve, convolve_transpose, prefer

BATCH = 32
PLANE = [(28, 32, 3), (28, 64, 3), (14, 128, 3), (28, 128, 3), (56, 64, 3), (28, 64, 5)]
VOLUME = [(12, 32, 3), (12, 48, 3), (8, 96, 3)]
SINGLE = [(28, 64, 1), (14, 256, 1)]
KINDS = {
    "plain": PLANE,
    "strided": PLANE,
    "dilated": PLANE,
    "transposed": PLANE,
    "channelwise": PLANE,
    "grouped": [(28, 64, 3)],  # of 8 channels, as a group convolution over D4 has
    "single": SINGLE,
    "strided single": SINGLE,
    "volume": VOLUME,
    "strided volume": VOLUME,
}


def convolution(
    kind: str, points: int, channels: int, taps: int
) -> tuple[Callable[..., jax.Array], jax.Array, jax.Array]:
    """Return a convolution of a kind, an input and a kernel for it."""
    d = 3 if "volume" in kind else 2
    spacing = 2 if kind == "dilated" else 1
    settings: dict[str, Any] = {
        "strides": (2 if "strided" in kind or kind == "transposed" else 1,) * d,
        "dilation": (spacing,) * d,
        "padding": ((spacing * (taps // 2),) * 2,) * d,
    }
    function: Callable[..., jax.Array] = convolve
    c_in = {"channelwise": 1, "grouped": 8}.get(kind, channels)
    if c_in != channels:
        settings["feature_group_count"] = channels // c_in
    if kind == "transposed":
        function, points = convolve_transpose, points // 2
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (BATCH, *(points,) * d, channels))
    kernel = jax.random.normal(keys[1], (*(taps,) * d, c_in, channels))
    return functools.partial(function, **settings), x, kernel


def compiled(fn, form: str, *arguments):
    """Return a program without arguments, its convolutions in one form."""
    with prefer(form):  # a new function: one that was traced before keeps its form
        run = jax.jit(lambda *a: fn(*a)).lower(*arguments).compile()
    return functools.partial(run, *arguments)


def over_lax(
    rows: dict[str, float], repeats: int, *, quick: bool
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, bool]]]:
    """Return ours over `lax` by kind and case, and whether ours is another form."""
    ratios: dict[str, dict[str, float]] = {}
    others: dict[str, dict[str, bool]] = {}
    for kind, shapes in KINDS.items():
        ratios[kind], others[kind] = {}, {}
        for points, channels, taps in shapes[:1] if quick else shapes:
            function, x, kernel = convolution(kind, points, channels, taps)

            def loss(x, kernel, function=function):
                return jnp.sum(function(x, kernel) ** 2)

            derivatives = jax.grad(loss, argnums=(0, 1))
            forms = {"ours": "auto", "lax": "direct"}
            seconds = seconds_in_turns(
                {n: compiled(derivatives, f, x, kernel) for n, f in forms.items()},
                repeats,
            )
            case = f"{points} points, {channels} channels, {taps} taps"
            for name, taken in seconds.items():
                rows[f"{kind}, {case}: {name} (ms)"] = 1e3 * taken
            ratios[kind][case] = seconds["ours"] / seconds["lax"]
            text = jax.jit(function).lower(x, kernel).as_text()
            others[kind][case] = "stablehlo.convolution" not in text
    return ratios, others
