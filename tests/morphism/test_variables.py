"""Relaxing keeps the function; constraining projects; optimizers go on as before."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import kernels, training
from eqjax.fields.irreps import representations
from eqjax.population import encoding
from tests.catalogue import (
    D4,
    LINE,
    PLANE,
    full_arrays,
    member,
    orbits,
    program,
    relaxation,
    volume,
)
from tests.tolerances import BROKEN, DOUBLE, SINGLE

OH = eq.full_octahedral()
VOLUME = volume(OH)
CASES = {f"plane, {name}": case for name, case in PLANE.items()}
CASES |= {f"line, {name}": case for name, case in LINE.items()}


def pairs(G):
    """All (H, H') with H' <= H."""
    return [(H, K) for H in G.subgroups for K in H.subgroups]


def full(model, variables):
    """The full arrays of a single layer."""
    params = variables["params"]
    return {name: kernels.expand(params[name], tie) for name, tie in model.ties.items()}


def morph(variables, source, target, x):
    return eq.morph(variables, source=source, target=target, inputs=x)[0]


# --- one layer ----------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_relaxing_keeps_every_entry_and_the_output(name):
    case = CASES[name]
    x = case.input()
    for H in case.ambient.subgroups:
        start = member(case, H, case.variables(H))
        before, output = full_arrays(case, start), program(case)(start.variables, x)[0]
        for K in H.subgroups:
            relaxed = relaxation(case)(start, orbits(case, K))
            after = full_arrays(case, relaxed)
            for param, array in before.items():
                if "orthonormal" in name:
                    np.testing.assert_allclose(
                        after[param], array, rtol=DOUBLE, atol=DOUBLE
                    )
                else:
                    assert np.array_equal(after[param], array)
            y = program(case)(relaxed.variables, x)[0]
            np.testing.assert_allclose(y, output, rtol=DOUBLE, atol=DOUBLE)


@pytest.mark.parametrize("name", CASES)
def test_the_morphism_is_what_encoded_members_do(name):
    """With groups built in, one step down, all the way down, and up again."""
    case = CASES[name]
    x, G = case.input(), case.ambient
    for H, K in ((G, G.covers[0]), (G, G.smallest), (G.smallest, G)):
        variables = case.variables(H)
        sides = {"source": case.make(H), "target": case.make(K), "inputs": x}
        moved = jax.jit(lambda v, sides=sides: eq.morph(v, **sides)[0])(variables)
        encoded = relaxation(case)(member(case, H, variables), orbits(case, K))
        there = encoding.decode(encoded, model=case.make(K), inputs=x)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-13)
        jax.tree.map(close, moved, there.variables)


TWO_HOPS = ["plane, conv 3x3", "plane, conv orthonormal", "plane, batch norm"]


@pytest.mark.parametrize("name", [*TWO_HOPS, "line, conv dilated", "line, head"])
def test_two_hops_are_one(name):
    case = CASES[name]
    exact = 0 if "orthonormal" not in name else 1e-13
    close = functools.partial(np.testing.assert_allclose, rtol=exact)
    for H in case.ambient.subgroups:
        start = member(case, H, case.variables(H))
        for K, L in pairs(case.ambient):
            if K < H:
                hop = relaxation(case)(start, orbits(case, K))
                twice = relaxation(case)(hop, orbits(case, L))
                once = relaxation(case)(start, orbits(case, L))
                jax.tree.map(close, twice, once)


@pytest.mark.parametrize("name", CASES)
def test_constraining_projects_and_undoes_relaxing(name):
    case = CASES[name]
    for H, K in pairs(case.ambient):
        small = member(case, K, case.variables(K))
        original = full_arrays(case, small)
        projected = full_arrays(case, relaxation(case)(small, orbits(case, H)))
        for param, tie in case.make(H).ties.items():
            expected = reynolds(original[param], tie.table)
            np.testing.assert_allclose(
                projected[param], expected, rtol=DOUBLE, atol=1e-13
            )
        start = member(case, H, case.variables(H))
        there = relaxation(case)(start, orbits(case, K))
        back = relaxation(case)(there, orbits(case, H))
        close = functools.partial(np.testing.assert_allclose, rtol=1e-13)
        jax.tree.map(close, back, start)


def reynolds(full, table):
    """The Reynolds projection by numpy: the mean over each orbit, or over the group."""
    if not isinstance(table, kernels.SteeredTable):
        return orbit_means(full, table.index)
    group, (fiber_in, fiber_out) = table.group, table.fibers
    turns = representations(table.functions.irreps, group.ambient.matrices)
    mean = np.zeros_like(full)
    for u in group.elements:
        back = group.ambient.inverse[u]
        read = full[:, fiber_in.action[back]][:, :, fiber_out.action[back]]
        mean += np.tensordot(turns[u], read, 1) / group.order
    return mean


def orbit_means(full, index):
    """The mean over each orbit."""
    flat = full.reshape(index.size, -1)
    sums = np.zeros((index.max() + 1, flat.shape[1]))
    np.add.at(sums, index.reshape(-1), flat)
    means = sums / np.bincount(index.reshape(-1))[:, None]
    return means[index].reshape(full.shape)


@pytest.mark.parametrize("family", [c[0].name for c in OH.conjugacy_classes])
def test_the_cube_relaxes_through_the_morphism(family):
    case = VOLUME["conv 2x2x2"]
    x, variables = case.input(), case.variables(OH)
    source, target = case.make(OH), case.make(OH.subgroup(family))
    relaxed = morph(variables, source, target, x)
    for a, b in zip(
        jax.tree.leaves(full(source, variables)),
        jax.tree.leaves(full(target, relaxed)),
        strict=True,
    ):
        assert np.array_equal(a, b)


def test_changing_the_parametrization_keeps_the_function():
    case = PLANE["conv 3x3"]
    x = case.input()
    tied = case.make(D4)
    free = case.make(D4.subgroup("C2")).clone(parametrization="orthonormal")
    variables = case.variables(D4)
    moved = morph(variables, tied, free, x)
    y = tied.apply(variables, x)
    np.testing.assert_allclose(free.apply(moved, x), y, rtol=DOUBLE, atol=DOUBLE)


# --- optimizers ---------------------------------------------------------------------

# kind of step: does it grow with the gradient, or only follow its direction?
OPTIMIZERS = {
    "sgd": (optax.sgd(0.05), "gradient"),
    "momentum": (optax.sgd(0.05, momentum=0.9), "gradient"),
    "nesterov": (optax.sgd(0.05, momentum=0.9, nesterov=True), "gradient"),
    # Adam's epsilon is not scale free: set so small that it does not show at 1e-6.
    "adam": (optax.adam(0.05, eps=1e-14), "normalized"),
    "adamw": (optax.adamw(0.05, eps=1e-14, weight_decay=0.0), "normalized"),
    "amsgrad": (optax.amsgrad(0.05, eps=1e-14), "normalized"),
    "lion": (optax.lion(0.05, weight_decay=0.0), "normalized"),
    "rmsprop": (optax.rmsprop(0.05, eps=1e-14), "normalized"),
    "rmsprop with momentum": (
        optax.rmsprop(0.05, eps=1e-14, momentum=0.9),
        "normalized",
    ),
    "momentum of adam": (
        optax.chain(
            optax.scale_by_adam(eps=1e-14), optax.trace(0.9), optax.scale(-0.05)
        ),
        "normalized",
    ),
    "mean of adam": (
        optax.chain(optax.adam(0.05, eps=1e-14), optax.ema(0.9)),
        "normalized",
    ),
    "chain": (
        optax.chain(
            optax.clip(1e9),
            optax.scale_by_adam(eps=1e-14),
            optax.scale_by_schedule(lambda count: -0.05 / (1 + count)),
        ),
        "normalized",
    ),
}


def steps_of_full_kernel(kind, optimizer, source, target):
    """Kernel steps of a parent and of its child, after two common steps.

    The gradient of the loss by the full kernel has the parent's symmetry.
    """
    case = PLANE["conv 3x3 without bias"]
    x = case.input()
    parent = case.make(source).clone(parametrization=kind)
    child = case.make(target).clone(parametrization=kind)
    rng = np.random.default_rng(0)
    shape = (*parent.ties["kernel"].table.shape, 2, 3)
    goal = kernels.reynolds(
        jnp.asarray(rng.normal(size=shape)), parent.ties["kernel"].table
    )

    def step(model, params, state):
        def loss(params):
            return 0.5 * jnp.sum(
                (full(model, {"params": params})["kernel"] - goal) ** 2
            )

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        after = optax.apply_updates(params, updates)
        kernel = [full(model, {"params": p})["kernel"] for p in (params, after)]
        return after, state, np.asarray(kernel[1] - kernel[0])

    params = case.variables(source)["params"]
    state = optimizer.init(params)
    for _ in range(2):
        params, state, _ = step(parent, params, state)
    moved, report = eq.morph({"params": params}, source=parent, target=child, inputs=x)
    state_of_child = eq.morph_optimizer(state, source=parent, target=child, inputs=x)
    fresh = optimizer.init(moved["params"])
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, state_of_child)
    steps = (
        step(parent, params, state)[2],
        step(child, moved["params"], state_of_child)[2],
    )
    return *steps, report.layers[0]


@pytest.mark.parametrize("kind", kernels.PARAMETRIZATIONS)
@pytest.mark.filterwarnings("ignore:a link without state")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_step_of_a_relaxed_layer(name, kind):
    optimizer, grows_with = OPTIMIZERS[name]
    exact = (kind == "orthonormal") == (grows_with == "gradient")
    for source, target in [("D4", "C4"), ("D4", "C1"), ("D2:i+j", "D1:i-j")]:
        H, K = D4.subgroup(source), D4.subgroup(target)
        parent, child, change = steps_of_full_kernel(kind, optimizer, H, K)
        factor = getattr(change, f"{grows_with}_step")
        n = H.index(K)
        expected = 1 if exact else 1 / n if kind == "tied" else n**0.5
        np.testing.assert_allclose(factor, expected, rtol=SINGLE)
        # 1e-6: Adam's epsilon of 1e-14 beside gradients of order one, and below.
        np.testing.assert_allclose(child, expected * parent, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", kernels.PARAMETRIZATIONS)
@pytest.mark.parametrize(
    "name", ["sgd", "momentum", "adam", "lion", "rmsprop", "momentum of adam"]
)
def test_compensation_makes_every_pairing_exact(name, kind):
    optimizer = optax.chain(OPTIMIZERS[name][0], eq.compensated_steps())
    for target in ("C4", "D1:j", "C1"):
        K = D4.subgroup(target)
        parent, child, _ = steps_of_full_kernel(kind, optimizer, D4, K)
        np.testing.assert_allclose(child, parent, rtol=1e-6, atol=1e-9)


def test_compensation_accumulates_over_hops():
    make = functools.partial(eq.GroupConv, 1, 3, use_bias=False)
    models = [make(group=D4.subgroup(n)) for n in ("D4", "C4", "C1")]
    x = jnp.ones((1, 4, 4, 8, 1))
    optimizer = optax.chain(optax.sgd(0.1), eq.compensated_steps())
    state = optimizer.init(models[0].init(jax.random.key(0), x)["params"])
    for a, b in itertools.pairwise(models):
        state = eq.morph_optimizer(state, source=a, target=b, inputs=x)
    np.testing.assert_allclose(state[1].step_scale["kernel"], 8.0)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.partition(
            {"a": optax.adam(0.1), "b": optax.sgd(0.1, momentum=0.9)},
            {"kernel": "a", "bias": "b"},
        ),
        optax.masked(optax.adam(0.1), {"kernel": True, "bias": False}),
        optax.MultiSteps(optax.adam(0.1), 2),
        optax.inject_hyperparams(optax.adamw)(0.1),
        optax.adagrad(0.1),
        optax.lion(0.1),
        optax.apply_if_finite(optax.adam(0.1), 3),
    ],
    ids=["partition", "masked", "MultiSteps", "inject", "adagrad", "lion", "finite"],
)
def test_wrapped_optimizers_move(optimizer):
    source = eq.GroupConv(1, 3, group=D4)
    target = eq.GroupConv(1, 3, group=D4.subgroup("C2"))
    x = jnp.ones((1, 4, 4, 8, 1))
    params = jax.jit(source.init)(jax.random.key(0), x)["params"]
    gradient = jax.tree.map(jnp.ones_like, params)
    _, state = optimizer.update(gradient, optimizer.init(params), params)
    moved = eq.morph_optimizer(state, source=source, target=target, inputs=x)
    fresh = optimizer.init(jax.jit(target.init)(jax.random.key(0), x)["params"])
    assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, fresh)
    # A first moment is shared among the four new orbits, a second one among sixteen.
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(moved), strict=True
    ):
        name = jax.tree_util.keystr(path)
        if "kernel" in name:
            share = 16 if ".nu" in name or "sum_of_squares" in name else 4
            np.testing.assert_allclose(new[0] * share, old[0], rtol=SINGLE)


class Outer(nn.Module):
    """A layer, and one of the same name inside a submodule."""

    groups: tuple[eq.Group, eq.Group]

    @nn.compact
    def __call__(self, x):
        x = eq.GroupConv(1, 1, group=self.groups[0], name="conv")(x)
        return Inner(self.groups[1], name="inner")(x)


class Inner(nn.Module):
    group: eq.Group

    @nn.compact
    def __call__(self, x):
        return eq.GroupConv(1, 1, group=self.group, name="conv")(x)


def test_moments_follow_their_own_parameter():
    x = jnp.ones((1, 2, 2, 8, 1))
    source, target = Outer((D4, D4)), Outer((D4.subgroup("C2"), D4))
    optimizer = optax.adam(0.1)
    params = jax.jit(source.init)(jax.random.key(0), x)["params"]
    _, state = optimizer.update(params, optimizer.init(params))  # moments: the params
    moved = eq.morph_optimizer(state, source=source, target=target, inputs=x)
    fresh = optimizer.init(jax.jit(target.init)(jax.random.key(0), x)["params"])
    assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, fresh)
    before, after = state[0].mu, moved[0].mu
    inner = [tree["inner"]["conv"]["kernel"] for tree in (before, after)]
    assert np.array_equal(*inner)
    # A gradient is shared among the new orbits.
    sums = [tree["conv"]["kernel"].sum() for tree in (before, after)]
    np.testing.assert_allclose(*sums, rtol=SINGLE)


def test_an_optimizer_whose_state_has_no_known_meaning():
    source = eq.GroupConv(1, 3, group=D4)
    target = eq.GroupConv(1, 3, group=D4.subgroup("C2"))
    x = jnp.ones((1, 4, 4, 8, 1))
    params = jax.jit(source.init)(jax.random.key(0), x)["params"]
    state = optax.adadelta(0.1).init(params)
    with pytest.raises(ValueError, match=r"cannot carry .*e_g.*known meaning"):
        eq.morph_optimizer(state, source=source, target=target, inputs=x)


# --- whole networks -----------------------------------------------------------------

SIZES = {
    "features": (2, 2, 3),
    "kernel_size": 3,
    "pool_after": (2,),
    "head_features": 4,
    "classes": 3,
}
STAIRS = "C4 D2:i D1:i-j C1"


def digits_like(samples, dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 8, 8, 1)).astype(dtype)
    return jnp.asarray(x), jnp.asarray(rng.integers(3, size=samples))


@pytest.fixture(scope="module")
def trained():
    """A D4 network after some real steps, its statistics far from their start."""
    model = eq.exact(eq.Architecture.uniform(D4, 4), **SIZES)
    optimizer = optax.adam(0.01, eps=1e-12)  # epsilon is not scale free
    x, y = digits_like(16)
    state = training.init_state(jax.random.key(0), model, optimizer, x)
    state, _ = training.train(state, [(x, y)] * 10, model=model, optimizer=optimizer)
    return model, optimizer, state, x, y


def test_a_trained_network_relaxed_everywhere_keeps_its_logits(trained):
    model, _, state, x, _ = trained
    for names in (STAIRS, "C1 C1 C1 C1", "D4 D4 D4 C2"):
        target = model.clone(architecture=eq.Architecture.parse(D4, names))
        relaxed, report = eq.morph(
            state.variables, source=model, target=target, inputs=x
        )
        for train in (False, True):
            settings = {"train": train, "mutable": ["batch_stats"]}
            before, stats = model.apply(state.variables, x, **settings)
            after, stats_after = target.apply(relaxed, x, **settings)
            assert before.dtype == jnp.float32
            np.testing.assert_allclose(after, before, rtol=SINGLE, atol=SINGLE)
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=SINGLE, atol=SINGLE),
                stats_after,
                stats,
            )
        assert [change.target.name for change in report.layers[::2]] == names.split()
        assert all(change.largest_change == 0 for change in report.layers)


def _as_double(leaf):
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.float64) if floating else leaf


@pytest.mark.slow
def test_a_relaxed_network_takes_the_step_of_its_parent(trained):
    # A batch that holds all transforms of its images has symmetric gradients.
    # In double precision, or Adam blows rounding up where a gradient vanishes.
    model, optimizer, state, x, y = trained
    x, state = jax.tree.map(_as_double, (x, state))
    images = jnp.concatenate([eq.transform(x, u, group=D4) for u in range(8)])
    batch = (images, jnp.tile(y, 8))
    target = model.clone(architecture=eq.Architecture.parse(D4, STAIRS))
    moved, _ = eq.morph(state.variables, source=model, target=target, inputs=x)
    opt_state = eq.morph_optimizer(
        state.opt_state, source=model, target=target, inputs=x
    )
    child = training.pack_state(moved, opt_state, state.step)
    logits = []
    for net, begin in ((model, state), (target, child)):
        after, _ = training.train(begin, [batch], model=net, optimizer=optimizer)
        logits.append(net.apply(after.variables, x))
    assert np.abs(logits[0] - model.apply(state.variables, x)).max() > BROKEN
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-7)  # epsilon / gradient


class Block(nn.Module):
    group: eq.Group

    @nn.compact
    def __call__(self, x, _=None):
        return nn.relu(eq.GroupConv(2, 3, group=self.group)(x)), None


class Foreign(nn.Module):
    """Somebody else's model: layers inside scan, vmap, remat and submodules."""

    groups: tuple[eq.Group, ...]
    width: int = 4

    @nn.compact
    def __call__(self, x, flag):
        first, second, third = self.groups
        x = nn.Conv(1, (3, 3))(x)
        x = eq.LiftingConv(2, 3, group=first)(x)
        x = eq.BatchNorm(use_running_average=flag, group=first)(x)
        loop = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2
        )
        x, _ = loop(second)(x, None)
        x = nn.remat(eq.GroupConv)(2, 3, group=third)(x)
        many = nn.vmap(
            eq.GroupConv, variable_axes={"params": 0}, split_rngs={"params": True}
        )
        x = many(2, 3, group=third, name="many")(jnp.stack([x, 2 * x])).sum(0)
        x = eq.FieldDropout(0.5)(x, flag)
        head = eq.InvariantHead(self.width, group=third, name="head")
        return nn.Dense(3, name="logits")(head(x))


