import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq

D4 = eq.dihedral(4)
IMAGE = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 1)))


def test_invariants_and_images():
    assert eq.equivariance_error(lambda x: x, IMAGE, group=D4) == 0
    mean = eq.equivariance_error(lambda x: x.mean((1, 2)), IMAGE, group=D4)
    assert mean < 1e-12
    shifted = eq.equivariance_error(lambda x: jnp.roll(x, 1, 1), IMAGE, group=D4)
    assert shifted > 0.5
    kept = D4.subgroup("D1:j")  # flips columns, while rows are shifted
    assert eq.equivariance_error(lambda x: jnp.roll(x, 1, 1), IMAGE, group=kept) == 0


def test_grids_that_the_group_does_not_keep():
    with pytest.raises(ValueError, match="is the grid square"):
        eq.equivariance_error(lambda x: x[:, :2], IMAGE[:, :3], group=D4)
