"""A member's result does not depend on strategy, company, devices or stack."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import training
from eqjax.analysis.compilations import count_compilations
from eqjax.population.devices import Strategy, device_mesh
from eqjax.population.memory import choose_strategy
from eqjax.population.stack import Population
from tests.catalogue import D4

X = jax.ShapeDtypeStruct((8, 6, 6, 1), jnp.float64)
ADAM = optax.adam(0.01, eps=1e-3)
SAME = 1e-8  # of float64 results after some steps of Adam, summed in another order


@cache
def network(names):
    return eq.exact(
        eq.Architecture.parse(D4, names),
        features=(1, 1),
        kernel_size=3,
        pool_after=(1,),
        head_features=3,
        classes=3,
        dtype=jnp.float64,
    )


SOURCES = [network(names) for names in ("D4 D4 D4", "D4 D4 D2", "D4 C4 C4")]
TARGETS = [network(names) for names in ("D4 D4 C4", "D4 D4 D2", "D4 C4 C1")]


@cache
def parents():
    members = []
    for i, model in enumerate(SOURCES):
        state = training.init_state(jax.random.key(i), model, ADAM, jnp.zeros(X.shape))
        members.append(
            jax.tree.map(
                lambda v: v.astype("f8") if v.dtype == jnp.float32 else v, state
            )
        )
    return members


@cache
def data(samples=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, *X.shape[1:])), rng.integers(3, size=samples)


def batches(steps=5):
    return [data(seed=s) for s in range(steps)]


def generation(strategy, members, sources, targets, template=SOURCES[0]):
    """Relax, train and evaluate; return trained members and metrics of each."""
    population = Population(template, ADAM, X, strategy)
    trained, rows = [], []
    for part in population.split(len(members)):
        stack = population.load(members[part], sources[part])
        stack = population.relax(stack, targets[part])
        stack, fitted = population.train(stack, batches())
        measured = population.evaluate(stack, *data(21, seed=9), batch_size=8)
        trained += population.unload(stack, targets[part])
        rows += list(zip(*fitted, *measured, strict=True))[: len(targets[part])]
    return trained, np.array(rows)


@cache
def expected():
    """Each member alone, compact, with static groups."""
    trained, rows = [], []
    for member, source, target in zip(parents(), SOURCES, TARGETS, strict=True):
        sides = {"source": source, "target": target, "inputs": X}
        variables, opt_state = jax.jit(
            lambda member, sides=sides: (
                eq.morph(member.variables, **sides)[0],
                eq.morph_optimizer(member.opt_state, **sides),
            )
        )(member)
        state = training.pack_state(variables, opt_state, member.step)
        state, fitted = training.train(state, batches(), model=target, optimizer=ADAM)
        measured = training.evaluate(state.variables, *data(21, seed=9), model=target)
        trained.append(state)
        rows.append([*fitted, *measured])
    return trained, np.array(rows)


def assert_close(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=SAME, atol=SAME)


def strategies():
    devices = jax.devices("cpu")
    return {
        "one after another": Strategy(),
        "one in a loop of steps": Strategy(steps_per_call=3),
        "two together": Strategy(width=2),
        "all together": Strategy(width=3),
        "all in a loop of steps": Strategy(width=3, steps_per_call=4),
        "padded": Strategy(width=5),
        "two devices": Strategy(mesh=device_mesh(devices[:2])),
        "four devices": Strategy(mesh=device_mesh(devices[:4])),
        "two devices, two each": Strategy(width=4, mesh=device_mesh(devices[:2])),
        "shared batches": Strategy(mesh=device_mesh(devices[:2], data=2)),
        "both axes": Strategy(steps_per_call=2, mesh=device_mesh(devices[:4], data=2)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", strategies())
def test_members_are_what_they_are_alone(name):
    strategy = strategies()[name]
    trained, rows = generation(strategy, parents(), SOURCES, TARGETS)
    assert_close((trained, rows), expected())


def test_nothing_is_compiled_for_new_architectures_and_sizes():
    """The first generation compiles everything, whatever comes after."""
    strategy = Strategy(width=2)
    generation(strategy, parents()[:1], SOURCES[:1], SOURCES[:1])
    trained = expected()[0]
    with count_compilations() as compiled:
        generation(strategy, parents(), SOURCES, TARGETS)
        generation(strategy, trained, TARGETS, [network("D2 D2 C1")] * 3)
    assert compiled.count == 0


def test_a_member_with_nan_does_not_touch_the_others():
    sick = jax.tree.map(lambda v: v * np.nan, parents()[1].params)
    members = [parents()[0], parents()[1]._replace(params=sick), parents()[2]]
    trained, rows = generation(Strategy(width=3), members, SOURCES, TARGETS)
    whole, reference = expected()
    assert np.isnan(rows[1][0])
    for i in (0, 2):
        assert_close((trained[i], rows[i]), (whole[i], reference[i]))


def test_a_born_stack_is_made_of_compact_members():
    population = Population(SOURCES[0], ADAM, X, Strategy(width=3))
    keys = jax.random.split(jax.random.key(3), 2)
    stack = population.init(keys, TARGETS[1:])
    members = population.unload(stack, TARGETS[1:])
    for key, model, member in zip(keys, TARGETS[1:], members, strict=True):
        state = training.init_state(key, model, ADAM, jnp.zeros(X.shape))
        for a, b in zip(jax.tree.leaves(member), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


class Dropping(nn.Module):
    group: eq.Group = D4

    @nn.compact
    def __call__(self, x, *, train=False):
        x = eq.LiftingConv(2, 3, group=self.group, dtype=jnp.float64)(x)
        x = eq.FieldDropout(0.5)(x, deterministic=not train)
        return eq.InvariantHead(3, group=self.group, dtype=jnp.float64)(x)


class Precise(Dropping):
    """Its convolution has no form made of matrix products."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = eq.LiftingConv(2, 3, group=self.group, precision="highest")(x)
        return eq.InvariantHead(3, group=self.group)(x)


