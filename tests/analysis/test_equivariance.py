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


def test_the_elements_that_break_it_are_named():
    def shifted(x):
        return jnp.roll(x, 1, 1)

    eq.assert_equivariant(shifted, IMAGE, group=D4.subgroup("D1:j"))
    with pytest.raises(AssertionError, match="to D1:i: reflection i by up to"):
        eq.assert_equivariant(shifted, IMAGE, group=D4.subgroup("D1:i"))
    with pytest.raises(AssertionError, match="by up to nan"):
        eq.assert_equivariant(lambda x: x / 0, IMAGE, group=D4.subgroup("C2"))
    eq.assert_equivariant(shifted, IMAGE, group=D4, tolerance=2)


def test_an_input_without_space_is_refused():
    with pytest.raises(ValueError, match="expected a field"):
        eq.equivariance_error(lambda x: x, jnp.ones((3, 5)), group=eq.dihedral(4))


def test_an_output_of_zeros_proves_nothing():
    with pytest.raises(ValueError, match="zero everywhere"):
        eq.assert_equivariant(lambda x: 0 * x, IMAGE, group=D4)
