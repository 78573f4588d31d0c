"""Wrong shapes raise while tests run: the annotations of public arrays are checked."""

import jax.numpy as jnp
import jaxtyping
import pytest

import eqjax as eq
from eqjax import kernels, ops, training
from eqjax.kernels.tied import Tie

D4 = eq.dihedral(4)
TABLE = kernels.fiber_table(D4, eq.regular(D4))


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernels.convolution_layout(jnp.ones((3, 3))),
        lambda: kernels.expand(jnp.ones((2, 3), jnp.int32), Tie(TABLE)),
        lambda: ops.convolve(
            jnp.ones((2, 5, 5, 3)),
            jnp.ones(3),
            strides=(1, 1),
            padding=((1, 1), (1, 1)),
            dilation=(1, 1),
        ),
        lambda: training.cross_entropy(jnp.ones((4, 3)), jnp.zeros((5,), jnp.int32)),
        lambda: training.cross_entropy(jnp.ones(4), jnp.zeros((4,), jnp.int32)),
    ],
    ids=["kernels, axes", "kernels, dtype", "ops, axes", "training", "training, axes"],
)
def test_wrong_shapes_raise(call):
    with pytest.raises((jaxtyping.TypeCheckError, ValueError)):
        call()
