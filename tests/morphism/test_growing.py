"""Larger networks that compute the same, over every group."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from tests.catalogue import D4

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 10, 10, 1)), jnp.float32)
KEY = jax.random.key(0)


def network(groups="D4 C4 C4", **settings):
    fixed = {"features": (2, 4), "kernel_size": 3, "pool_after": (1,), "classes": 3}
    return eq.exact(eq.Architecture.parse(D4, groups), **{**fixed, **settings})


def trained_like(model):
    """Variables with the statistics of these images."""
    variables = jax.jit(model.init)(KEY, X)

    @jax.jit
    def updated(v):
        return {**v, **model.apply(v, X, train=True, mutable=["batch_stats"])[1]}

    for _ in range(100):
        variables = updated(variables)
    return variables


GROWN = {
    "wider": {"features": (4, 6)},
    "wider head": {"head_features": 80},
    "larger kernels": {"kernel_size": 7},
    "all": {"features": (3, 5), "kernel_size": 5, "head_features": 65},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GROWN)
def test_grown_networks_compute_the_same_and_stay_symmetric(name):
    source, target = network(), network(**GROWN[name])
    variables = trained_like(source)
    grown = eq.grow(variables, source=source, target=target, inputs=X, key=KEY)
    expected = source.apply(variables, X)
    np.testing.assert_allclose(target.apply(grown, X), expected, atol=1e-5)
    for H in (D4, D4.subgroup("C4")):
        at = [
            eq.equivariance_error(lambda x, m=m, v=v: m.apply(v, x), X, group=H)
            for m, v in ((source, variables), (target, grown))
        ]
        assert (at[0] < 1e-5) == (at[1] < 1e-5)


def test_a_new_layer_is_the_identity_in_training_too():
    source = network(pool_after=())
    target = network("D4 C4 C4 C4", features=(2, 4, 4), pool_after=())
    variables = trained_like(source)
    grown = eq.grow(variables, source=source, target=target, inputs=X, key=KEY)
    np.testing.assert_allclose(
        target.apply(grown, X), source.apply(variables, X), atol=1e-5
    )
    before, after = (
        model.apply(v, X, train=True, mutable=["batch_stats"])[0]
        for model, v in ((source, variables), (target, grown))
    )
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_a_layer_in_between_moves_the_others_on():
    source = network("D4 D4 D4", features=(4, 4), pool_after=())
    target = network("D4 D4 D4 D4", features=(4, 4, 4), pool_after=())
    variables = trained_like(source)
    moved = {"conv3": "conv2", "norm3": "norm2"}
    grown = eq.grow(
        variables, source=source, target=target, inputs=X, key=KEY, paths=moved
    )
    old, new = (v["params"] for v in (variables, grown))
    np.testing.assert_array_equal(new["conv3"]["kernel"], old["conv2"]["kernel"])
    np.testing.assert_allclose(
        target.apply(grown, X), source.apply(variables, X), atol=1e-5
    )


@pytest.mark.slow
def test_growing_and_relaxing_in_turns():
    small, wide = network("D4 D4 D4"), network("D4 D4 D4", features=(4, 6))
    relaxed = wide.clone(architecture=eq.Architecture.parse(D4, "D4 C4 C1"))
    variables = trained_like(small)
    grown = eq.grow(variables, source=small, target=wide, inputs=X, key=KEY)
    moved, _ = eq.morph(grown, source=wide, target=relaxed, inputs=X)
    at_once = eq.grow(variables, source=small, target=relaxed, inputs=X, key=KEY)
    for found in (moved, at_once):
        np.testing.assert_allclose(
            relaxed.apply(found, X), small.apply(variables, X), atol=1e-5
        )


def test_what_is_drawn_learns():
    source, target = network(), network(**GROWN["all"])
    grown = eq.grow(
        trained_like(source), source=source, target=target, inputs=X, key=KEY
    )

    def loss(params):
        return jnp.sum(target.apply({**grown, "params": params}, X) ** 2)

    gradient = jax.jit(jax.grad(loss))(grown["params"])
    assert jnp.abs(gradient["conv2"]["kernel"][:, 2:, :4]).max() > 0  # of new inputs


class Normed(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x):
        x = eq.LiftingConv(self.width, 3, group=D4, name="lift")(x)
        x = nn.relu(eq.LayerNorm(group=D4, name="norm")(x))
        return eq.InvariantHead(2, group=D4, name="head")(x)


@pytest.mark.parametrize(
    ("source", "target", "settings", "message"),
    [
        (network(), network(features=(1, 4)), {}, "which cannot hold it"),
        (network(), network(kernel_size=2), {}, "grow by even numbers"),
        (network(), network(), {"paths": {"conv9": "conv1"}}, "no layer conv9"),
        (Normed(2), Normed(3), {}, "more than 1e-04: what reads new channels"),
    ],
)
def test_what_cannot_grow_is_refused(source, target, settings, message):
    variables = jax.jit(source.init)(KEY, X)
    kind = {"source": source, "target": target, "inputs": X, "key": KEY}
    with pytest.raises(ValueError, match=message):
        eq.grow(variables, **kind, **settings)
