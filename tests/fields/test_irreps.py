import e3nn_jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax.fields.irreps import lift_irreps
from tests.tolerances import DOUBLE

OH = eq.full_octahedral()
VOLUME = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 3, 3, 12)))
IRREPS = "0o + 1o + 1e + 2e"


@pytest.mark.parametrize("u", range(0, 48, 5))
def test_lifting_commutes_with_the_group(u):
    rho = e3nn_jax.Irreps(IRREPS).D_from_matrix(jnp.asarray(OH.matrices[u], float))
    moved = eq.transform(VOLUME, u, group=OH) @ rho.T
    lifted = lift_irreps(moved, IRREPS, group=OH)
    expected = eq.transform(lift_irreps(VOLUME, IRREPS, group=OH), u, group=OH)
    np.testing.assert_allclose(lifted, expected, atol=DOUBLE)


def test_vectors_have_components_in_array_axis_order():
    vector = VOLUME[..., :3]
    lifted = lift_irreps(vector, "1o", group=OH)
    expected = jnp.einsum("uji,...j->...ui", OH.matrices.astype(float), vector)
    np.testing.assert_allclose(lifted, expected, atol=DOUBLE)


def test_bad_input():
    with pytest.raises(ValueError, match="group of a volume"):
        lift_irreps(VOLUME, "1o", group=eq.dihedral(4))
    with pytest.raises(ValueError, match="spatial axes, 3"):
        lift_irreps(VOLUME, "1o", group=OH)
