"""Layers of irreps: laws, relaxation, mixtures, optimizers, and e3nn-jax's own."""

import e3nn_jax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from e3nn_jax.utils import assert_equivariant

import eqjax as eq
from tests.tolerances import DOUBLE

OH = eq.full_octahedral()
O3 = eq.orthogonal()
IN, OUT = "0e + 1o", "2x0e + 1o + 1e + 2e"
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 4, 4)))
POINTS = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)))
CHAIN = [
    O3,
    O3.subgroup("SO(3)"),
    OH.subgroup("O"),
    OH.subgroup("D4:k"),
    OH.subgroup("C4:k"),
    OH.smallest,
]
DRAW = {"param_dtype": jnp.float64, "bias_init": nn.initializers.normal(1.0)}


def conv(group, **settings):
    return eq.IrrepsConv(OUT, 3, group=group, irreps_in=IN, **DRAW, **settings)


def linear(group, **settings):
    return eq.IrrepsLinear(OUT, group=group, irreps_in=IN, **DRAW, **settings)


def error(layer, variables, x, group):
    kinds = {"irreps_in": IN, "irreps_out": OUT}
    apply = jax.jit(layer.apply)
    found = eq.equivariance_error(
        lambda x: apply(variables, x), x, group=group, **kinds
    )
    return float(found)


@pytest.mark.slow
@pytest.mark.parametrize("group", CHAIN, ids=str)
def test_a_convolution_commutes_with_its_group_and_no_other(group):
    layer = conv(group)
    variables = layer.init(jax.random.key(0), X)
    for H in (OH, OH.subgroup("D4:k"), OH.subgroup("C4:k"), OH.subgroup("Ci")):
        found = error(layer, variables, X, H)
        assert found < DOUBLE if group >= H else found > 0.1


@pytest.mark.parametrize("name", ["O(3)", "SO(3)", "D∞h", "C∞v", "C∞", "C2v", "C1"])
def test_a_linear_map_commutes_with_its_group_and_no_other(name):
    layer = linear(O3.subgroup(name))
    variables = layer.init(jax.random.key(0), POINTS)
    for H in (O3, O3.subgroup("C∞v"), O3.subgroup("C∞"), O3.subgroup("C2v")):
        found = error(layer, variables, POINTS, H)
        assert found < DOUBLE if layer.group >= H else found > 0.01


def test_e3nn_finds_its_own_symmetry():
    x = e3nn_jax.IrrepsArray(IN, POINTS)
    layer = linear(O3)
    variables = layer.init(jax.random.key(0), x)
    key = jax.random.key(1)
    assert_equivariant(lambda x: layer.apply(variables, x), key, x)
    smaller = linear(O3.subgroup("C∞v"))
    variables = smaller.init(jax.random.key(0), x)
    with pytest.raises(AssertionError):
        assert_equivariant(lambda x: smaller.apply(variables, x), key, x)


@pytest.mark.slow
def test_relaxing_keeps_the_function_and_constraining_comes_back():
    source = conv(O3)
    variables = source.init(jax.random.key(0), X)
    expected = source.apply(variables, X)
    now, model = variables, source
    for group in CHAIN[1:]:
        target = conv(group)
        now, report = eq.morph(now, source=model, target=target, inputs=X)
        np.testing.assert_allclose(target.apply(now, X), expected, atol=DOUBLE)
        assert np.isfinite(report.layers[0].gradient_step)
        model = target
    back, _ = eq.morph(now, source=model, target=source, inputs=X)
    np.testing.assert_allclose(source.apply(back, X), expected, atol=DOUBLE)


