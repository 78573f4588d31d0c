import e3nn_jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import eqjax as eq
from tests.tolerances import DOUBLE

OH = eq.full_octahedral()
VOLUME = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 3, 3, 12)))
IRREPS = "0o + 1o + 1e + 2e"


@pytest.mark.parametrize("u", range(0, 48, 5))
def test_lifting_commutes_with_the_group(u):
    rho = e3nn_jax.Irreps(IRREPS).D_from_matrix(jnp.asarray(OH.matrices[u], float))
    moved = eq.transform(VOLUME, u, group=OH) @ rho.T
    lifted = eq.lift_irreps(moved, IRREPS, group=OH)
    expected = eq.transform(eq.lift_irreps(VOLUME, IRREPS, group=OH), u, group=OH)
    np.testing.assert_allclose(lifted, expected, atol=DOUBLE)


def test_vectors_have_components_in_array_axis_order():
    vector = VOLUME[..., :3]
    lifted = eq.lift_irreps(vector, "1o", group=OH)
    expected = jnp.einsum("uji,...j->...ui", OH.matrices.astype(float), vector)
    np.testing.assert_allclose(lifted, expected, atol=DOUBLE)


@pytest.mark.parametrize("group", [OH, eq.dihedral(4), eq.flip()], ids=str)
def test_lowering_undoes_lifting_and_commutes(group):
    rng = np.random.default_rng(0)
    space = (3,) * group.dimension
    image = jnp.asarray(rng.normal(size=(1, *space, 12)))
    lifted = eq.lift_irreps(image, IRREPS, group=group)
    lowered = eq.lower_irreps(lifted, IRREPS, group=group)
    np.testing.assert_allclose(lowered, image, atol=DOUBLE)
    field = jnp.asarray(rng.normal(size=lifted.shape))
    error = eq.equivariance_error(
        lambda x: eq.lower_irreps(x, IRREPS, group=group),
        field,
        group=group,
        irreps_out=IRREPS,
    )
    assert error < DOUBLE


@pytest.mark.parametrize("seed", range(3))
def test_matrices_are_those_of_e3nn(seed):
    matrix = scipy.stats.ortho_group.rvs(3, random_state=seed)
    irreps = "0e + 0o + 2x1o + 1e + 2e + 3o + 5e"
    expected = e3nn_jax.Irreps(irreps).D_from_matrix(jnp.asarray(matrix))
    found = eq.IrrepsFiber(irreps).matrix(matrix)
    np.testing.assert_allclose(found, expected, atol=DOUBLE)


def test_fields_of_irreps_are_turned_with_their_channels():
    fiber = eq.IrrepsFiber("1o")
    x = VOLUME[..., :6].reshape(1, 3, 3, 3, 3, 2)
    for u in (1, 17, 40):
        moved = eq.transform(x, u, group=OH, fiber=fiber)
        rho = jnp.asarray(OH.matrices[u], float)
        for c in range(2):
            expected = eq.transform(x[..., c], u, group=OH) @ rho.T
            np.testing.assert_allclose(moved[..., c], expected, atol=DOUBLE)


def test_bad_input():
    with pytest.raises(ValueError, match="2 spatial axes, 3"):
        eq.lift_irreps(VOLUME, "1o", group=eq.dihedral(4))
    with pytest.raises(ValueError, match="spatial axes, 3"):
        eq.lift_irreps(VOLUME, "1o", group=OH)
    with pytest.raises(ValueError, match="expected irreps of O"):
        eq.IrrepsFiber("vector")
    with pytest.raises(ValueError, match="have 3 components"):
        eq.transform(VOLUME[..., None], 1, group=OH, fiber=eq.IrrepsFiber("1o"))
