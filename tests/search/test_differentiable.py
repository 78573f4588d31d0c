"""EquiNAS_D: what a step is, that it learns, and that seeds vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import training
from eqjax.ops.convolution import prefer
from tests.catalogue import D4

C1 = D4.subgroup("C1")
MODEL = eq.exact(
    eq.Architecture.uniform(D4, 2),
    features=(2,),
    pool_after=(1,),
    kernel_size=3,
    head_features=4,
    classes=2,
    constraint=eq.Mixture((D4, C1)),
)


@pytest.fixture(scope="module")
def strokes():
    """Strokes across and along, which D4 cannot tell apart."""
    y = np.arange(32) % 2
    x = np.random.default_rng(0).normal(size=(32, 6, 6, 1)).astype(np.float32) / 4
    x[y == 0, 2:4] += 1
    x[y == 1, :, 2:4] += 1
    return jnp.asarray(x), jnp.asarray(y)


def search(**settings):
    defaults = {"optimizer": optax.sgd(0.1), "mixture_optimizer": optax.sgd(0.5)}
    return eq.DifferentiableSearch(MODEL, **{**defaults, **settings})


def logits_after(found, state, batch, other):
    return jax.jit(found.step)(state, batch, other)[0].mixture


@pytest.mark.slow
def test_a_step_is_a_weight_step_and_then_a_mixture_step(strokes):
    found = search()
    x, y = strokes
    half, other = (x[:16], y[:16]), (x[16:], y[16:])
    state = found.init(jax.random.key(0), x[:16])
    after, metrics = found.step(state, half, other)
    weights, expected = training.train_step(
        state.weights, *map(jnp.asarray, half), model=MODEL, optimizer=found.optimizer
    )
    jax.tree.map(np.testing.assert_array_equal, after.weights.params, weights.params)
    assert metrics.loss == expected.loss

    def loss(mixture):
        variables = {**weights.variables, "mixture": mixture}
        return training.training_loss(variables, *other, model=MODEL, rngs={})[0]

    slope = jax.grad(loss)(state.mixture)
    moved = jax.tree.map(lambda a, g: a - 0.5 * g, state.mixture, slope)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.mixture, moved
    )


@pytest.mark.slow
def test_second_order_is_the_gradient_through_a_weight_step(strokes):
    rate, step = 0.3, 1e-4
    found = search(unrolled_step=rate)
    x, y = strokes
    half, other = (x[:16], y[:16]), (x[16:], y[16:])
    state = jax.tree.map(
        lambda v: v.astype(jnp.float64) if v.dtype == jnp.float32 else v,
        found.init(jax.random.key(0), x[:16]),
    )
    half, other = ((x.astype(jnp.float64), y) for x, y in (half, other))
    after = logits_after(found, state, half, other)
    with prefer("direct"):
        weights, _ = jax.jit(
            lambda s: training.train_step(
                s, *map(jnp.asarray, half), model=MODEL, optimizer=found.optimizer
            )
        )(state.weights)

    def loss(params, mixture, batch):
        variables = {**weights.variables, "params": params, "mixture": mixture}
        return training.training_loss(variables, *batch, model=MODEL, rngs={})[0]

    @jax.jit
    def looked_ahead(mixture):
        slope = jax.grad(loss)(weights.params, mixture, half)
        params = jax.tree.map(lambda w, g: w - rate * g, weights.params, slope)
        return loss(params, mixture, other)

    logits = state.mixture["conv1"]["logits"]
    for i in range(2):
        values = []
        for sign in (1, -1):
            moved = logits.at[i].add(sign * step)
            mixture = {**state.mixture, "conv1": {"logits": moved}}
            values.append(looked_ahead(mixture))
        slope = (values[0] - values[1]) / (2 * step)
        expected = logits[i] - 0.5 * slope
        np.testing.assert_allclose(after["conv1"]["logits"][i], expected, atol=1e-6)
    first = logits_after(search(), state, half, other)
    assert not np.allclose(first["conv1"]["logits"], after["conv1"]["logits"])


def test_it_learns_weights_and_mixture(strokes):
    found = search(optimizer=optax.adam(0.02), mixture_optimizer=optax.adam(0.05))
    state = found.init(jax.random.key(0), strokes[0])
    steps = 80
    state, _, trajectory = found.run(state, [strokes] * steps, [strokes] * steps)
    measured = training.evaluate(state.weights.variables, *strokes, model=MODEL)
    assert measured.error < 0.05
    z = eq.mixtures(state.weights.variables, model=MODEL, inputs=strokes[0])
    heaviest = max(float(weights["C1"]) for weights in z.values())
    assert heaviest > 0.55, "D4 alone cannot tell the classes apart"
    assert trajectory["conv1"]["logits"].shape == (steps, 2)
    np.testing.assert_array_equal(
        trajectory["head"]["logits"][-1], state.mixture["head"]["logits"]
    )


def test_seeds_under_vmap_are_the_seeds_one_by_one(strokes):
    found = search()
    keys = jax.random.split(jax.random.key(0), 2)
    states = [found.init(key, strokes[0]) for key in keys]
    stack = jax.tree.map(lambda *v: jnp.stack(v), *states)
    step = jax.jit(jax.vmap(found.step, in_axes=(0, None, None)))
    for _ in range(2):
        stack, metrics = step(stack, strokes, strokes)
    for i, state in enumerate(states):
        alone, last, _ = found.run(state, [strokes], [strokes])
        alone, last, _ = found.run(alone, [strokes], [strokes])
        np.testing.assert_allclose(metrics.loss[i], last.loss, rtol=1e-4)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-5),
            stack.weights.variables,
            alone.weights.variables,
        )


def test_random_gradients_look_at_no_data(strokes):
    control = optax.chain(eq.random_gradients(3), optax.adam(0.05))
    found = search(mixture_optimizer=control)
    x, y = strokes
    runs = []
    for labels in (y, 1 - y):
        state = found.init(jax.random.key(0), x)
        batches = [(x, labels)] * 4
        runs.append(found.run(state, batches, batches)[2])
    jax.tree.map(np.testing.assert_array_equal, *runs)
    steps = np.diff(runs[0]["conv1"]["logits"], axis=0)
    assert np.all(steps != 0)
    other = search(
        mixture_optimizer=optax.chain(eq.random_gradients(4), optax.adam(0.05))
    )
    state = other.init(jax.random.key(0), x)
    _, _, trajectory = other.run(state, batches, batches)
    assert np.any(trajectory["conv1"]["logits"] != runs[0]["conv1"]["logits"])


def test_bad_searches(strokes):
    plain = MODEL.clone(constraint=eq.Tied())
    with pytest.raises(ValueError, match="has no mixed layer to search"):
        eq.DifferentiableSearch(plain, optax.sgd(0.1), optax.sgd(0.1)).init(
            jax.random.key(0), strokes[0]
        )
    with pytest.raises(ValueError, match="unrolled_step must be at least 0, got -1"):
        search(unrolled_step=-1)
    found = search()
    with pytest.raises(ValueError, match="at least one batch"):
        found.run(found.init(jax.random.key(0), strokes[0]), [], [])
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is shorter"):
        found.run(found.init(jax.random.key(0), strokes[0]), [strokes], [])