def foreign(names, **settings):
    return Foreign(eq.Architecture.parse(D4, names).groups, **settings)


def test_layers_are_found_anywhere():
    source, target = foreign("D4 D4 D4"), foreign("C4 D2 C1")
    x = digits_like(2)[0]
    variables = source.init(jax.random.key(0), x, True)
    moved, report = eq.morph(variables, source=source, target=target, inputs=(x, True))
    before, after = source.apply(variables, x, True), target.apply(moved, x, True)
    np.testing.assert_allclose(after, before, atol=SINGLE)
    text = str(report)
    assert len(text.splitlines()) == 7
    assert "ScanBlock_0/GroupConv_0  D4    D2:i" in text
    expected = jax.eval_shape(lambda k: target.init(k, x, True), jax.random.key(0))
    assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, expected)


def test_collections_that_the_model_does_not_declare_are_kept():
    case = PLANE["conv 3x3"]
    variables = {**case.variables(D4), "notes": {"seen": jnp.ones(2)}}
    moved = morph(variables, case.make(D4), case.make(D4.subgroup("C2")), case.input())
    assert np.array_equal(moved["notes"]["seen"], np.ones(2))


def test_abstract_inputs_and_compilation():
    case = PLANE["conv 3x3"]
    source, target = case.make(D4), case.make(D4.subgroup("C2"))
    variables, x = case.variables(D4), case.input()
    abstract = jax.ShapeDtypeStruct(x.shape, x.dtype)
    relax = jax.jit(lambda v: morph(v, source, target, abstract))
    assert np.array_equal(
        relax(variables)["params"]["kernel"],
        morph(variables, source, target, x)["params"]["kernel"],
    )


