"""Layers of any model are relaxed by their paths, whatever the model's code says."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import training
from tests.resnet import D4, ResNet

C4, C1, MIRROR = (D4.subgroup(name) for name in ("C4", "C1", "D1:i"))
X = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
Y = np.arange(4) % 3


def test_a_layer_of_somebodys_resnet_is_relaxed_trained_and_relaxed_again():
    model, optimizer = ResNet(), optax.adam(0.01)
    state = training.init_state(jax.random.key(0), model, optimizer, X)
    step = jax.jit(training.train_step, static_argnames=("model", "optimizer"))
    state, _ = step(state, X, Y, model=model, optimizer=optimizer)
    logits = jax.jit(model.apply)(state.variables, X)

    kind = {"inputs": X, "call_kwargs": {"train": False}}
    groups = {"stage2/short": C4}
    variables, new, report = eq.relax(
        state.variables, model=model, groups=groups, **kind
    )
    changed = {"/".join(c.path): c.target for c in report.layers if c.target != D4}
    assert changed == groups
    np.testing.assert_allclose(jax.jit(new.apply)(variables, X), logits, atol=1e-6)

    moved = eq.morph_optimizer(state.opt_state, source=model, target=new, **kind)
    relaxed = training.pack_state(variables, moved, state.step)
    trained, _ = step(relaxed, X, Y, model=new, optimizer=optimizer)
    old, now = (s[0].mu["stage2"]["short"]["kernel"] for s in (state.opt_state, moved))
    np.testing.assert_allclose(now.sum(0), old.sum(0), rtol=1e-4)  # of its gradient
    full = jax.jit(new.apply)(trained.variables, X)
    shape = trained.params["stage2"]["short"]["kernel"].shape
    assert shape[0] == 2 * state.params["stage2"]["short"]["kernel"].shape[0]

    again = {"stage2/short": C1, "head": C4}
    variables, last, report = eq.relax(
        trained.variables, model=new, groups=again, **kind
    )
    np.testing.assert_allclose(jax.jit(last.apply)(variables, X), full, atol=1e-6)
    found = {"/".join(c.path): c.target for c in report.layers}
    assert (found["stage2/short"], found["head"], found["stem"]) == (C1, C4, D4)
    fresh = jax.eval_shape(last.init, jax.random.key(0), X)
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, variables)


def conv():
    return eq.GroupConv(2, 3, group=D4, name="conv")


class Inside(nn.Module):
    lift: str

    @nn.compact
    def __call__(self, x):
        if self.lift == "scan":
            body = nn.scan(
                lambda layer, x, _: (layer(x), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=2,
            )
            return body(conv(), x, None)[0]
        make = getattr(nn, self.lift)(eq.GroupConv)
        return make(2, 3, group=D4, name="conv")(x)


class AsField(nn.Module):
    layer: nn.Module

    def __call__(self, x):
        return self.layer(self.layer(x))


class InSetup(nn.Module):
    def setup(self):
        self.conv = eq.GroupConv(2, 3, group=D4)

    def __call__(self, x):
        return self.conv(x)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (Inside("remat"), "conv"),
        (Inside("jit"), "conv"),
        (Inside("scan"), "conv"),
        (AsField(eq.GroupConv(2, 3, group=D4)), "layer"),
        (InSetup(), "conv"),
        (nn.Sequential([eq.GroupConv(2, 3, group=D4), nn.relu]), "layers_0"),
        (eq.GroupConv(2, 3, group=D4), ""),
    ],
    ids=["remat", "jit", "scan", "field", "setup", "sequential", "a single layer"],
)
def test_wherever_a_layer_is(model, path):
    x = jax.random.normal(jax.random.key(1), (1, 4, 4, 8, 2))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    expected = jax.jit(model.apply)(variables, x)
    errors = {}
    for H in (MIRROR, D4.subgroup("D1:j")):
        relaxed, new, _ = eq.relax(variables, model=model, groups={path: H}, inputs=x)
        np.testing.assert_allclose(jax.jit(new.apply)(relaxed, x), expected, atol=1e-6)
        noise = jax.tree.map(
            lambda v: v + jnp.sin(jnp.arange(v.size).reshape(v.shape)), relaxed
        )
        apply = lambda x, new=new, noise=noise: new.apply(noise, x)  # noqa: E731
        for K in (MIRROR, D4.subgroup("D1:j")):
            errors[H, K] = float(eq.equivariance_error(apply, x, group=K))
    assert all((error < 1e-4) == (H == K) for (H, K), error in errors.items()), errors
    again = jax.jit(model.apply)(variables, x)  # the model itself is as it was
    assert np.array_equal(again, expected)


def test_what_cannot_be_relaxed_is_refused():
    model = ResNet()
    variables = jax.eval_shape(model.init, jax.random.key(0), X)
    for groups, message in (
        ({"stage2/shrt": C4}, "at 'stage2/shrt'; nearest: stage2/short; all: stem, "),
        ({"stem": eq.cyclic(4)}, "stem is relaxed to a subgroup of its Group(D4), got"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            eq.relax(variables, model=model, groups=groups, inputs=X)
    with pytest.raises(TypeError, match="needs a Group"):
        eq.relax(variables, model=model, groups={"stem": "C4"}, inputs=X)
