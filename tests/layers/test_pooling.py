import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from tests.tolerances import BROKEN, DOUBLE

D4 = eq.dihedral(4)
FIELD = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 8, 3)))
POOLS = {
    "avg 2x2": lambda x: eq.avg_pool(x, (2, 2), (2, 2)),
    "avg 3x3": lambda x: eq.avg_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1))),
    "avg 3x3, border counted out": lambda x: eq.avg_pool(
        x, (3, 3), padding="SAME", count_include_pad=False
    ),
    "max 2x2": lambda x: eq.max_pool(x, (2, 2), (2, 2)),
    "nearest": lambda x: eq.upsample(x, 2),
    "linear": lambda x: eq.upsample(x, 3, method="linear"),
    "dropout": lambda x: eq.FieldDropout(0.5).apply(
        {}, x, deterministic=False, rngs={"dropout": jax.random.key(0)}
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling_commutes_with_the_ambient_group(name):
    assert eq.equivariance_error(POOLS[name], FIELD, group=D4) < DOUBLE


def test_integers_stand_for_all_axes():
    once = eq.avg_pool(FIELD, 3, 2, 1)
    assert np.array_equal(once, eq.avg_pool(FIELD, (3, 3), (2, 2), ((1, 1), (1, 1))))
    assert eq.window((6, 6), 3, 2, 1).symmetry(D4).name == "D1:i-j"


def test_pooling_that_breaks_the_symmetry():
    def pool(x):
        return eq.avg_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    assert eq.equivariance_error(pool, FIELD, group=D4) > BROKEN


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("H", D4.subgroups, ids=str)
def test_fiber_pool_keeps_the_invariants_of_its_group(H, reduce):
    pooled = eq.fiber_pool(FIELD, group=H, reduce=reduce)
    assert pooled.shape == (2, 6, 6, 8 // H.order, 3)
    kept = []
    for u in range(8):
        moved = eq.fiber_pool(eq.transform(FIELD, u, group=D4), group=H, reduce=reduce)
        in_space = [
            eq.transform(pooled[..., i, :], u, group=D4) for i in range(8 // H.order)
        ]
        if np.abs(moved - jnp.stack(in_space, -2)).max() < DOUBLE:
            kept.append(u)
    assert tuple(kept) == H.elements


def test_fiber_pool_is_the_mean_over_the_fiber():
    np.testing.assert_allclose(
        eq.fiber_pool(FIELD, group=D4)[..., 0, :], FIELD.mean(-2), atol=DOUBLE
    )
    highest = eq.fiber_pool(FIELD, group=D4, reduce="max")
    assert np.array_equal(highest[..., 0, :], FIELD.max(-2))


def test_dropout_drops_fields():
    kept = POOLS["dropout"](jnp.ones((50, 4, 4, 8, 5)))
    values = kept.reshape(50, -1, 5)
    assert np.array_equal(values, np.broadcast_to(values[:, :1], values.shape))
    assert set(np.unique(values)) == {0, 2}
    assert np.array_equal(eq.FieldDropout(0.5, True).apply({}, FIELD), FIELD)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eq.avg_pool(FIELD, (2, 2, 2)), "window must be a positive integer"),
        (lambda: eq.max_pool(FIELD, 2, padding="CIRCULAR"), "SAME, VALID or integers"),
        (lambda: eq.upsample(FIELD, 1.5), "positive integer"),
        (lambda: eq.fiber_pool(FIELD, group=D4, reduce="sum"), "'mean' or 'max'"),
        (lambda: eq.fiber_pool(FIELD[:, :, :, :3], group=D4), "expected a field"),
        (lambda: eq.upsample(FIELD, 0), "positive integer"),
        (lambda: eq.upsample(FIELD, 2, method="cubic"), "'nearest' or 'linear'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