def test_layers_that_differ_in_more_than_groups():
    case = PLANE["conv 3x3"]
    x, variables, source = case.input(), case.variables(D4), case.make(D4)
    for change in ({"strides": 3, "padding": "VALID"}, {"kernel_dilation": 2}):
        name = next(iter(change))
        with pytest.raises(ValueError, match=f"has {name}=1 in the source model"):
            morph(variables, source, source.clone(**change), x)
    quotients = [eq.quotient(D4.subgroup(n)) for n in ("C4", "D2")]
    models = [source.clone(fiber_out=fiber) for fiber in quotients]
    with pytest.raises(ValueError, match="has fiber_out="):
        morph(variables, *models, x)


class Keyword(nn.Module):
    group: eq.Group

    @nn.compact
    def __call__(self, x, *, train):
        x = eq.LiftingConv(1, 3, group=self.group)(x)
        return eq.BatchNorm(not train, group=self.group)(x)


def test_keyword_arguments_of_the_call():
    x = digits_like(1)[0]
    source, target = Keyword(D4), Keyword(D4.subgroup("C2"))
    variables = source.init(jax.random.key(0), x, train=False)
    sides = {"source": source, "target": target, "inputs": x}
    moved, _ = eq.morph(variables, **sides, call_kwargs={"train": False})
    after = target.apply(moved, x, train=False)
    before = source.apply(variables, x, train=False)
    np.testing.assert_allclose(after, before, atol=SINGLE)


