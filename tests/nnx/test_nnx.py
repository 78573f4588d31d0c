"""NNX modules compute what linen ones do, and are relaxed as they are."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import eqjax as eq
import eqjax.nnx as enx
from eqjax import exchange
from tests import catalogue

D4 = eq.dihedral(4)
C4, C1 = D4.subgroup("C4"), D4.subgroup("C1")
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 8, 8, 1)), jnp.float32)
Y = jnp.asarray(RNG.integers(3, size=4))


class Block(nnx.Module):
    def __init__(self, channels, group, rngs, constraint):
        tie = {"group": group, "rngs": rngs}
        self.conv = enx.GroupConv(channels, channels, 3, constraint=constraint, **tie)
        self.norm = enx.BatchNorm(channels, **tie)

    def __call__(self, x):
        return x + nnx.relu(self.norm(self.conv(x)))


class Net(nnx.Module):
    def __init__(self, rngs, groups=(D4, D4, D4), constraint=None):
        constraint = constraint or eq.Tied()
        first, second, last = groups
        self.stem = enx.LiftingConv(
            1, 2, 3, group=first, rngs=rngs, constraint=constraint
        )
        self.block = Block(2, second, rngs, constraint)
        self.head = enx.InvariantHead(
            2, 4, group=last, rngs=rngs, constraint=constraint
        )
        self.logits = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = eq.avg_pool(self.stem(x), 2, 2)
        return self.logits(nnx.elu(self.head(self.block(x))))


def loss(model, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()


@nnx.jit
def step(model, optimizer, x, y):
    value, gradient = nnx.value_and_grad(loss)(model, x, y)
    optimizer.update(model, gradient)
    return value


def trained(steps=3, **settings):
    model = Net(nnx.Rngs(0), **settings)
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
    model.train()
    for _ in range(steps):
        step(model, optimizer, X, Y)
    model.eval()
    return model, optimizer


NATIVE = {
    "lift 3x3": lambda **kw: enx.LiftingConv(2, 2, 3, **kw),
    "conv 3x3": lambda **kw: enx.GroupConv(2, 3, 3, **kw),
    "conv strided on odd": lambda **kw: enx.GroupConv(
        2, 2, 3, strides=2, padding=((1, 1), (1, 1)), **kw
    ),
    "conv dilated": lambda **kw: enx.GroupConv(2, 2, 3, kernel_dilation=2, **kw),
    "conv depthwise": lambda **kw: enx.GroupConv(2, 4, 3, feature_group_count=2, **kw),
    "transposed 2x2": lambda **kw: enx.GroupConvTranspose(
        2, 2, 2, strides=2, padding="VALID", **kw
    ),
    "head": lambda **kw: enx.InvariantHead(2, 3, **kw),
    "batch norm": lambda **kw: enx.BatchNorm(2, use_running_average=True, **kw),
    "layer norm": lambda **kw: enx.LayerNorm(2, **kw),
    "RMS norm": lambda **kw: enx.RMSNorm(2, **kw),
    "group norm": lambda **kw: enx.GroupNorm(2, num_groups=2, **kw),
}


@pytest.mark.parametrize("name", NATIVE)
def test_layers_are_those_of_linen(name):
    case = catalogue.PLANE[name]
    x = case.input()
    for group in (D4, C4):
        layer = NATIVE[name](group=group, rngs=nnx.Rngs(0), param_dtype=jnp.float64)
        linen = case.make(group)
        variables = case.variables(group)
        assert jax.tree.map(jnp.shape, enx.variables_of(layer)) == jax.tree.map(
            jnp.shape, dict(variables)
        )
        layer = enx.with_variables(layer, variables)
        np.testing.assert_allclose(layer(x), linen.apply(variables, x), atol=1e-12)
        ours = nnx.grad(lambda module: (module(x) ** 2).sum())(layer)

        def squared(params, linen=linen, rest=variables):
            return (linen.apply({**rest, "params": params}, x) ** 2).sum()

        theirs = jax.grad(squared)(variables["params"])
        for key, value in theirs.items():
            np.testing.assert_allclose(ours[key][...], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("word", catalogue.CONSTRAINT_CASES)
def test_constraints_are_those_of_linen(word):
    constraint = catalogue.CONSTRAINT_CASES[word]
    settings = {"group": D4, "constraint": constraint}
    layer = enx.GroupConv(2, 2, 3, rngs=nnx.Rngs(0), **settings)
    linen = eq.GroupConv(2, 3, **settings)
    x = jnp.asarray(RNG.normal(size=(2, 4, 4, 8, 2)), jnp.float32)
    variables = enx.variables_of(layer)
    expected, updates = linen.apply(variables, x, mutable=["penalties"])
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)
    wanted = sum(jax.tree.leaves(updates), jnp.zeros(()))
    np.testing.assert_allclose(enx.penalty(layer), wanted, rtol=1e-6)


def test_training_lowers_the_loss_and_measures_batches():
    model, optimizer = trained(0)
    model.train()
    before = model.block.norm.mean[...]
    losses = [float(step(model, optimizer, X, Y)) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert np.abs(model.block.norm.mean[...] - before).max() > 0
    model.eval()
    assert model.block.norm.use_running_average
    np.testing.assert_array_equal(model(X), model(X))


def test_relaxing_keeps_the_function_and_the_steps_of_adam():
    model, optimizer = trained()
    relaxed, report = enx.morph(model, groups={"head": C4, "block/conv": C1})
    np.testing.assert_array_equal(relaxed(X), model(X))
    assert relaxed.head.group == C4
    assert model.head.group == D4
    assert {c.path for c in report.layers} >= {("head",), ("block", "conv")}
    moved = enx.morph_optimizer(optimizer, source=model, target=relaxed)
    assert int(moved.step[...]) == int(optimizer.step[...])
    relaxed.train()
    before = float(step(relaxed, moved, X, Y))
    for _ in range(5):
        last = float(step(relaxed, moved, X, Y))
    assert last < before
    same, _ = enx.morph(model, target=Net(nnx.Rngs(1), groups=(D4, C4, C4)))
    same.eval()
    np.testing.assert_array_equal(same(X), model(X))


def test_moments_are_carried_as_in_linen():
    model, optimizer = trained()
    relaxed, _ = enx.morph(model, groups={"head": C4})
    moved = enx.morph_optimizer(optimizer, source=model, target=relaxed)
    old = nnx.as_pure(optimizer.opt_state)[0].mu["head"]["kernel"]
    new = nnx.as_pure(moved.opt_state)[0].mu["head"]["kernel"]
    # Half of the entries for every parameter, and half of the gradient.
    np.testing.assert_allclose(new, np.repeat(old, 2, 0) / 2, atol=1e-12)


def test_mixtures_are_read_collapsed_and_discretized():
    model = Net(nnx.Rngs(0), constraint=eq.Mixture((D4, C1)))
    model.eval()
    weights = enx.mixtures(model)
    assert weights[("stem",)] == {"D4": 0.5, "C1": 0.5}
    plain, _ = enx.collapse(model)
    np.testing.assert_allclose(plain(X), model(X), atol=1e-5)
    assert plain.stem.group == C1
    chosen, _ = enx.discretize(model)
    assert chosen.stem.group == D4
    assert chosen.stem.linen.constraint == eq.Tied()


def test_distances_and_the_symmetry_test():
    model, _ = trained()
    assert float(enx.distances(model)[("stem",)]["D4"]) == 0
    x = RNG.normal(size=(32, 8, 8, 1)).astype(np.float32)
    y = RNG.integers(3, size=32)
    report = enx.symmetry_test(
        model, x=x, y=y, key=jax.random.key(0), draws=99, block_size=4
    )
    assert set(report.layers) == {("stem",), ("block", "conv"), ("head",)}
    assert 0 < report.network["D4"].p <= 1
    report = enx.held_out_test(
        model, x=x, y=y, group=D4, key=jax.random.key(0), draws=99
    )
    assert report.maximal == (D4,)  # the network keeps it: it sees no difference


def test_an_nnx_convolution_is_taken_over():
    conv = nnx.Conv(16, 8, (3, 3), strides=2, padding=1, rngs=nnx.Rngs(0))
    x = jnp.asarray(RNG.normal(size=(1, 7, 7, 16)), jnp.float32)
    layer, near = enx.from_conv(
        conv, group=D4, rngs=nnx.Rngs(1), constraint=eq.ResidualPathway()
    )
    found = layer(x.reshape(1, 7, 7, 8, 2)).reshape(1, 4, 4, 8)
    np.testing.assert_allclose(found, conv(x), atol=1e-5)
    assert near.relative_remainder < 1e-6
    tied, near = enx.from_conv(conv, group=D4, rngs=nnx.Rngs(1))
    assert near.relative_remainder > 0.5
    assert tied.kernel.shape == (72, 2, 1)


def test_stacked_layers_under_vmap_and_scan():
    @nnx.vmap(in_axes=0, out_axes=0)
    def stack(rngs):
        return Block(2, D4, rngs, eq.Tied())

    blocks = stack(nnx.Rngs(0).split(3))
    blocks.eval()

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def forward(x, block):
        return nnx.remat(lambda block, x: block(x))(block, x)

    x = jnp.asarray(RNG.normal(size=(2, 4, 4, 8, 2)), jnp.float32)
    before = forward(x, blocks)
    relaxed, _ = enx.morph(blocks, groups={"conv": C4})
    relaxed.eval()
    assert relaxed.conv.kernel.shape == (3, 144, 2, 2)
    np.testing.assert_array_equal(forward(x, relaxed), before)


def test_modules_are_plain_trees_without_shared_references():
    model, _ = trained()
    leaves, structure = jax.tree.flatten(model)
    again = jax.tree.unflatten(structure, leaves)
    np.testing.assert_array_equal(again(X), model(X))
    gradient = jax.grad(loss)(model, X, Y)
    assert jax.tree.structure(gradient) == structure
    found = [id(v) for _, v in nnx.iter_graph(model) if isinstance(v, nnx.Variable)]
    assert len(found) == len(set(found))
    compiled = jax.jit(lambda model, x: model(x))
    np.testing.assert_allclose(compiled(model, X), model(X), atol=1e-6)


def test_plain_layers_take_the_place_of_those_with_a_group(monkeypatch):
    for constraint in (eq.Tied(), eq.Mixture((D4, C1))):
        model = Net(nnx.Rngs(0), constraint=constraint)
        model.eval()
        plain = enx.to_plain(model, X)
        np.testing.assert_allclose(plain(X), model(X), atol=1e-5)
        assert plain.stem.kernel.shape == (3, 3, 1, 16)
        assert not enx.tied_layers(plain)
        assert isinstance(model.stem.linen, eq.LiftingConv)
        exported = jax.export.export(jax.jit(lambda x, plain=plain: plain(x)))(X)
        np.testing.assert_allclose(exported.call(X), model(X), atol=1e-5)

    def doubled(*args, right=exchange.plain.to_plain, **settings):
        variables, network = right(*args, **settings)
        return jax.tree.map(lambda v: 2 * v, variables), network

    monkeypatch.setattr(exchange.plain, "to_plain", doubled)
    with pytest.raises(ValueError, match="with plain layers the outputs are"):
        enx.to_plain(model, X)


def test_a_plain_layer_asks_for_nothing():
    """What a constraint adds to the loss goes with the constraint."""
    for kind in (eq.ResidualPathway(), eq.NonStationary()):
        settings = {"group": D4, "constraint": kind, "rngs": nnx.Rngs(0)}
        layer = enx.LiftingConv(X.shape[-1], 2, 3, **settings)
        expected = layer(X)
        assert float(enx.penalty(layer)) > 0
        for plain in (enx.to_plain(layer, X), enx.collapse(layer)[0]):
            np.testing.assert_allclose(plain(X), expected, atol=1e-5)
            assert float(enx.penalty(plain)) == 0


def test_dropout_is_by_field():
    layer = enx.FieldDropout(0.5, rngs=nnx.Rngs(0))
    x = jnp.ones((2, 4, 4, 8, 16))
    y = layer(x)
    dropped = np.asarray(y == 0)
    assert dropped.any()
    assert (dropped.all((1, 2, 3)) == dropped.any((1, 2, 3))).all()
    assert not np.array_equal(y, layer(x))
    np.testing.assert_array_equal(layer(x, deterministic=True), x)


def test_bad_arguments():
    model = Net(nnx.Rngs(0))
    with pytest.raises(ValueError, match="there are block/conv, .*stem"):
        enx.morph(model, groups={"stam": C4})
    with pytest.raises(ValueError, match="either groups= or target="):
        enx.morph(model)
