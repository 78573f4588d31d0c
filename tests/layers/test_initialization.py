"""Every layer starts with the same output variance, whatever its group.

Kernels are drawn with the fan-in of the full kernel, so that white noise of variance
one leaves a layer with variance one where every tap meets a point.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from tests.catalogue import (
    CONSTRAINT_CASES,
    D4,
    FLIP,
    LINE,
    PLANE,
    program,
    run,
    volume,
)

ZEROS = {"bias_init": nn.initializers.zeros_init()}
CONVOLUTIONS = {
    f"plane, {name}": case for name, case in PLANE.items() if "norm" not in name
}
CONVOLUTIONS |= {
    f"line, {name}": case for name, case in LINE.items() if "norm" not in name
}
CONVOLUTIONS |= {
    f"volume, {name}": case
    for name, case in volume(eq.octahedral()).items()
    if "norm" not in name
}
# Every tap meets a point of the input, and there is no mean over points.
WHOLE = ("circular", "1x1", "VALID", "2x2x2", "2x2 strided")
# A sample variance of n independent numbers deviates by sqrt(2 / n). Tied kernels of
# the largest group have a few hundred entries per output channel here; four times that.
CLOSE = 0.25


def wide(case):
    """The case with many real channels, and no bias."""
    channels = 192 // case.ambient.order
    return dataclasses.replace(
        case,
        channels=channels,
        make=lambda H: case.make(H).clone(features=channels, **ZEROS),
    )


def start(layer, x):
    return jax.jit(layer.init)(jax.random.key(0), x)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_output_variance_is_the_same_for_every_group(name):
    case = wide(CONVOLUTIONS[name])
    x = jax.random.normal(jax.random.key(1), case.input(8).shape, jnp.float64)
    groups = [case.ambient, case.ambient.covers[0], case.ambient.smallest]
    variances = []
    for H in groups:
        variables = start(case.make(H), x)
        variances.append(np.mean(np.square(run(case, H, variables, x))))
    program(case).clear_cache()
    np.testing.assert_allclose(variances, np.mean(variances), rtol=CLOSE)
    if any(word in name for word in WHOLE) and "transposed" not in name:
        np.testing.assert_allclose(variances, 1, rtol=CLOSE)


@pytest.mark.parametrize("word", CONSTRAINT_CASES)
def test_constraints_start_with_the_variance_that_they_say(word):
    constraint = CONSTRAINT_CASES[word]
    layer = eq.GroupConv(
        32, 3, padding="CIRCULAR", use_bias=False, group=D4, constraint=constraint
    )
    x = jax.random.normal(jax.random.key(1), (16, 4, 4, 8, 32))
    y = jax.jit(layer.apply)(start(layer, x), x)
    scales = [constraint.initial_scale(s, D4) for s in constraint.parts(D4)]
    expected = sum(scale**2 for scale in scales)
    if word == "mixed":  # equal weights: each candidate adds the same
        expected = 1 / len(scales)
    scaled = ("relaxed", "outputs", "nonstationary", "sharing")
    if word.startswith(scaled):  # up, for the coefficients
        expected = 1.0
    if word.startswith("soft"):  # what the projection leaves of a free array
        kept = 1 - constraint.softness
        expected = 1 / 8 + kept**2 * 7 / 8
    np.testing.assert_allclose(np.var(y), expected, rtol=CLOSE)


@pytest.mark.parametrize(
    "make",
    [
        lambda H: eq.BatchNorm(use_running_average=False, group=H),
        lambda H: eq.ElementBatchNorm(use_running_average=False, group=H),
        lambda H: eq.LayerNorm(group=H),
        lambda H: eq.RMSNorm(group=H),
        lambda H: eq.GroupNorm(num_groups=4, group=H),
    ],
    ids=["batch", "element", "layer", "RMS", "group"],
)
@pytest.mark.parametrize("G", [FLIP, D4], ids=str)
def test_norms_start_with_variance_one(make, G):
    shape = (16, *(5,) * G.dimension, G.order, 8)
    x = 3 * jax.random.normal(jax.random.key(0), shape)
    for H in (G, G.smallest):
        y, _ = jax.jit(make(H).init_with_output)(jax.random.key(0), x)
        np.testing.assert_allclose(np.var(y), 1, rtol=0.02)
