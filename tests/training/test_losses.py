"""The loss is an argument: of one model, of stacks, of the search over mixtures."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import training
from eqjax.training import Metrics

D4 = eq.dihedral(4)
SGD = optax.sgd(0.05)


class Regressor(nn.Module):
    """Two numbers per image, for targets of two numbers."""

    group: eq.Group = D4
    constraint: eq.Constraint = eq.Tied()

    @nn.compact
    def __call__(self, x, *, train=False):
        del train
        settings = {"group": self.group, "constraint": self.constraint}
        x = nn.relu(eq.LiftingConv(4, 3, **settings)(x))
        return eq.InvariantHead(2, **settings)(x)


def squares(outputs, targets):
    """The squared error of every sample."""
    return jnp.square(outputs - targets).mean(-1)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6, 6, 1)).astype(np.float32)
    return x, np.stack([x.mean((1, 2, 3)), np.abs(x).mean((1, 2, 3))], -1)


def mean_square(model, variables, x, y):
    return np.square(np.asarray(model.apply(variables, x)) - y).mean()


def test_one_model_descends_on_the_loss_that_it_is_given(data):
    x, y = data
    model = Regressor()
    state = training.init_state(jax.random.key(0), model, SGD, x)
    kind = {"model": model, "loss_fn": squares}
    after, metrics = training.train(state, [data] * 40, optimizer=SGD, **kind)
    before = training.evaluate(state.variables, x, y, **kind)
    found = training.evaluate(after.variables, x, y, batch_size=7, **kind)
    np.testing.assert_allclose(before.loss, mean_square(model, state.variables, x, y))
    np.testing.assert_allclose(
        found.loss, mean_square(model, after.variables, x, y), rtol=1e-5
    )
    assert found.loss < 0.5 * before.loss
    assert found.loss == found.error  # what searches compare
    assert metrics.loss == metrics.error


def test_a_loss_may_say_what_the_error_is(data):
    x, y = data

    def with_error(outputs, targets):
        worst = jnp.abs(outputs - targets).max(-1)
        return Metrics(squares(outputs, targets), worst)

    model = Regressor()
    variables = jax.jit(model.init)(jax.random.key(0), x)
    found = training.evaluate(variables, x, y, model=model, loss_fn=with_error)
    worst = np.abs(np.asarray(model.apply(variables, x)) - y).max(-1)
    np.testing.assert_allclose(found.error, worst.mean(), rtol=1e-5)


def test_a_stack_takes_the_same_steps(data):
    x, y = data
    models = [Regressor(), Regressor(D4.subgroup("C4"))]
    inputs = jax.ShapeDtypeStruct(x.shape, jnp.float32)
    strategy = eq.Strategy(width=2, steps_per_call=3)
    population = eq.Population(models[0], SGD, inputs, strategy, squares)
    keys = jax.random.split(jax.random.key(0), 2)
    stack = population.init(keys, models)
    stack, fitted = population.train(stack, [data] * 5)
    measured = population.evaluate(stack, x, y, batch_size=20)
    for i, (key, model) in enumerate(zip(keys, models, strict=True)):
        kind = {"model": model, "loss_fn": squares}
        state = training.init_state(key, model, SGD, x)
        state, metrics = training.train(state, [data] * 5, optimizer=SGD, **kind)
        found = training.evaluate(state.variables, x, y, **kind)
        np.testing.assert_allclose(fitted.loss[i], metrics.loss, rtol=1e-4)
        np.testing.assert_allclose(measured.of(i).loss, found.loss, rtol=1e-4)


def test_memory_is_measured_with_the_loss_and_its_targets(data):
    inputs = jax.ShapeDtypeStruct(data[0].shape, jnp.float32)
    target = jax.ShapeDtypeStruct((2,), jnp.float32)
    kind = {"loss_fn": squares, "target": target, "devices": jax.devices()[:1]}
    roomy = eq.choose_strategy(Regressor(), SGD, inputs, 3, memory=2**32, **kind)
    assert roomy.width == 3
    with pytest.raises(ValueError, match="one member's training step needs"):
        eq.choose_strategy(Regressor(), SGD, inputs, 3, memory=10, **kind)


def test_mixtures_descend_on_it_too(data):
    model = Regressor(constraint=eq.Mixture((D4, D4.subgroup("C1"))))
    make = functools.partial(eq.DifferentiableSearch, model, SGD, optax.sgd(1.0))
    logits = []
    for loss_fn in (squares, lambda outputs, y: 3 * squares(outputs, y)):
        search = make(loss_fn=loss_fn)
        state = search.init(jax.random.key(0), data[0])
        still = search.step(state, data, data)[0].mixture["LiftingConv_0"]["logits"]
        logits.append(np.asarray(still))
    assert np.all(logits[0] != 0)
    # The weights take a larger step first, so that it is not three times exactly.
    assert np.all(np.abs(logits[1]) > 1.5 * np.abs(logits[0]))


def test_a_loss_is_one_number_per_sample(data):
    x, y = data
    model = Regressor()
    variables = jax.jit(model.init)(jax.random.key(0), x)
    for loss_fn, shape in (
        (lambda outputs, y: squares(outputs, y).mean(), r"\(\)"),
        (lambda outputs, y: jnp.square(outputs - y), r"\(32, 2\)"),
    ):
        with pytest.raises(ValueError, match=rf"shape \(32,\), got {shape}; leave"):
            training.evaluate(variables, x, y, model=model, loss_fn=loss_fn)
