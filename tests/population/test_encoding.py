"""The encoded form is the compact one: layers, training, relaxation, optimizers."""

from functools import cache, partial

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import kernels, training
from eqjax.analysis.compilations import count_compilations
from eqjax.population import encoding
from tests.catalogue import D4, LINE, PLANE, program, volume
from tests.tolerances import DOUBLE

X = jax.ShapeDtypeStruct((4, 6, 6, 1), jnp.float64)
OPTIMIZERS = {
    "adam": optax.adam(0.01, eps=1e-3),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "compensated": optax.chain(optax.sgd(0.1), eq.compensated_steps()),
}
ARCHITECTURES = ["D4 D4 D4", "C4 D4 C2", "D4 D1:i-j C1"]


@cache
def network(names, parametrization="tied"):
    return eq.exact(
        eq.Architecture.parse(D4, names),
        features=(1, 2),
        kernel_size=3,
        pool_after=(1,),
        head_features=3,
        classes=3,
        parametrization=parametrization,
        dtype=jnp.float64,
    )


def double(tree):
    """Work in the precision of the laws."""
    return jax.tree.map(
        lambda v: v.astype(
            jnp.promote_types(v.dtype, "f8") if v.dtype.kind == "f" else v.dtype
        ),
        tree,
    )


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=X.shape), rng.integers(3, size=len(X.shape))


@cache
def programs(optimizer, parametrization):
    """One jitted step and relaxation for all groups."""
    model = network(ARCHITECTURES[0], parametrization)
    step = partial(training.train_step, model=model, optimizer=OPTIMIZERS[optimizer])
    relax = partial(encoding.relax, model=model, inputs=X)
    return jax.jit(step), jax.jit(relax)


@cache
def trained(names, optimizer="adam", parametrization="tied"):
    """The compact state after some steps with static tables."""
    model = network(names, parametrization)
    state = training.init_state(
        jax.random.key(0), model, OPTIMIZERS[optimizer], jnp.zeros(X.shape)
    )
    state = double(state)
    state, _ = training.train(
        state, [batch(), batch(1)], model=model, optimizer=OPTIMIZERS[optimizer]
    )
    return state


def assert_same(a, b, exactly=True):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if exactly:
            np.testing.assert_array_equal(u, v)
        else:
            np.testing.assert_allclose(u, v, rtol=DOUBLE, atol=DOUBLE)


CASES = {f"plane, {name}": case for name, case in PLANE.items()}
CASES |= {f"line, {name}": case for name, case in LINE.items()}
CASES |= {f"volume, {name}": case for name, case in volume(eq.octahedral()).items()}


@pytest.mark.parametrize("name", CASES)
def test_a_layer_reads_its_group_from_the_orbits(name):
    """One jitted program, made with the ambient group, is the layer of any group.

    The laws of layers are tested by that program. What it does with the tables of a
    group are gathers, whatever the group; so a few groups are compared here with layers
    that have their group built in, and all of them are encoded without loss.
    """
    case = CASES[name]
    x = case.input()
    apply = program(case)
    apply.clear_cache()
    few = {case.ambient, case.ambient.covers[0], case.ambient.smallest}
    for H in (c[0] for c in case.ambient.conjugacy_classes):
        model, variables = case.make(H), case.variables(H)
        state = training.pack_state(variables, ())
        found = encoding.encode(state, model=model, inputs=x)
        assert_same(encoding.decode(found, model=model, inputs=x), state)
        y, _ = apply(found.variables, x)
        if H in few:
            static = jax.jit(partial(model.apply, mutable=["batch_stats"]))
            expected, _ = static(variables, x)
            np.testing.assert_allclose(y, expected, rtol=DOUBLE, atol=DOUBLE)
    assert apply._cache_size() == 1


