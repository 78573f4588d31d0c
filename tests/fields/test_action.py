"""Elements that are traced act as those that are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels

D4 = eq.dihedral(4)
FIELD = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 8, 1)))


@pytest.mark.parametrize("group", [D4, D4.subgroup("C4")], ids=str)
@pytest.mark.parametrize("x", [FIELD, FIELD[..., 0, :]], ids=["field", "image"])
def test_traced_elements_of_fields(group, x):
    elements = jnp.array(group.elements)
    expected = jnp.stack([eq.transform(x, u, group=group) for u in group.elements])
    moved = jax.vmap(lambda u: eq.transform(x, u, group=group))(elements)
    np.testing.assert_array_equal(moved, expected)
    jitted = jax.jit(lambda u: eq.transform(x, u, group=group))
    np.testing.assert_array_equal(jitted(elements[1]), expected[1])
    assert np.array_equal(eq.transform(x, elements[1], group=group), expected[1])


def test_traced_elements_of_kernels():
    fibers = {"fiber_in": eq.trivial(D4), "fiber_out": eq.regular(D4)}
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 3, 1, 8, 1, 2)))

    def act(u):
        return kernels.transform_kernel(kernel, u, group=D4, **fibers)

    expected = jnp.stack([act(u) for u in range(8)])
    np.testing.assert_array_equal(jax.vmap(act)(jnp.arange(8)), expected)


def test_elements_that_are_none():
    for bad in (8, -1, jnp.array([0, 1])):
        with pytest.raises(ValueError, match="is not an element of"):
            eq.transform(FIELD, bad, group=D4)
    with pytest.raises(ValueError, match="a grid that all of them keep"):
        jax.vmap(lambda u: eq.transform(FIELD[:, :2], u, group=D4))(jnp.arange(8))