@pytest.mark.parametrize("parametrization", ["tied", "orthonormal"])
def test_optimizers_move_with_it(parametrization):
    kind = {"parametrization": parametrization}
    source, target = linear(O3, **kind), linear(O3.subgroup("C∞v"), **kind)
    variables = source.init(jax.random.key(0), POINTS)

    def loss(params, model):
        return jnp.sum(jnp.sin(model.apply({"params": params}, POINTS))[:, :5] ** 2)

    optimizer = optax.adam(1e-2)
    state = optimizer.init(variables["params"])
    gradient = jax.grad(loss)(variables["params"], source)
    _, state = optimizer.update(gradient, state)
    settings = {"source": source, "target": target, "inputs": POINTS}
    carried, _ = eq.morph(variables, **settings)
    moved = eq.morph_optimizer(state, **settings)
    shapes = jax.tree.map(jnp.shape, carried["params"])
    assert jax.tree.map(jnp.shape, moved[0].mu) == shapes
    assert all(jnp.all(leaf >= 0) for leaf in jax.tree.leaves(moved[0].nu))
    # The symmetric part of the child's gradient is the parent's.
    own = {"params": jax.tree.map(lambda m: 10 * m, moved[0].mu)}
    back, _ = eq.morph(own, source=target, target=target, inputs=POINTS)
    full = target.read({("params", k): v for k, v in back["params"].items()})
    expected = source.read({("params", k): 10 * v for k, v in state[0].mu.items()})
    if parametrization == "orthonormal":
        np.testing.assert_allclose(full["kernel"], expected["kernel"], atol=DOUBLE)


@pytest.mark.slow
def test_mixtures_of_groups_without_end():
    candidates = tuple(O3.subgroup(n) for n in ("O(3)", "C∞v", "C1"))
    layer = linear(O3, constraint=eq.Mixture(candidates))
    variables = layer.init(jax.random.key(0), POINTS)
    names = [n for n in variables["params"] if n.startswith("kernel")]
    assert names == ["kernel_O(3)", "kernel_C∞v", "kernel_C1"]
    logits = jnp.array([30.0, -30, -30])
    pure = {**variables, "mixture": {"logits": logits}}
    assert error(layer, pure, POINTS, O3) < 1e-9
    assert error(layer, variables, POINTS, O3) > 0.01

    def loss(variables):
        return jnp.sum(layer.apply(variables, POINTS) ** 2)

    for leaf in jax.tree.leaves(jax.grad(loss)(variables)["params"]):
        assert jnp.any(leaf != 0) or leaf.size == 0


@pytest.mark.slow
def test_mixtures_of_groups_of_the_cube():
    candidates = (OH, OH.subgroup("D4h:k"), OH.smallest)
    layer = conv(OH, constraint=eq.Mixture(candidates))
    variables = layer.init(jax.random.key(0), X)
    found = eq.distances(variables, model=layer, inputs=X, groups=(OH, OH.smallest))
    assert found[()]["Oh"] > 0.1
    assert found[()]["C1"] < 1e-9


@pytest.mark.parametrize(
    "constraint",
    [
        eq.ResidualPathway(),
        eq.GammaProjection(),
        eq.NonStationary(),
        eq.RelaxedWeights(),
    ],
    ids=lambda c: type(c).__name__,
)
def test_relaxed_constraints_keep_the_function_when_they_begin(constraint):
    source, target = conv(OH), conv(OH, constraint=constraint)
    variables = source.init(jax.random.key(0), X)
    carried, _ = eq.morph(variables, source=source, target=target, inputs=X)
    expected = source.apply(variables, X)
    np.testing.assert_allclose(target.apply(carried, X), expected, atol=1e-6)


def test_what_needs_orbits_says_so():
    with pytest.raises(ValueError, match="no orbits of entries"):
        conv(OH, constraint=eq.LearnedSharing()).init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="no orbits of entries"):
        eq.population.encoding.orbit_variables(conv(OH), X)


@pytest.mark.slow
def test_regular_fields_go_to_irreps_and_back():
    D4h = OH.subgroup("D4h:k")
    fiber = eq.IrrepsFiber("0e + 1o")
    field = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 3, 3, 48, 2)))
    down = eq.GroupConv(2, 3, group=D4h, fiber_out=fiber, param_dtype=jnp.float64)
    variables = down.init(jax.random.key(0), field)
    found = eq.equivariance_error(
        lambda x: down.apply(variables, x), field, group=D4h, fiber_out=fiber
    )
    assert found < DOUBLE
    up = eq.GroupConv(1, 1, group=D4h, fiber_in=fiber, param_dtype=jnp.float64)
    image = down.apply(variables, field)
    variables = up.init(jax.random.key(0), image)
    found = eq.equivariance_error(
        lambda x: up.apply(variables, x), image, group=D4h, fiber_in=fiber
    )
    assert found < DOUBLE