@pytest.mark.parametrize("names", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_encoding_loses_nothing(names, optimizer):
    state, model = trained(names, optimizer), network(names)
    encoded = encoding.encode(state, model=model, inputs=X)
    assert_same(encoding.decode(encoded, model=model, inputs=X), state)
    shapes = jax.tree.map(np.shape, encoded)
    other = ARCHITECTURES[0]
    again = encoding.encode(trained(other, optimizer), model=network(other), inputs=X)
    assert shapes == jax.tree.map(np.shape, again)


@pytest.mark.slow
@pytest.mark.parametrize("parametrization", ["tied", "orthonormal"])
def test_one_compiled_step_trains_every_architecture(parametrization):
    step, _ = programs("adam", parametrization)
    step.clear_cache()
    for names in ARCHITECTURES:
        model = network(names, parametrization)
        state = trained(names, parametrization=parametrization)
        encoded = encoding.encode(state, model=model, inputs=X)
        for seed in (5, 6):
            with count_compilations() as compiled:
                encoded, measured = step(encoded, *batch(seed))
            assert compiled.count == (names == ARCHITECTURES[0] and seed == 5)
            state, expected = training.train(
                state, [batch(seed)], model=model, optimizer=OPTIMIZERS["adam"]
            )
            assert_same(measured, expected, exactly=False)
        decoded = encoding.decode(encoded, model=model, inputs=X)
        assert_same(decoded, state, exactly=False)
        # Nothing ever reaches the padding.
        assert_same(encoding.encode(decoded, model=model, inputs=X), encoded)


def test_members_are_trained_together_by_vmap():
    step, _ = programs("adam", "tied")
    members = [
        encoding.encode(trained(names), model=network(names), inputs=X)
        for names in ARCHITECTURES
    ]
    stack = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    stack, _ = jax.jit(jax.vmap(step, (0, None, None)))(stack, *batch(3))
    for i, member in enumerate(members):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], stack)
        assert_same(one, step(member, *batch(3))[0], exactly=False)


@pytest.mark.parametrize(
    ("optimizer", "parametrization"),
    [("adam", "tied"), ("momentum", "orthonormal"), ("compensated", "tied")],
)
def test_relaxing_is_the_morphism(optimizer, parametrization):
    """Copied, relaxed, and constrained, all in one compiled program."""
    _, relax = programs(optimizer, parametrization)
    relax.clear_cache()
    D, C, mixed = ARCHITECTURES
    for before, after in [(D, D), (D, mixed), (C, mixed), (mixed, C)]:
        models = [network(names, parametrization) for names in (before, after)]
        source, target = models
        state = trained(before, optimizer, parametrization)
        encoded = encoding.encode(state, model=source, inputs=X)
        with count_compilations() as compiled:
            moved = relax(encoded, encoding.orbit_variables(target, X))
        assert compiled.count == (before == after)
        if before == after:
            assert_same(moved, encoded)
        sides = {"source": source, "target": target, "inputs": X}
        variables, opt_state = jax.jit(
            lambda state, sides=sides: (
                eq.morph(state.variables, **sides)[0],
                eq.morph_optimizer(state.opt_state, **sides),
            )
        )(state)
        expected = training.pack_state(variables, opt_state, state.step)
        decoded = encoding.decode(moved, model=target, inputs=X)
        bitwise = parametrization == "tied" and before == D
        assert_same(decoded.params, expected.params, exactly=bitwise)
        assert_same(decoded, expected, exactly=False)


