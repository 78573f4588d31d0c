import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from tests.tolerances import BROKEN, DOUBLE, SINGLE

D4 = eq.dihedral(4)
FIELD = jnp.asarray(np.random.default_rng(0).normal(2, 3, size=(4, 5, 5, 8, 3)))


def test_statistics_are_pooled_over_batch_space_and_fiber():
    for H in D4.subgroups:
        norm = eq.BatchNorm(use_running_average=False, momentum=0.0, group=H)
        y, variables = norm.init_with_output(jax.random.key(0), FIELD)
        np.testing.assert_allclose(y.mean((0, 1, 2, 3)), 0, atol=SINGLE)
        np.testing.assert_allclose(y.std((0, 1, 2, 3)), 1, atol=SINGLE)
        _, updated = norm.apply(variables, FIELD, mutable=["batch_stats"])
        running = updated["batch_stats"]["statistics"]
        np.testing.assert_allclose(
            running["mean"], FIELD.mean((0, 1, 2, 3)), rtol=SINGLE
        )
        np.testing.assert_allclose(running["var"], FIELD.var((0, 1, 2, 3)), rtol=SINGLE)
        assert variables["params"]["scale"].shape == (8 // H.order, 3)


def test_statistics_per_fiber_element_break_the_symmetry_once_they_differ():
    x = FIELD * jnp.arange(1, 9)[:, None]
    for make, works in ((eq.BatchNorm, True), (eq.ElementBatchNorm, False)):
        norm = make(group=D4)
        variables = norm.init(jax.random.key(0), x, False)
        _, statistics = norm.apply(variables, x, False, mutable=["batch_stats"])
        trained = {**variables, **statistics}
        error = eq.equivariance_error(
            lambda x, n=norm, v=trained: n.apply(v, x, True), x, group=D4
        )
        assert error < DOUBLE if works else error > BROKEN


def test_element_norm_is_flax_norm_over_real_channels():
    ours = eq.ElementBatchNorm(use_running_average=False, group=D4)
    real = FIELD.reshape(4, 5, 5, 24)
    theirs = nn.BatchNorm(use_running_average=False)
    y, variables = ours.init_with_output(jax.random.key(0), FIELD)
    z, _ = theirs.init_with_output(jax.random.key(0), real)
    np.testing.assert_allclose(y.reshape(real.shape), z, atol=SINGLE)
    assert variables["params"]["scale"].shape == (8, 3)


def test_without_scale_and_bias_there_are_no_parameters():
    norm = eq.LayerNorm(use_bias=False, use_scale=False, group=D4)
    assert norm.ties == {}
    assert norm.init(jax.random.key(0), FIELD) == {}
    assert list(eq.RMSNorm(group=D4).ties) == ["scale"]


def test_norms_use_flax_statistics():
    flat = FIELD.reshape(4, 5, 5, 24)
    pairs = [
        (eq.LayerNorm(group=D4), nn.LayerNorm()),
        (eq.RMSNorm(epsilon=1e-6, group=D4), nn.RMSNorm()),
    ]
    for ours, theirs in pairs:
        y, _ = ours.init_with_output(jax.random.key(0), FIELD)
        z, _ = theirs.init_with_output(jax.random.key(0), flat)
        np.testing.assert_allclose(y.reshape(flat.shape), z, atol=SINGLE)


def test_norms_of_quotient_fields():
    fiber = eq.quotient(D4.subgroup("D1"))
    x = FIELD[..., :4, :]
    for H in D4.subgroups:
        norm = eq.LayerNorm(
            group=H, fiber=fiber, scale_init=nn.initializers.normal(1.0)
        )
        variables = norm.init(jax.random.key(0), x)
        error = eq.equivariance_error(
            lambda x, n=norm, v=variables: n.apply(v, x),
            x,
            group=H,
            fiber_in=fiber,
            fiber_out=fiber,
        )
        assert error < SINGLE


def test_fields_come_in_the_order_of_flax():
    assert eq.BatchNorm(True, group=D4).use_running_average is True
    assert eq.GroupNorm(2, group=D4).num_groups == 2


NORMS = {
    "batch": eq.BatchNorm(use_running_average=False, group=D4),
    "element": eq.ElementBatchNorm(use_running_average=False, group=D4),
    "layer": eq.LayerNorm(group=D4),
    "group": eq.GroupNorm(num_groups=1, group=D4),
    "rms": eq.RMSNorm(group=D4),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_large_mean_does_not_blur_the_deviation(name):
    x = jnp.asarray(FIELD, jnp.float32)
    x = x - x.mean() if name == "rms" else x + 1e4
    y = NORMS[name].init_with_output(jax.random.key(0), x)[0]
    assert abs(float(y.std()) - 1) < 1e-3


@pytest.mark.parametrize("name", NORMS)
def test_complex_numbers_are_normalized_by_their_absolute_value(name):
    z = jnp.asarray(FIELD + 2j * FIELD[::-1], jnp.complex64)
    y, variables = NORMS[name].init_with_output(jax.random.key(0), z)
    size = float(jnp.sqrt(jnp.square(jnp.abs(y)).mean()))
    assert abs(size - 1) < 1e-3
    if "batch_stats" in variables:
        assert variables["batch_stats"]["statistics"]["var"].dtype == jnp.float32


@pytest.mark.parametrize("name", NORMS)
def test_an_empty_batch_stays_empty_and_teaches_nothing(name):
    variables = NORMS[name].init(jax.random.key(0), FIELD)
    y, changed = NORMS[name].apply(variables, FIELD[:0], mutable=["batch_stats"])
    assert y.shape == (0, *FIELD.shape[1:])
    for after in jax.tree.leaves(changed):
        assert np.isfinite(after).all()


@pytest.mark.parametrize("name", NORMS)
def test_half_precision_is_normalized_in_single(name):
    x = jnp.asarray(1e3 * FIELD, jnp.float16)  # squares overflow
    y = NORMS[name].init_with_output(jax.random.key(0), x)[0]
    assert abs(float(jnp.square(y).mean()) - 1) < 1e-2


def test_defaults_are_those_of_flax():
    pairs = [
        (NORMS["batch"], nn.BatchNorm()),
        (NORMS["layer"], nn.LayerNorm()),
        (NORMS["group"], nn.GroupNorm()),
        (NORMS["rms"], nn.RMSNorm()),
    ]
    for ours, theirs in pairs:
        for name in ("epsilon", "momentum", "use_bias", "use_scale"):
            if hasattr(theirs, name):
                assert getattr(ours, name) == getattr(theirs, name), (ours, name)