@pytest.mark.parametrize(
    "call",
    [
        lambda **typo: eq.morph({}, source=None, target=None, inputs=None, **typo),
        lambda **typo: eq.morph_optimizer(
            (), source=None, target=None, inputs=None, **typo
        ),
        lambda **typo: eq.mixtures({}, model=None, inputs=None, **typo),
        lambda **typo: eq.collapse({}, model=None, inputs=None, **typo),
        lambda **typo: eq.discretize({}, model=None, inputs=None, **typo),
        lambda **typo: eq.distances({}, model=None, inputs=None, **typo),
        lambda **typo: encoding.orbit_variables(None, None, **typo),
        lambda **typo: encoding.encode(None, model=None, inputs=None, **typo),
        lambda **typo: encoding.decode(None, model=None, inputs=None, **typo),
        lambda **typo: encoding.relax(None, None, model=None, inputs=None, **typo),
        lambda **typo: encoding.check_encodable(None, None, **typo),
    ],
)
def test_a_misspelt_argument_is_an_error(call):
    with pytest.raises(TypeError, match="unexpected keyword argument 'inptus'"):
        call(inptus=1)


def test_members_stacked_behind_their_orbits():
    many = nn.vmap(
        eq.GroupConv, variable_axes={"params": 1}, split_rngs={"params": True}
    )
    x = jnp.ones((3, 1, 4, 4, 8, 1))
    models = [many(1, 3, group=D4), many(1, 3, group=D4.subgroup("C4"))]
    variables = models[0].init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="stack members along axis 0"):
        morph(variables, *models, x)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x, flag):
        return nn.Conv(3, (3, 3))(x)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (foreign("D4 D4 D4", width=3), r"head/bias has widths \(4,\) .*\(3,\)"),
        (
            Foreign((eq.cyclic(4),) * 3),
            r"LiftingConv_0 lives over Group\(D4\) .* and over Group\(C4\)",
        ),
        (Plain(), "target model has no tied layer LiftingConv_0"),
    ],
)
def test_targets_that_do_not_match(target, message):
    source = foreign("D4 D4 D4")
    arguments = (jnp.ones((1, 8, 8, 1)), True)
    variables = source.init(jax.random.key(0), *arguments)
    with pytest.raises(ValueError, match=message):
        eq.morph(variables, source=source, target=target, inputs=arguments)