def test_moments_of_relaxed_layers_restart_where_asked():
    """The head goes from D4 to C4; other layers, and the count, keep what they had."""
    member, (source, target) = parents()[0], (SOURCES[0], TARGETS[0])
    member = member._replace(opt_state=jax.tree.map(jnp.ones_like, member.opt_state))
    population = Population(source, ADAM, X, restart=True)
    stack = population.relax(population.load([member], [source]), [target])
    (relaxed,) = population.unload(stack, [target])
    sides = {"source": source, "target": target, "inputs": X}
    variables, _ = eq.morph(member.variables, **sides)
    assert_close(relaxed.params, variables["params"])
    alone = eq.morph_optimizer(member.opt_state, **sides, restart=True)
    assert_close(relaxed.opt_state, alone)
    (adam, _) = alone
    assert adam.count == 1
    for moment in (adam.mu, adam.nu):
        for layer, values in moment.items():
            kept = 0 if layer == "head" else 1
            for name, value in values.items():
                expected = kept if name == "kernel" or layer != "head" else 1
                np.testing.assert_array_equal(
                    value, expected, err_msg=f"{layer}/{name}"
                )


def test_dropout_draws_the_same_in_every_company():
    models = [Dropping(), Dropping(D4.subgroup("C4"))]
    results = []
    for strategy in (Strategy(), Strategy(width=2, steps_per_call=2)):
        population = Population(models[0], ADAM, X, strategy)
        trained = []
        for part in population.split(2):
            keys = jax.random.split(jax.random.key(0), 2)[part]
            stack = population.init(keys, models[part])
            stack, _ = population.train(stack, batches(3), key=jax.random.key(5))
            trained += population.unload(stack, models[part])
        results.append(trained)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_the_strategy_fits_platform_devices_and_memory():
    choose = partial(choose_strategy, SOURCES[0], ADAM, X, members=10)
    assert choose(devices=jax.devices()[:1]) == Strategy(steps_per_call=8)
    precise = choose_strategy(Precise(), ADAM, X, 10, devices=jax.devices()[:1])
    assert precise == Strategy()
    halved = choose(devices=jax.devices()[:2], data=2)
    assert (halved.width, halved.steps_per_call) == (1, 1)
    spread = choose(devices=jax.devices()[:4])
    assert (spread.width, spread.mesh.shape["population"]) == (4, 4)
    roomy = choose(devices=jax.devices()[:1], memory=2**33)
    assert roomy.width == 10
    tight = choose(devices=jax.devices()[:1], memory=2_000_000)
    assert 1 <= tight.width < 10
    assert "at a time on 1 cpu device, 8 steps per call" in str(tight)
    with pytest.raises(ValueError, match=r"one member's training step needs .* bytes"):
        choose(devices=jax.devices()[:1], memory=1000)


def test_bad_input():
    population = Population(SOURCES[0], ADAM, X, Strategy(width=2))
    with pytest.raises(ValueError, match="a stack holds 1 to 2 members, got 3"):
        population.load(parents(), SOURCES)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        Strategy(width=0)
    with pytest.raises(ValueError, match="4 devices cannot be split by 3"):
        device_mesh(jax.devices()[:4], data=3)
    other = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    with pytest.raises(ValueError, match="a mesh needs the axes"):
        Strategy(mesh=other)
    stack = population.load(parents()[:2], SOURCES[:2])
    with pytest.raises(ValueError, match="at least one batch"):
        population.train(stack, [])
    with pytest.raises(ValueError, match="as many x as y"):
        population.evaluate(stack, data()[0], data()[1][:3])
    shared = Strategy(mesh=device_mesh(jax.devices()[:2], data=2))
    population = Population(SOURCES[0], ADAM, X, shared)
    stack = population.load(parents()[:1], SOURCES[:1])
    odd = [(x[:7], y[:7]) for x, y in batches(1)]
    with pytest.raises(ValueError, match=r"expected batches of shape \(8, 6, 6, 1\)"):
        population.train(stack, odd)
    with pytest.raises(ValueError, match="a batch of 7 .* nearest multiple is 8"):
        Population(SOURCES[0], ADAM, odd[0][0], shared)
    with pytest.raises(ValueError, match="a key per model, got 2 keys, 1 models"):
        population.init(jax.random.split(jax.random.key(0), 2), SOURCES[:1])
    with pytest.raises(ValueError, match="at least one device, got none"):
        device_mesh([])
    with pytest.raises(ValueError, match="expected"):
        population.load(parents()[1:2], SOURCES[:1])


@pytest.mark.parametrize("strategy", [Strategy(width=2), Strategy(mesh=device_mesh())])
def test_metrics_of_every_sample_are_those_that_the_means_are_over(strategy):
    population = Population(SOURCES[0], ADAM, X, strategy)
    stack = population.load(parents()[:2], SOURCES[:2])
    x, y = data(19)
    means = population.evaluate(stack, x, y)
    for batch_size in (None, 5):
        every = population.evaluate_samples(stack, x, y, batch_size)
        for values, mean in zip(every, means, strict=True):
            assert values.shape == (population.strategy.width, 19)
            np.testing.assert_allclose(values.mean(1)[:2], mean[:2], rtol=1e-6)
    for i, (member, model) in enumerate(zip(parents(), SOURCES[:2], strict=False)):
        losses = training.cross_entropy(model.apply(member.variables, x), y).loss
        np.testing.assert_allclose(every.loss[i], losses, rtol=1e-6)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        population.evaluate_samples(stack, x, y, 0)
