import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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
