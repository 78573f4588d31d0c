"""What is not finite, or no label, is seen everywhere; optimizers get all they ask."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st
from jax import random

import eqjax as eq
from eqjax import training
from eqjax.search.evolution import Evolution
from eqjax.search.loop import row
from eqjax.search.proposals import Proposal
from eqjax.search.selection import Score
from eqjax.training import Metrics
from eqjax.training.losses import measure

FLIP = eq.flip()
CLASSES = 3
SGD = optax.sgd(0.1)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4, 1)).astype(np.float32)
Y = np.array([0, 1, 2, 0, 1, 2])


class Line(nn.Module):
    """A network on a line that costs next to nothing to compile."""

    group: eq.Group = FLIP
    constraint: eq.Constraint = eq.Tied()

    @nn.compact
    def __call__(self, x, *, train=False):
        del train
        kind = {"group": self.group, "constraint": self.constraint}
        x = nn.relu(eq.LiftingConv(2, 3, **kind)(x))
        return eq.InvariantHead(CLASSES, **kind)(x)


MODEL = Line()
MIXED = Line(constraint=eq.Mixture((FLIP, FLIP.smallest)))


@functools.cache
def population(optimizer=SGD):
    inputs = jax.ShapeDtypeStruct(X.shape, jnp.float32)
    return eq.Population(MODEL, optimizer, inputs, eq.Strategy(steps_per_call=2))


def start(optimizer=SGD):
    return training.init_state(random.key(0), MODEL, optimizer, X)


# --- what is not finite -------------------------------------------------------------

DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64]
BAD = [np.nan, np.inf, -np.inf]


@settings(max_examples=25)
@given(
    st.sampled_from(DTYPES),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.sampled_from(BAD))),
    st.integers(0, 9),
)
def test_samples_whose_logits_are_not_finite_have_no_finite_metrics(dtype, bad, seed):
    logits = np.random.default_rng(seed).normal(size=(6, CLASSES))
    for sample, label, value in bad:
        logits[sample, label] = value
    given_logits = jnp.asarray(logits, dtype)
    found = measure(training.cross_entropy, given_logits, Y)
    finite = np.isfinite(logits).all(-1)
    exact = np.asarray(given_logits.astype(jnp.float64))[finite]
    y = Y[finite]
    losses = np.log(np.exp(exact).sum(-1)) - exact[np.arange(len(y)), y]
    for values in found:
        assert values.dtype == jnp.promote_types(dtype, jnp.float32)
        assert np.array_equal(np.isfinite(values), finite)
    np.testing.assert_allclose(found.loss[finite], losses, rtol=1e-5)
    np.testing.assert_array_equal(found.error[finite], exact.argmax(-1) != y)


@pytest.mark.parametrize("bad", BAD)
def test_loss_and_error_of_any_loss_agree_on_what_is_finite(bad):
    values = jnp.array([0.5, bad, 1.0])
    for pair in (Metrics(values, jnp.ones(3)), Metrics(jnp.ones(3, bool), values)):
        found = measure(lambda outputs, y, pair=pair: pair, None, jnp.zeros(3))
        for metric in found:
            assert np.isfinite(metric).tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_means_of_short_numbers_are_long(dtype):
    values = [jnp.asarray(v, dtype) for v in RNG.uniform(400, 600, size=300)]
    found = training.mean_metrics([Metrics(v, v) for v in values])
    expected = np.mean([np.float64(v) for v in values])
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="at least one, got none"):
        training.mean_metrics([])


@pytest.mark.parametrize("bad", BAD)
def test_a_network_that_is_not_finite_diverged_wherever_it_is_measured(bad):
    state = start()
    params = jax.tree.map(lambda v: v, state.params)
    params["InvariantHead_0"]["bias"] = jnp.full((1, CLASSES), bad)
    lost = state._replace(params=params)
    stacked = population().load([lost], [MODEL])
    _, fitted = training.train(lost, [(X, Y)], model=MODEL, optimizer=SGD)
    measured = training.evaluate(lost.variables, X, Y, model=MODEL)
    of_stack = population().evaluate(stacked, X, Y)
    _, fitted_stack = population().train(stacked, [(X, Y)] * 3)
    for found in (fitted, measured, of_stack.of(0), fitted_stack.of(0)):
        assert not np.isfinite(found.loss)
        assert not np.isfinite(found.error)
    evolution = Evolution(2)
    proposal = Proposal(eq.Architecture.uniform(FLIP, 2), 0)
    record = row(proposal, lost, fitted, measured)
    good = Score(0.5, 1)
    score = Score(record["validation_error"], record["parameters"])
    search, kept = evolution.tell(
        evolution.init(proposal.architecture),
        [proposal] * 2,
        [score, good],
        random.key(0),
    )
    assert (search.diverged, kept, search.scores) == (1, (1,), (good,))


# --- labels and samples -------------------------------------------------------------


def trained(x, y):
    training.train(start(), [(X, Y), (x, y)], model=MODEL, optimizer=SGD)


def evaluated(x, y):
    training.evaluate(start().variables, x, y, model=MODEL, batch_size=4)


def searched(x, y, mixture_batch=(X, Y)):
    search = eq.DifferentiableSearch(MIXED, SGD, SGD)
    search.run(search.init(random.key(0), X), [(x, y)], [mixture_batch])


def stepped(x, y):
    training.train_step(start(), jnp.asarray(x), y, model=MODEL, optimizer=SGD)


ENTRIES = {
    "train": trained,
    "train_step": stepped,
    "evaluate": evaluated,
    "Population.train": lambda x, y: population().train(
        population().load([start()], [MODEL]), [(X, Y), (x, y)]
    ),
    "Population.evaluate": lambda x, y: population().evaluate(
        population().load([start()], [MODEL]), x, y
    ),
    "search": searched,
    "mixture": lambda x, y: searched(X, Y, (x, y)),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_labels_are_class_numbers(entry):
    for label in (-1, CLASSES, 255):
        wrong = np.where(np.arange(6) == 4, label, Y)
        with pytest.raises(ValueError, match=rf"label {label} of sample 4 .* 0\.\.2"):
            entry(X, wrong)
    for y, message in [
        (Y.astype(np.float32), "integer dtype, got float32"),
        (Y == 1, "integer dtype, got bool"),
        (np.eye(CLASSES, dtype=int)[Y], "one label for each of 6 samples"),
    ]:
        with pytest.raises(ValueError, match=message):
            entry(X, y)


@pytest.mark.parametrize("entry", [v for k, v in ENTRIES.items() if k != "train_step"])
def test_samples_are_as_many_as_labels_and_real_numbers(entry):
    with pytest.raises(ValueError, match="as many x as y, got 6 and 5"):
        entry(X, Y[1:])
    with pytest.raises(ValueError, match="at least one sample .* got 0 and 0"):
        entry(X[:0], Y[:0])
    with pytest.raises(ValueError, match="images must be floating, got uint8"):
        entry(X.astype(np.uint8), Y)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint16])
def test_labels_of_every_integer_dtype_are_taken(dtype):
    found = training.evaluate(start().variables, X, Y.astype(dtype), model=MODEL)
    assert found == training.evaluate(start().variables, X, Y, model=MODEL)


def test_sizes_that_leave_nothing():
    split = training.Split(X, Y)
    for size, steps in ((0, 1), (-1, 1), (2, -1)):
        with pytest.raises(ValueError, match=r"size >= 1 and steps >= 0, got"):
            next(training.batches(split, size, steps, RNG))
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size must be .* got {size}"):
            training.evaluate(start().variables, X, Y, model=MODEL, batch_size=size)
        stack = population().load([start()], [MODEL])
        with pytest.raises(ValueError, match=f"batch_size must be .* got {size}"):
            population().evaluate(stack, X, Y, batch_size=size)


# --- what optimizers ask for --------------------------------------------------------

ASKING = {
    "plateau": optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau()),
    "lbfgs": optax.lbfgs(),
    "backtracking": optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)
    ),
    "polyak": optax.polyak_sgd(),
    "momo": optax.contrib.momo(),
    "sophia": optax.contrib.sophia(0.1),
    "sam": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01), opaque_mode=True),
}


@pytest.mark.parametrize("name", ASKING)
def test_optimizers_get_what_they_ask_for(name):
    optimizer = ASKING[name]
    state, metrics = training.train(
        start(optimizer), [(X, Y)] * 4, model=MODEL, optimizer=optimizer
    )
    after = training.evaluate(state.variables, X, Y, model=MODEL)
    before = training.evaluate(start().variables, X, Y, model=MODEL)
    assert after.loss < before.loss
    assert np.isfinite(metrics.loss)


@pytest.mark.parametrize("name", ["plateau", "backtracking", "polyak"])
def test_members_and_mixtures_pass_it_on_too(name):
    optimizer = ASKING[name]
    stack = population(optimizer).load([start(optimizer)], [MODEL])
    stack, _ = population(optimizer).train(stack, [(X, Y)] * 3)
    (member,) = population(optimizer).unload(stack, [MODEL])
    alone, _ = training.train(
        start(optimizer), [(X, Y)] * 3, model=MODEL, optimizer=optimizer
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        member.params,
        alone.params,
    )
    search = eq.DifferentiableSearch(MIXED, optimizer, optimizer)
    state, _, _ = search.run(search.init(random.key(0), X), [(X, Y)] * 2, [(X, Y)] * 2)
    assert np.isfinite(training.evaluate(state.weights.variables, X, Y, model=MIXED)[0])


def test_populations_of_nothing():
    make = functools.partial(eq.Population, MODEL, SGD)
    with pytest.raises(ValueError, match="at least one sample, got inputs of none"):
        make(jax.ShapeDtypeStruct((0, 4, 1), jnp.float32))
    with pytest.raises(ValueError, match="images must be floating, got uint8"):
        make(jax.ShapeDtypeStruct((6, 4, 1), jnp.uint8))
    with pytest.raises(ValueError, match="members must be at least 1, got 0"):
        eq.choose_strategy(MODEL, SGD, population().inputs, 0)
