"""Learned sharing: what its matrices are, and that it finds the truth."""

import ast
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from benchmarks import sharing as toys
from eqjax import kernels
from eqjax.constraints.sharing import clusters
from eqjax.kernels import kernel_table
from eqjax.search import Tasks
from eqjax.training import mean_squared_error

D4 = eq.dihedral(4)
FIELDS = (3, 3), eq.trivial(D4), eq.regular(D4)
ENTRIES = 72
ROOT = Path(__file__).parents[2]
STOCHASTIC = ("stochastic", "doubly stochastic")


def table(name):
    return kernel_table(D4.subgroup(name), *FIELDS)


@pytest.mark.parametrize("name", ["D4", "C4", "D1:i", "C1"])
@pytest.mark.parametrize("matrix", [*STOCHASTIC, "free"])
def test_untrained_it_is_the_average_over_the_orbits(matrix, name):
    kind = eq.LearnedSharing(matrix, spread=1e-6)
    shared = kind.sharing(jnp.zeros((ENTRIES, ENTRIES)), table(name))
    full = jax.random.normal(jax.random.key(0), (3, 3, 1, 8, 2, 1))
    found = (shared @ full.reshape(ENTRIES, -1)).reshape(full.shape)
    expected = kernels.reynolds(full, table(name))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    labels = kind.assignment(jnp.zeros((ENTRIES, ENTRIES)), table(name))
    assert eq.partition_distance(labels, table(name).index) == 0


@pytest.mark.parametrize("matrix", STOCHASTIC)
def test_rows_and_columns_add_up(matrix):
    kind = eq.LearnedSharing(matrix)
    added = jax.random.normal(jax.random.key(0), (ENTRIES, ENTRIES))
    shared = kind.sharing(added, table("C4"))
    assert np.all(shared >= 0)
    np.testing.assert_allclose(shared.sum(1), 1, rtol=1e-5)
    even = np.abs(shared.sum(0) - 1).max()
    assert even < 0.01 if matrix == "doubly stochastic" else even > 0.1


def test_hard_sharing_is_what_the_rows_choose():
    kind = eq.LearnedSharing()
    added = 3 * jax.random.normal(jax.random.key(0), (ENTRIES, ENTRIES))
    labels = np.argmax(kind.sharing(added, table("C4")), -1)
    hard = dataclasses.replace(kind, hard=True)
    x = jax.random.normal(jax.random.key(1), (2, 6, 6, 1))
    layer = eq.LiftingConv(2, 3, group=D4.subgroup("C4"), constraint=hard)
    variables = layer.init(jax.random.key(2), x)
    params = {**variables["params"], "kernel_sharing": added}
    flat = {("params", name): value for name, value in params.items()}
    kernel = np.asarray(layer.read(flat)["kernel"]).reshape(ENTRIES, -1)
    for label in np.unique(labels):
        assert len(np.unique(kernel[labels == label], axis=0)) == 1
    assert len(np.unique(kernel, axis=0)) == len(np.unique(labels))


