import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from tests.catalogue import D4


@pytest.mark.parametrize("name", ["D4", "C4", "D1:i", "C1"])
def test_every_sample_is_moved_by_a_random_element(name):
    group = D4.subgroup(name)
    x = jax.random.normal(jax.random.key(0), (400, 3, 3, 1))
    moved = jax.jit(lambda key: eq.augment(key, x, group=group))(jax.random.key(1))
    candidates = jnp.stack([eq.transform(x, u, group=D4) for u in group.elements])
    which = np.argwhere(np.all(candidates == moved, axis=(2, 3, 4)))
    assert len(which) == len(x)
    counts = np.bincount(which[:, 0], minlength=group.order)
    np.testing.assert_allclose(counts / len(x), 1 / group.order, atol=0.1)


def test_a_grid_that_the_group_does_not_keep():
    x = jnp.zeros((2, 3, 4, 1))
    with pytest.raises(ValueError, match="use a square grid"):
        eq.augment(jax.random.key(0), x, group=D4)
    assert eq.augment(jax.random.key(0), x, group=D4.subgroup("D2:i")).shape == x.shape