@pytest.mark.parametrize("parametrization", ["tied", "orthonormal"])
def test_an_encoded_member_is_born_as_the_compact_one(parametrization):
    template = network(ARCHITECTURES[0], parametrization)
    born = jax.jit(
        partial(
            encoding.init,
            model=template,
            optimizer=OPTIMIZERS["adam"],
            inputs=jnp.zeros(X.shape),
        )
    )
    for names in ARCHITECTURES:
        model = network(names, parametrization)
        state = training.init_state(
            jax.random.key(7), model, OPTIMIZERS["adam"], jnp.zeros(X.shape)
        )
        orbits = encoding.orbit_variables(model, X)
        encoded = born(jax.random.key(7), orbits)
        expected = encoding.encode(state, model=model, inputs=X)
        for a, b in zip(
            jax.tree.leaves(encoded), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert born._cache_size() == 1


def test_a_group_from_data_is_obeyed():
    """The full kernel of an encoded layer is constant on the orbits of its tables."""
    layer = eq.GroupConv(2, 3, group=D4, param_dtype=jnp.float64)
    x = jnp.zeros((1, 4, 4, 8, 1))
    C4 = D4.subgroup("C4")
    orbits = encoding.orbit_variables(layer.clone(group=C4), x)
    state = encoding.init(
        jax.random.key(0), orbits, model=layer, optimizer=optax.sgd(0.1), inputs=x
    )
    table = layer.clone(group=C4).ties["kernel"].table
    kernel = state.params["kernel"]
    full = kernel[table.index]
    assert kernels.distance(full, table) == 0
    assert kernels.distance(full, layer.ties["kernel"].table) > 0.1
    assert np.all(kernel[table.num_orbits :] == 0)


class Repeated(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = eq.GroupConv(1, 3, group=D4, name="layer")
        scan = nn.scan(
            lambda m, x, _: (m(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        return scan(layer, x, None)[0]


class Shared(nn.Module):
    group: eq.Group = D4

    @nn.compact
    def __call__(self, x):
        lifted = nn.vmap(
            eq.LiftingConv, variable_axes={"params": None}, split_rngs={"params": False}
        )
        return lifted(1, 3, group=self.group, name="layer")(x)


def test_lifted_layers_must_see_their_orbits():
    x = jax.ShapeDtypeStruct((2, 1, 4, 4, 1), jnp.float64)
    encoding.check_encodable(network(ARCHITECTURES[0]), X)
    for group in (D4, D4.subgroups[-1]):
        with pytest.raises(
            ValueError, match="layer/kernel does not see|take its groups"
        ):
            encoding.check_encodable(Shared(group), x)


class Sowing(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        x = eq.LiftingConv(1, 3, group=D4)(x)
        self.sow("intermediates", "field", x)
        x = eq.BatchNorm(group=D4)(x, not train)
        return eq.InvariantHead(3, group=D4)(x)


def test_members_are_born_as_by_init():
    """Nothing sown is kept, and statistics do not start from the dummy input."""
    x = jnp.ones(X.shape)
    orbits = encoding.orbit_variables(Sowing(), x)
    kind = {"model": Sowing(), "optimizer": OPTIMIZERS["adam"], "inputs": x}
    state = encoding.init(
        jax.random.key(0), orbits, call_kwargs={"train": True}, **kind
    )
    assert set(state.collections) == {"batch_stats", "orbits"}
    for leaf in jax.tree.leaves(state.collections["batch_stats"]):
        assert set(np.ravel(leaf)) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("optimizer", "frozen"),
    [
        (optax.adam(0.1), True),
        (optax.inject_hyperparams(optax.adam)(learning_rate=0.1), False),
        (
            optax.multi_transform(
                {"a": optax.adam(0.1), "b": optax.sgd(0.1)},
                lambda params: {k: "a" if "conv" in k else "b" for k in params},
            ),
            False,
        ),
        (
            optax.masked(
                optax.adam(0.1), lambda params: {k: "conv" in k for k in params}
            ),
            False,
        ),
    ],
    ids=["frozen", "injected", "by part", "masked"],
)
def test_composed_optimizers_and_frozen_variables(optimizer, frozen):
    model, target = network(ARCHITECTURES[0]), network(ARCHITECTURES[2])
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros(X.shape))
    if frozen:
        variables = flax.core.freeze(variables)
    state = training.pack_state(variables, optimizer.init(variables["params"]))
    encoded = encoding.encode(state, model=model, inputs=X)
    decoded = encoding.decode(encoded, model=model, inputs=X)
    for a, b in zip(jax.tree.leaves(decoded), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    orbits = encoding.orbit_variables(target, X)
    relaxed = encoding.relax(encoded, orbits, model=model, inputs=X)
    encoding.decode(relaxed, model=target, inputs=X)


def test_bad_input():
    model, state = network(ARCHITECTURES[0]), trained(ARCHITECTURES[0])
    other = network(ARCHITECTURES[1])
    with pytest.raises(ValueError, match="conv1/kernel has shape .* expected"):
        encoding.encode(state, model=other, inputs=X)
    encoded = encoding.encode(state, model=model, inputs=X)
    with pytest.raises(ValueError, match=r"not tied along the orbits of Group\(C4"):
        encoding.decode(encoded, model=other, inputs=X)
    fewer = {k: v for k, v in state.params.items() if k != "logits"}
    with pytest.raises(ValueError, match="state has no parameter logits"):
        encoding.encode(state._replace(params=fewer), model=model, inputs=X)
    factored = state._replace(opt_state=optax.adafactor(0.1).init(state.params))
    with pytest.raises(ValueError, match=r"v_row.* has shape \(1,\), expected"):
        encoding.encode(factored, model=model, inputs=X)
    with pytest.raises(ValueError, match=r"stacked by nn\.scan"):
        encoding.orbit_variables(Repeated(), jnp.zeros((1, 4, 4, 8, 1)))