class Gated(nn.Module):
    """A user's network: gates of e3nn-jax between maps of eqjax."""

    group: eq.ClosedGroup

    @nn.compact
    def __call__(self, x):
        x = e3nn_jax.IrrepsArray("1o", x)
        kind = {"group": self.group, "param_dtype": jnp.float64}
        x = eq.IrrepsLinear("8x0e + 4x0e + 4x1o", irreps_in="1o", **kind)(x)
        x = e3nn_jax.gate(x)
        square = e3nn_jax.tensor_product(x, x, filter_ir_out=["0e", "1o", "2e"])
        kind["irreps_in"] = str(square.irreps)
        return eq.IrrepsLinear("0e + 1o", **kind)(square).array.sum(0)


@pytest.mark.slow
def test_a_network_of_e3nn_is_relaxed():
    source, target = Gated(O3), Gated(O3.subgroup("C∞v"))
    x = POINTS[:, :3]
    variables = source.init(jax.random.key(0), x)
    carried, report = eq.morph(variables, source=source, target=target, inputs=x)
    expected = source.apply(variables, x)
    np.testing.assert_allclose(target.apply(carried, x), expected, atol=DOUBLE)
    assert len(report.layers) == 2
    relaxed = jax.tree.map(lambda v: v + 0.1, carried)
    for name, holds in (("C∞v", True), ("O(3)", False)):
        found = eq.equivariance_error(
            lambda x: target.apply(relaxed, x)[None],
            x,
            group=O3.subgroup(name),
            irreps_in="1o",
            irreps_out="0e + 1o",
        )
        assert (found < DOUBLE) == holds


def test_it_is_saved_and_loaded(tmp_path):
    layer = linear(O3.subgroup("C∞v"))
    variables = layer.init(jax.random.key(0), POINTS)
    eq.save(tmp_path / "net", model=layer, variables=variables, inputs=POINTS)
    loaded = eq.load(tmp_path / "net")
    assert loaded.model.group == layer.group
    expected = layer.apply(variables, POINTS)
    found = loaded.model.apply(loaded.variables, POINTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="takes .*, 4.* got"):
        conv(OH).init(jax.random.key(0), X[..., :3])
    with pytest.raises(ValueError, match="rechunk"):
        linear(O3).init(jax.random.key(0), e3nn_jax.IrrepsArray("4x0e", POINTS))
    with pytest.raises(ValueError, match="expected irreps"):
        eq.IrrepsLinear("q", group=O3, irreps_in="1o").init(
            jax.random.key(0), jnp.ones(3)
        )
    with pytest.raises(TypeError, match="needs a Group"):
        eq.IrrepsLinear("1o", group="O(3)", irreps_in="1o")
    with pytest.raises(ValueError, match=r"not mapped to itself by O\(3\)"):
        conv(O3).clone(kernel_size=(3, 3, 5)).init(jax.random.key(0), X)
    with pytest.raises(TypeError, match="cosets of a Group"):
        eq.GroupConv(2, 3, group=O3).init(jax.random.key(0), X)
    for constraint in (eq.GammaProjection(), eq.NonStationary(), eq.RelaxedWeights()):
        with pytest.raises(ValueError, match="sums over the elements of a Group"):
            linear(O3, constraint=constraint)


@pytest.mark.parametrize("group", [OH, O3], ids=str)
def test_what_reads_arrays_by_their_shapes_refuses_irreps(group):
    with pytest.raises(ValueError, match="equivariance_error .* take irreps_in"):
        eq.symmetry(conv(group), X)


def test_radial_functions_are_sampled_under_jit():
    layer = conv(O3.subgroup("SO(3)"), rings=2)
    shapes = jax.tree.map(jnp.shape, jax.jit(layer.init)(jax.random.key(0), X))
    assert shapes["params"]["kernel"][0] > 0