def test_the_penalties_are_those_of_the_paper():
    kind = eq.LearnedSharing(trace=0.3, entropy=0.2, spread=0.5)
    layer = eq.LiftingConv(
        1, 3, group=D4.subgroup("C4"), use_bias=False, constraint=kind
    )
    x = jnp.ones((1, 6, 6, 1))
    variables = layer.init(jax.random.key(0), x)
    added = jax.random.normal(jax.random.key(1), (ENTRIES, ENTRIES))
    variables["params"]["kernel_sharing"] = added
    _, written = layer.apply(variables, x, mutable=["penalties"])
    s = np.asarray(kind.sharing(added, table("C4")), float)
    used = np.sqrt((s**2).sum(0)).sum() / ENTRIES
    entropy = -(s * np.log(s)).sum(1).mean()
    expected = 0.3 * used + 0.2 * entropy
    np.testing.assert_allclose(written["penalties"]["prior"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: eq.LearnedSharing("soft"), "'stochastic', 'doubly stochastic'"),
        (lambda: eq.LearnedSharing(spread=0.0), "spread must be in"),
        (lambda: eq.LearnedSharing(own=1.0), "own must be in"),
        (lambda: eq.LearnedSharing(trace=-1.0), "trace must be at least 0"),
        (lambda: eq.LearnedSharing("free", entropy=0.1), "not of free ones"),
        (lambda: eq.LearnedSharing("free", hard=True), "chooses nothing"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_matrix_that_does_not_fit():
    layer = eq.GroupConv(1, 13, group=D4, constraint=eq.LearnedSharing())
    with pytest.raises(ValueError, match="10,816 entries does not fit"):
        jax.eval_shape(layer.init, jax.random.key(0), jnp.ones((1, 14, 14, 8, 1)))


def test_partition_distance_by_trying_all_matches():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(3, size=(2, 8))
        orders = np.array(np.meshgrid(*[range(3)] * 3)).reshape(3, -1).T
        one_to_one = [o for o in orders if len(set(o)) == 3]
        most = max(np.sum(o[a] == b) for o in one_to_one)
        assert eq.partition_distance(a, b) == 8 - most
    with pytest.raises(ValueError, match="as many elements, got 2 and 3"):
        eq.partition_distance([0, 1], [0, 1, 2])


def test_rows_of_zeros_and_single_rows_have_a_cluster():
    assert clusters(np.zeros((1, 3))).tolist() == [0]
    assert len(clusters(np.zeros((3, 3)))) == 3


@pytest.mark.parametrize("matrix", [*STOCHASTIC, "free"])
def test_discretizes_to_the_group_of_the_nearest_orbits(matrix):
    kind = eq.LearnedSharing(matrix, spread=0.5)
    groups = eq.Architecture.uniform(D4, 2)
    model = eq.exact(
        groups, features=(2,), pool_after=(), kernel_size=3, constraint=kind, classes=2
    )
    x = jnp.ones((2, 8, 8, 1))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    goal = table("C4")
    index = goal.index.reshape(-1)
    shared = (index[:, None] == index) / goal.size[index]
    start = kind.sharing(jnp.zeros((ENTRIES, ENTRIES)), table("D4"))
    added = shared - start if matrix == "free" else jnp.log(shared + 1e-9)
    variables["params"]["conv1"]["kernel_sharing"] = jnp.asarray(added, jnp.float32)
    found = eq.sharing_distances(variables, model=model, inputs=x)
    assert found["conv1",]["C4"] == 0
    assert found["conv1",]["D4"] > 0
    _, plain, _ = eq.discretize(variables, model=model, inputs=x)
    assert str(plain.architecture) == "C4 D4"


def test_distances_of_stacked_layers_add_up():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            kind = eq.LearnedSharing(apart=True)
            conv = eq.GroupConv(2, 3, group=D4, constraint=kind, name="conv")
            return conv(x), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            kept = {"params": 0, "mixture": 0}
            split = {"params": True}
            scan = nn.scan(Layer, variable_axes=kept, split_rngs=split, length=3)
            return scan(name="layers")(x, None)[0]

    x = jnp.ones((1, 4, 4, 8, 2))
    variables = Stack().init(jax.random.key(0), x)
    found = eq.sharing_distances(variables, model=Stack(), inputs=x)
    assert found["layers", "conv"]["D4"] == 0
    alone = 9 * 64 - len(kernel_table(D4, (3, 3), eq.regular(D4), eq.regular(D4)).size)
    assert found["layers", "conv"]["C1"] == 3 * alone


def test_hypergradients_are_those_of_the_solved_problem():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 4))
    y, z = rng.normal(size=(2, 6))

    def train_loss(w, scale):
        return jnp.sum((a @ (scale * w) - y) ** 2) + 0.1 * jnp.sum(w**2)

    def validation_loss(w, scale):
        return jnp.sum((b @ (scale * w) - z) ** 2)

    def solved(scale):
        moved = a * scale
        return jnp.linalg.solve(moved.T @ moved + 0.1 * jnp.eye(4), moved.T @ y)

    scale = jnp.asarray(rng.uniform(0.5, 1.5, size=4))
    expected = jax.grad(lambda s: validation_loss(solved(s), s))(scale)
    kind = eq.training.hypergradient
    found = kind(train_loss, validation_loss, solved(scale), scale, steps=10)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="damping at least 0"):
        kind(train_loss, validation_loss, solved(scale), scale, damping=-1.0)