def test_variables_of_another_model():
    case = PLANE["conv 3x3"]
    x = case.input()
    models = [case.make(D4), case.make(D4.subgroup("C4"))]
    with pytest.raises(ValueError, match=r"params/bias has shape \(2, 3\), expected"):
        morph(case.variables(D4.subgroup("C4")), *models, x)
    with pytest.raises(ValueError, match="source model lack params/"):
        morph({"params": {}}, *models, x)
    extra = case.variables(D4)
    extra["params"]["more"] = x
    with pytest.raises(ValueError, match="source model has no variable params/more"):
        morph(extra, *models, x)
    other = models[1].clone(kernel_size=5)
    with pytest.raises(ValueError, match="the model itself has kernel_size=3"):
        morph(case.variables(D4), models[0], other, x)


def test_a_layer_is_carried_by_few_programs():
    """Eager arithmetic would compile one for every operation and shape."""
    source = eq.GroupConv(7, 3, group=D4)
    x = jax.ShapeDtypeStruct((1, 5, 5, 8, 11), jnp.float32)
    shapes = jax.eval_shape(source.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda v: np.ones(v.shape, v.dtype), shapes)
    target = source.clone(group=D4.smallest)
    with eq.count_compilations() as compiled:
        eq.morph(variables, source=source, target=target, inputs=x)
    assert compiled.count < 30
