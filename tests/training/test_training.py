import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import training

D4 = eq.dihedral(4)
MODEL = eq.exact(
    eq.Architecture.parse(D4, "D4 C4 C2"),
    features=(2, 2),
    kernel_size=3,
    pool_after=(1,),
    head_features=4,
    classes=2,
)
OPTIMIZER = optax.adam(0.01)


@pytest.fixture(scope="module")
def run():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=32)
    x = rng.normal(size=(32, 8, 8, 1)).astype(np.float32) * (1 + y)[:, None, None, None]
    before = training.init_state(jax.random.key(0), MODEL, OPTIMIZER, x)
    after, metrics = training.train(
        before, [(x, y)] * 30, model=MODEL, optimizer=OPTIMIZER
    )
    return before, after, metrics, x, y


def test_training_learns_and_moves_every_parameter(run):
    before, after, _, x, y = run
    losses = [
        training.train(s, [(x, y)], model=MODEL, optimizer=OPTIMIZER)[1].loss
        for s in (before, after)
    ]
    assert losses[1] < 0.5 * losses[0]
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)
    assert jax.tree.all(moved.params)
    assert jax.tree.all(moved.collections)
    assert after.step == 30


def test_evaluation_weighs_every_sample_the_same(run):
    _, after, _, x, y = run
    once = training.evaluate(after.variables, x, y, model=MODEL)
    parts = training.evaluate(after.variables, x, y, model=MODEL, batch_size=7)
    np.testing.assert_allclose(once.loss, parts.loss, rtol=1e-5)
    assert once.error == parts.error
    logits = MODEL.apply(after.variables, x)
    assert once.error == np.mean(np.argmax(logits, -1) != y)


def test_the_same_batches_give_the_same_state(run):
    before, after, metrics, x, y = run
    again, same = training.train(
        before, [(x, y)] * 30, model=MODEL, optimizer=OPTIMIZER
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, again, after))
    assert same == metrics


def test_nothing_to_train_or_evaluate_on(run):
    before, _, _, x, y = run
    with pytest.raises(ValueError, match="at least one batch"):
        training.train(before, [], model=MODEL, optimizer=OPTIMIZER)
    with pytest.raises(ValueError, match="as many x as y, got 32 and 31"):
        training.evaluate(before.variables, x, y[1:], model=MODEL)
    with pytest.raises(ValueError, match="as many x as y, got 0 and 0"):
        training.evaluate(before.variables, x[:0], y[:0], model=MODEL)


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        x = eq.LiftingConv(2, 3, group=D4)(x)
        x = eq.FieldDropout(0.5)(x, not train)
        return eq.InvariantHead(2, group=D4)(x)


def test_dropout_draws_from_the_key(run):
    _, _, _, x, y = run
    model = Dropping()
    state = training.init_state(jax.random.key(0), model, OPTIMIZER, x)

    def loss(key):
        batch = [(x, y)]
        _, metrics = training.train(
            state, batch, model=model, optimizer=OPTIMIZER, key=jax.random.key(key)
        )
        return float(metrics.loss)

    assert loss(0) == loss(0) != loss(1)


def test_count_parameters():
    assert training.count_parameters({"a": jnp.ones((2, 3)), "b": jnp.ones(4)}) == 10


class Line(nn.Module):
    """A classifier of two numbers."""

    @nn.compact
    def __call__(self, x, train=False):
        del train
        return nn.Dense(2)(x)


def absolute(outputs, y):
    return abs(outputs[:, 0] - y)


def test_what_is_made_anew_is_compiled_anew_only_where_that_is_said():
    x, y = np.ones((4, 2), np.float32), np.zeros(4, int)
    state = training.init_state(jax.random.key(0), Line(), OPTIMIZER, x)

    def train(optimizer=OPTIMIZER, loss_fn=absolute, model=None):
        kind = {"model": model or Line(), "optimizer": optimizer, "loss_fn": loss_fn}
        training.train(state, [(x, y)], **kind)

    def evaluate(loss_fn=absolute):
        training.evaluate(state.variables, x, y, model=Line(), loss_fn=loss_fn)

    def compiled(call, **settings):
        with eq.count_compilations() as found:
            call(**settings)
        return found.count

    train(), evaluate()
    assert compiled(train) == compiled(train, model=Line()) == compiled(evaluate) == 0
    assert compiled(train, optimizer=optax.adam(0.01)) > 0
    assert compiled(train, loss_fn=lambda *both: absolute(*both)) > 0
    assert compiled(evaluate, loss_fn=lambda *both: absolute(*both)) > 0


def test_programs_of_many_models_are_kept_by_optimizer_as_object():
    mixed = MODEL.clone(constraint=eq.Mixture((D4, D4.smallest)))
    x = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
    for make in (
        lambda optimizer: eq.Population(MODEL.clone(), optimizer, x),
        lambda optimizer: eq.DifferentiableSearch(mixed.clone(), optimizer, OPTIMIZER),
    ):
        assert make(OPTIMIZER) == make(OPTIMIZER)
        assert hash(make(OPTIMIZER)) == hash(make(OPTIMIZER))
        assert make(OPTIMIZER) != make(optax.adam(0.01))


@pytest.mark.parametrize(
    "function",
    [
        training,
        training.train,
        training.train_step,
        training.evaluate,
        eq.Population,
        eq.DifferentiableSearch,
        eq.choose_strategy,
    ],
)
def test_it_is_said(function):
    words = " ".join(function.__doc__.split())
    assert "made anew" in words or "Make each once" in words
