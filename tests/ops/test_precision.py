"""Reported numbers do not depend on the precision of what they report on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import eqjax as eq
from eqjax import kernels
from eqjax.ops.precision import accurate, mean, norm, squared

D4 = eq.dihedral(4)
DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64, jnp.complex64)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    exponent=st.integers(-4, 4),
    seed=st.integers(0, 99),
)
def test_norms_are_those_of_double_precision(dtype, exponent, seed):
    values = 10.0**exponent * np.random.default_rng(seed).normal(size=(3, 50))
    values = jnp.asarray(values, dtype)
    exactly = np.asarray(values).astype(complex)
    np.testing.assert_allclose(norm(values), np.linalg.norm(exactly), rtol=1e-5)
    np.testing.assert_allclose(squared(values), np.abs(exactly) ** 2, rtol=1e-5)
    assert mean(values).dtype == dtype
    assert not jnp.issubdtype(norm(values).dtype, jnp.complexfloating)


def test_extremes():
    assert norm() == norm(jnp.zeros(0)) == norm(jnp.zeros(3)) == 0
    assert norm(jnp.full(4, 1e30, jnp.float32)) == np.float32(2e30)
    assert norm(jnp.array([3, 4])) == 5
    assert accurate(jnp.array([200, 100], jnp.uint8)).dtype == jnp.float32
    for bad in (np.nan, np.inf):
        assert np.isnan(norm(jnp.array([1.0, bad])))


FIELD = np.random.default_rng(0).normal(size=(4, 28, 28, 8, 4))
MASK = jnp.ones((28, 28, 1, 1)).at[3, 5].set(0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.complex64])
def test_a_broken_function_is_found_in_any_precision(dtype):
    def error(x):
        return eq.equivariance_error(lambda x: x * MASK.astype(x.dtype), x, group=D4)

    exact = error(jnp.asarray(FIELD, jnp.float32))
    assert exact > 0.03
    found = error(jnp.asarray(FIELD, dtype))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, rtol=0.01)


def test_what_is_not_finite_is_not_equivariant():
    x = jnp.asarray(FIELD[:1], jnp.float16)
    for broken in (np.inf, np.nan):
        assert np.isnan(eq.equivariance_error(lambda x, b=broken: x * b, x, group=D4))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_distances_of_low_precision_kernels(dtype):
    table = kernels.orbits.kernel_table(
        D4.subgroup("C4"), (3, 3), eq.regular(D4), eq.regular(D4)
    )
    kernel = 30 * np.random.default_rng(1).normal(size=(*table.shape, 8, 8))
    exact = kernels.distance(jnp.asarray(kernel, jnp.float32), table)
    found = kernels.distance(jnp.asarray(kernel, dtype), table)
    np.testing.assert_allclose(found, exact, rtol=1e-3)


def test_a_mixture_of_zero_kernels_learns():
    """As a tied layer whose kernel starts at zero does."""
    x = jnp.asarray(FIELD[:1, :4, :4])
    mixture = eq.Mixture((D4, D4.subgroup("C4")))
    layer = eq.GroupConv(
        2, 3, kernel_init=lambda key, shape, dtype: jnp.zeros(shape, dtype), group=D4
    ).clone(constraint=mixture)
    variables = layer.init(jax.random.key(0), x)

    def loss(params):
        y = layer.apply({**variables, "params": params}, x)
        return (y * jnp.arange(2)).sum()

    gradient = jax.grad(loss)(variables["params"])
    assert all(abs(g).max() > 0 for g in jax.tree.leaves(gradient))


def test_complex_mixtures_hold_the_norm():
    x = jnp.asarray(FIELD[:1, :4, :4] + 1j, jnp.complex64)
    layer = eq.GroupConv(2, 3, param_dtype=jnp.complex64, use_bias=False, group=D4)
    layer = layer.clone(constraint=eq.Mixture((D4, D4.subgroup("C1"))))
    variables = layer.init(jax.random.key(0), x)
    larger = {
        **variables,
        "params": jax.tree.map(lambda p: 3j * p, variables["params"]),
    }
    np.testing.assert_allclose(
        layer.apply(larger, x), 1j * layer.apply(variables, x), rtol=1e-3, atol=1e-3
    )
