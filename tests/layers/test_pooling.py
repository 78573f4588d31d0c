import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

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
@pytest.mark.parametrize("K", D4.subgroups, ids=str)
def test_fiber_pool_gives_a_field_over_the_quotient(K, reduce):
    fiber = eq.quotient(K)

    def pool(x):
        return eq.fiber_pool(x, group=K, reduce=reduce)

    assert pool(FIELD).shape == (2, 6, 6, 8 // K.order, 3)
    kinds = {"group": D4, "fiber_out": fiber}
    assert eq.equivariance_error(pool, FIELD, **kinds) < DOUBLE
    conv = eq.GroupConv(2, 1, group=D4, fiber_in=fiber)
    variables = conv.init(jax.random.key(0), pool(FIELD))
    error = eq.equivariance_error(
        lambda x: conv.apply(variables, pool(x)), FIELD, group=D4
    )
    assert error < 1e-5


def test_fiber_pool_over_a_volume():
    T = eq.full_octahedral().subgroup("D2")
    field = jnp.asarray(np.random.default_rng(1).normal(size=(1, 2, 2, 2, 48, 1)))
    for K in (T, T.subgroup("C2"), eq.full_octahedral().subgroup("C3")):
        error = eq.equivariance_error(
            lambda x, K=K: eq.fiber_pool(x, group=K),
            field,
            group=T.ambient,
            fiber_out=eq.quotient(K),
        )
        assert error < DOUBLE


@pytest.mark.parametrize("reduce", ["mean", "max"])
@pytest.mark.parametrize("H", D4.subgroups, ids=str)
def test_fiber_pool_keeps_the_invariants_of_its_group(H, reduce):
    kind = {"group": H, "reduce": reduce, "to": "invariants"}
    pooled = eq.fiber_pool(FIELD, **kind)
    assert pooled.shape == (2, 6, 6, 8 // H.order, 3)
    kept = []
    for u in range(8):
        moved = eq.fiber_pool(eq.transform(FIELD, u, group=D4), **kind)
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


LOW = (jnp.float16, jnp.bfloat16)


@pytest.mark.parametrize("dtype", LOW)
def test_means_are_summed_in_single_precision(dtype):
    field = jnp.asarray(3 + FIELD, dtype)
    exactly = np.asarray(field, np.float64)
    means = {
        "fiber": (eq.fiber_pool(field, group=D4)[..., 0, :], exactly.mean(-2)),
        "window": (eq.avg_pool(field, 6)[:, 0, 0], exactly.mean((1, 2))),
        "jax": (field.mean(-2), exactly.mean(-2)),
    }
    for name, (found, expected) in means.items():
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected.astype(dtype), err_msg=name)


def test_sums_do_not_overflow():
    field = jnp.full((1, 4, 4, 8, 1), 6e4, jnp.float16)
    assert (eq.fiber_pool(field, group=D4) == 6e4).all()
    assert (eq.avg_pool(field, 4) == 6e4).all()


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    axes=st.integers(1, 3),
    size=st.integers(1, 5),
    taps=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.sampled_from([0, 1, "SAME", "VALID"]),
    image=st.booleans(),
)
def test_any_window_pools_every_spatial_axis(axes, size, taps, stride, padding, image):
    """Of an image with one integer per axis, and of a field; or it is refused."""
    padding = min(padding, taps - 1) if isinstance(padding, int) else padding
    rest = (3,) if image else (2, 3)
    x = np.arange(2 * size**axes * np.prod(rest), dtype=np.float32)
    x = jnp.asarray(x.reshape(2, *[size] * axes, *rest))
    expected = eq.window((size,) * axes, taps, stride, padding).output_size
    window = (taps,) * axes if image else taps
    looks_like_a_field = image and axes > 1 and (2, 8)[axes - 2] % size == 0
    for pool in (eq.avg_pool, eq.max_pool):
        if looks_like_a_field:
            with pytest.raises(ValueError, match="window must be a positive integer"):
                pool(x, window, stride, padding)
            continue
        if 0 in expected:
            with pytest.raises(ValueError, match="does not fit into"):
                pool(x, window, stride, padding)
            continue
        pooled = pool(x, window, stride, padding)
        assert pooled.shape == (2, *expected, *rest)
        if image:
            field = pool(x[..., None, :], taps, stride, padding)
            np.testing.assert_array_equal(pooled, field[..., 0, :])


def test_nothing_is_pooled_to_nothing():
    empty = FIELD[:0]
    for name, pool in POOLS.items():
        assert pool(empty).shape[0] == 0, name
    assert eq.fiber_pool(empty, group=D4).shape == (0, 6, 6, 1, 3)


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
        (lambda: eq.fiber_pool(FIELD, group=D4, to="cosets"), "'quotient' or"),
        (lambda: eq.avg_pool(FIELD[:, :, :, 0], 2, 2), "may be of space"),
        (lambda: eq.max_pool(FIELD[..., :3, :], 2, 2), "may be of space"),
        (lambda: eq.upsample(FIELD[:, :, :, 0], 2), "may be of space"),
        (lambda: eq.avg_pool(FIELD, 7), r"the largest that fits is \(6, 6\)"),
        (lambda: eq.max_pool(FIELD[:, :2, :2], 3, 2), "does not fit into"),
        (lambda: eq.max_pool(1j * FIELD, 2), "no maximum"),
        (lambda: eq.fiber_pool(1j * FIELD, group=D4, reduce="max"), "no maximum"),
        (lambda: eq.upsample(FIELD, 0), "positive integer"),
        (lambda: eq.upsample(FIELD, 2, method="cubic"), "'nearest' or 'linear'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
