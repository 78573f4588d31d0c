"""The NNX networks of stages are the linen ones."""

import jax
import numpy as np
import pytest
from flax import nnx

import eqjax as eq
import eqjax.nnx as enx
from tests.models.test_zoo import images, initialized, model_of

D4 = eq.dihedral(4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "wide", "unet"])
def test_they_are_the_linen_networks(kind):
    linen = model_of(kind, "D4 D4 C4 C4")
    make = enx.UNet if kind == "unet" else enx.ResNet
    model = make(1, linen, rngs=nnx.Rngs(0))
    model.eval()
    x = images()
    variables = initialized(linen, x)
    own = enx.variables_of(model)
    assert jax.tree.map(np.shape, own) == jax.tree.map(np.shape, dict(variables))
    expected = linen.apply(variables, x)
    carried = enx.with_variables(model, variables)
    size = np.abs(expected).max()
    np.testing.assert_allclose(carried(x) / size, expected / size, atol=1e-5)
    name = "head" if kind == "unet" else "head/read"
    relaxed, _ = enx.morph(carried, groups={name: D4.subgroup("C2")})
    relaxed.eval()
    np.testing.assert_array_equal(relaxed(x), carried(x))
    mixed = make(
        1,
        linen.clone(architecture=eq.Architecture.uniform(D4, 4)).clone(
            constraint=eq.Mixture((D4, D4.smallest))
        ),
        rngs=nnx.Rngs(0),
    )
    mixed.eval()
    plain, _ = enx.collapse(mixed)
    plain.eval()
    np.testing.assert_allclose(plain(x), mixed(x), atol=1e-4)