def test_the_search_takes_the_hypergradient():
    x = jax.random.normal(jax.random.key(0), (4, 5, 5, 1))
    model = toys.Bank(2, toys.KIND)
    settings = {"loss_fn": mean_squared_error, "implicit_steps": 5, "damping": 0.1}
    search = eq.DifferentiableSearch(model, optax.sgd(0.1), optax.sgd(1.0), **settings)
    state = search.init(jax.random.key(1), x)
    y = jax.random.normal(
        jax.random.key(2), model.apply(state.weights.variables, x).shape
    )
    after, _ = search.step(state, (x, y), (x[::-1], y))
    first_order = dataclasses.replace(search, implicit_steps=0)
    other, _ = first_order.step(state, (x, y), (x[::-1], y))

    def loss(params, mixture, x, y):
        variables = {"params": params, "mixture": mixture}
        return eq.training.training_loss(
            variables, x, y, model=model, rngs={}, loss_fn=mean_squared_error
        )[0]

    slope = eq.training.hypergradient(
        lambda w, m: loss(w, m, x, y),
        lambda w, m: loss(w, m, x[::-1], y),
        after.weights.params,
        state.mixture,
        steps=5,
        damping=0.1,
    )
    moved = jax.tree.map(lambda m, g: m - g, state.mixture, slope)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
        after.mixture,
        moved,
    )
    gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.mixture, other.mixture)
    assert max(jax.tree.leaves(gap)) > 0
    with pytest.raises(ValueError, match="one of unrolled_step and implicit_steps"):
        dataclasses.replace(search, unrolled_step=0.1)


def measured(expression):
    """What the benchmark finds, in its own precision and with optimized programs."""
    names = ("XLA_FLAGS", "JAX_ENABLE_X64")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    code = f"from benchmarks import sharing; print({expression})"
    command = [sys.executable, "-c", code]
    run = {"env": environment, "cwd": ROOT, "check": True, "text": True}
    return ast.literal_eval(subprocess.run(command, capture_output=True, **run).stdout)


@pytest.mark.slow
def test_it_finds_the_orbits_of_the_truth():
    learned, merged = measured('sharing.orbits(sharing.D4.subgroup("C4"), 0, 1500)')
    assert learned < 20  # of 54 where nothing is shared
    assert merged == 0


@pytest.mark.slow
def test_many_tasks_find_the_orbits_of_their_truth():
    assert measured('sharing.meta(sharing.D4.subgroup("C4"), 0, 600)') == 0


def test_a_meta_step_is_that_of_the_paper():
    kind = eq.LearnedSharing("free", own=0.0, apart=True)
    model = toys.Bank(1, kind)
    x = jax.random.normal(jax.random.key(0), (3, 4, 5, 5, 1))
    y = jax.random.normal(jax.random.key(1), (3, 4, 5, 5, 8, 1))
    tasks = Tasks((x[:, :1], y[:, :1]), (x[:, 1:], y[:, 1:]))
    search = eq.MetaLearning(
        model, optax.sgd(1.0), rate=0.2, loss_fn=mean_squared_error
    )
    state = search.init(jax.random.key(2), x[0])

    def loss_of(params, mixture, x, y):
        out = model.apply({"params": params, "mixture": mixture}, x)
        return jnp.mean((out - y) ** 2)

    def outer(shared):
        total = 0.0
        for i in range(3):
            slope = jax.grad(loss_of)(
                shared["params"], shared["mixture"], x[i, :1], y[i, :1]
            )
            step = jax.tree.map(
                lambda w, r, g: w - r * g, shared["params"], shared["rates"], slope
            )
            total += loss_of(step, shared["mixture"], x[i, 1:], y[i, 1:]) / 3
        return total

    value, slope = jax.value_and_grad(outer)(state.shared)
    after, metrics = search.step(state, tasks)
    assert metrics.loss == pytest.approx(float(value), rel=1e-5)
    expected = jax.tree.map(lambda w, g: w - g, state.shared, slope)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        after.shared,
        expected,
    )


def test_meta_learning_needs_something_to_share():
    model = eq.exact(eq.Architecture.uniform(D4, 2), features=(2,), pool_after=())
    search = eq.MetaLearning(model, optax.sgd(0.1))
    with pytest.raises(ValueError, match="nothing that tasks could share"):
        search.init(jax.random.key(0), jnp.ones((2, 8, 8, 1)))
    with pytest.raises(ValueError, match="own_steps at least 1"):
        eq.MetaLearning(model, optax.sgd(0.1), own_steps=0)
