"""Rival layers: exact at their symmetric point, free elsewhere, and one protocol."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import kernels, training
from eqjax.constraints.base import Tied
from eqjax.constraints.collections import PENALTIES
from tests.catalogue import CONSTRAINED, CONSTRAINT_CASES, D4, combinations
from tests.tolerances import BROKEN, DOUBLE, SINGLE

C4 = D4.subgroup("C4")
LAYERS = ("conv circular", "lift 3x3", "head", "conv orthonormal", "conv of harmonics")
CONV, LIFT = LAYERS[:2]


def make(layer, constraint, group=D4):
    case = CONSTRAINED[layer]
    module = case.make(group, constraint=constraint)
    x = case.input()
    return module, jax.jit(module.init)(jax.random.key(1), x), x


def compiled(module, variables):
    """The layer as a function of its input alone."""
    return jax.jit(functools.partial(module.apply, variables))


def scattered(variables):
    """Every variable moved at random."""
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    moved = [
        v + jax.random.normal(k, v.shape) for k, v in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


def symmetric_point(module, variables):
    """Variables that hold the projection of a layer's arrays on symmetric ones."""
    flat = {
        (kind, name): value
        for kind, own in variables.items()
        for name, value in own.items()
    }
    full = module.read(flat)
    exact = {n: kernels.reynolds(a, module.tables[n]) for n, a in full.items()}
    found = {kind: {} for kind in variables}
    for (kind, name), value in module.write(exact).items():
        found[kind][name] = value
    return found


@pytest.mark.parametrize(("name", "layer"), combinations(LAYERS))
def test_equivariant_at_its_symmetric_point_and_not_away_from_it(name, layer):
    module, variables, x = make(layer, CONSTRAINT_CASES[name])
    at = compiled(module, symmetric_point(module, variables))
    assert eq.equivariance_error(at, x, group=D4) < DOUBLE
    away = compiled(module, scattered(variables))
    stays = layer == "head" and module.constraint.per_output_element
    error = eq.equivariance_error(away, x, group=D4)
    assert error < DOUBLE if stays else error > BROKEN


@pytest.mark.parametrize("name", CONSTRAINT_CASES)
def test_a_norm_per_fiber_element_undoes_what_says_so(name):
    module, variables, x = make(CONV, CONSTRAINT_CASES[name])
    away = compiled(module, scattered(variables))
    norm = eq.ElementBatchNorm(use_running_average=False, epsilon=1e-14, group=D4)

    def normalized(x):
        return norm.init_with_output(jax.random.key(0), away(x))[0]

    error = eq.equivariance_error(normalized, x, group=D4)
    undone = module.constraint.undone_by_element_norm
    assert error < SINGLE if undone else error > BROKEN


@pytest.mark.parametrize("name", ["relaxed", "outputs", "partial"])
def test_those_that_start_at_their_symmetric_point(name):
    module, variables, x = make(CONV, CONSTRAINT_CASES[name])
    fn = functools.partial(module.apply, variables)
    assert eq.equivariance_error(fn, x, group=D4) < 1e-6  # coefficients are float32


@pytest.mark.parametrize("layer", [CONV, LIFT])
@pytest.mark.parametrize("name", CONSTRAINT_CASES)
def test_gradients_flow_to_every_parameter(name, layer):
    module, variables, x = make(layer, CONSTRAINT_CASES[name])
    target = jax.random.normal(jax.random.key(5), module.apply(variables, x).shape)

    def loss(variables):
        return jnp.sum((module.apply(variables, x) - target) ** 2)

    gradient = jax.jit(jax.grad(loss))(scattered(variables))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient["params"]):
        assert np.all(np.isfinite(leaf)), path
        assert np.mean(leaf != 0) > 0.9, path
    if "mixture" in gradient:
        for leaf in jax.tree.leaves(gradient["mixture"]):
            assert np.all(leaf != 0)


@pytest.mark.parametrize(("name", "layer"), combinations(LAYERS))
def test_a_tied_layer_becomes_any_other_and_the_function_stays(name, layer):
    for H in (D4, C4):
        tied, variables, x = make(layer, Tied(), group=H)
        expected = tied.apply(variables, x)
        target = tied.clone(
            constraint=CONSTRAINT_CASES[name], group=D4 if name == "mixed" else H
        )
        carried, report = eq.morph(variables, source=tied, target=target, inputs=x)
        np.testing.assert_allclose(
            target.apply(carried, x), expected, rtol=1e-5, atol=1e-5
        )
        assert report.layers[0].relative_change < 1e-6
        assert "restarted" in str(report)


@pytest.mark.parametrize(
    "name", [n for n in CONSTRAINT_CASES if n not in ("mixed", "relaxed")]
)
def test_relaxing_the_group_keeps_the_function(name):
    single = ("soft as compared", "nonstationary", "sharing")  # coefficients: float32
    tolerance = 1e-5 if name.startswith(single) else DOUBLE
    module, variables, x = make(CONV, CONSTRAINT_CASES[name])
    for H in D4.subgroups:
        target = module.clone(group=H)
        at = scattered(variables)
        if name == "soft as compared":  # learned anew from where it started
            at["params"]["softness"] = variables["params"]["softness"]
        moved, _ = eq.morph(at, source=module, target=target, inputs=x)
        found, expected = target.apply(moved, x), module.apply(at, x)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "layer"), combinations(LAYERS))
def test_collapses_to_a_plain_layer_of_the_same_function(name, layer):
    module, variables, x = make(layer, CONSTRAINT_CASES[name])
    variables = scattered(variables)
    plain, tied, _ = eq.collapse(variables, model=module, inputs=x)
    assert tied.constraint == Tied()
    np.testing.assert_allclose(
        tied.apply(plain, x), module.apply(variables, x), rtol=1e-6, atol=1e-6
    )


def by_loops(banks, c, group):
    """The authors' kernel: transformed copies of sum_l c_l(u) W_l, averaged."""
    matrices = list(map(np.asarray, group.ambient.matrices))
    number = {m.tobytes(): i for i, m in enumerate(matrices)}
    *taps, _, _, _, _ = banks.shape[1:]
    center = (np.array(taps) - 1) / 2
    found = np.zeros(banks.shape[1:])
    for position, u in enumerate(group.elements):
        undo = matrices[u].T
        weights = np.tensordot(c[:, position], banks, 1)
        for *y, h, g in np.ndindex(*found.shape[:-2]):
            tap = np.rint(undo @ (np.array(y) - center) + center).astype(int)
            fiber = [
                number[(undo @ matrices[a]).astype(matrices[0].dtype).tobytes()]
                for a in (h, g)
            ]
            found[(*y, h, g)] += weights[(*tap, *fiber)] / group.order
    return found


@pytest.mark.parametrize(
    "group",
    [D4, C4, D4.subgroup("D1:j"), D4.subgroup("C1"), eq.cyclic(4), eq.flip()],
    ids=repr,
)
def test_relaxed_weights_are_those_of_the_paper(group):
    layer = eq.GroupConv(
        2, 3, group=group, constraint=eq.RelaxedWeights(3), param_dtype=jnp.float64
    )
    n = group.ambient.order
    x = jnp.ones((1, *(4,) * group.dimension, n, 2))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    variables = scattered(variables)
    flat = {("params", k): v for k, v in variables["params"].items()}
    full = {k: np.asarray(v) for k, v in layer.read(flat).items()}
    own = {k: np.asarray(v) for k, v in variables["params"].items()}
    taps = (3,) * group.dimension
    banks = np.stack([own[f"kernel_{b}"].reshape(*taps, n, n, 2, 2) for b in range(3)])
    c = own["coefficients"]
    assert c.shape == (3, group.order)
    np.testing.assert_allclose(full["kernel"], by_loops(banks, c, group), atol=DOUBLE)
    bias = jnp.asarray(sum(m * own[f"bias_{b}"] for b, m in enumerate(c.mean(1))))
    tied = kernels.reynolds(bias, layer.tables["bias"])
    np.testing.assert_allclose(full["bias"], tied, atol=DOUBLE)
    # Equal weights project, and each of the three banks is a plain layer's kernel.
    flat["params", "coefficients"] = jnp.ones_like(c)
    tied = kernels.reynolds(jnp.asarray(banks.sum(0)), layer.tables["kernel"])
    np.testing.assert_allclose(layer.read(flat)["kernel"], tied, atol=DOUBLE)
    entries = 3 * (banks[0].size + bias.size)
    assert sum(v.size for v in own.values()) == entries + 3 * group.order


def test_relaxed_weights_train_side_by_side_and_their_distances_are_read():
    module, variables, x = make(CONV, eq.RelaxedWeights())
    pair = jax.tree.map(lambda v: jnp.stack([v, 2 * v]), scattered(variables))

    def step(variables):
        slope = jax.grad(lambda v: jnp.sum(module.apply(v, x) ** 2))(variables)
        return jax.tree.map(lambda v, s: v - 1e-3 * s, variables, slope)

    together = jax.jit(jax.vmap(step))(pair)
    for i in range(2):
        alone = step(jax.tree.map(lambda v, i=i: v[i], pair))
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(b[i], a, rtol=1e-6, atol=1e-6)
    (before,) = eq.distances(variables, model=module, inputs=x).values()
    (after,) = eq.distances(scattered(variables), model=module, inputs=x).values()
    assert before["D4"] < 1e-6 < BROKEN < after["D4"]
    assert after["C1"] < DOUBLE


def test_one_relaxation_becomes_another():
    source, variables, x = make(CONV, CONSTRAINT_CASES["residual"])
    for constraint in (CONSTRAINT_CASES["soft"], CONSTRAINT_CASES["mixed"], Tied()):
        middle = source.clone(constraint=constraint, group=D4)
        there, _ = eq.morph(variables, source=source, target=middle, inputs=x)
        if constraint == Tied():  # projects
            assert (
                eq.equivariance_error(
                    functools.partial(middle.apply, there), x, group=D4
                )
                < DOUBLE
            )
        else:
            np.testing.assert_allclose(
                middle.apply(there, x), source.apply(variables, x), atol=1e-5
            )


# --- priors -------------------------------------------------------------------------


def test_the_penalty_is_the_logarithm_of_two_gaussians():
    prior = eq.ResidualPathway(tied_precision=0.3, residual_precision=2.0)
    for layer in (CONV, "conv orthonormal"):
        module, variables, x = make(layer, prior)
        _, written = module.apply(variables, x, mutable=[PENALTIES])
        expected = 0.0
        for name, tie in module.ties.items():
            precision = 2.0 if name.endswith("_residual") else 0.3
            full = eq.kernels.expand(variables["params"][name], tie)
            expected += precision / 2 * np.sum(np.square(full))
        np.testing.assert_allclose(jax.tree.leaves(written), [expected])
        assert PENALTIES not in variables


def test_a_layer_that_is_called_twice_has_one_prior():
    class Calls(nn.Module):
        times: int

        @nn.compact
        def __call__(self, x):
            layer = eq.GroupConv(
                2, 1, group=D4, constraint=CONSTRAINT_CASES["residual"]
            )
            for _ in range(self.times):
                x = layer(x)
            return x

    x = jnp.ones((1, 2, 2, 8, 2))
    variables = jax.jit(Calls(1).init)(jax.random.key(0), x)
    penalties = [
        jax.tree.leaves(Calls(times).apply(variables, x, mutable=[PENALTIES])[1])
        for times in (1, 2)
    ]
    np.testing.assert_allclose(*penalties)


def test_the_residual_pathway_starts_as_narrow_as_its_prior():
    prior = eq.ResidualPathway(tied_precision=1e-4, residual_precision=1e-2)
    module = eq.GroupConv(16, 3, group=D4, constraint=prior)
    x = jnp.zeros((1, 3, 3, 8, 16))
    params = jax.jit(module.init)(jax.random.key(0), x)["params"]
    ratio = jnp.std(params["kernel_residual"]) / jnp.std(params["kernel"])
    np.testing.assert_allclose(ratio, 0.1, rtol=0.02)


class Small(nn.Module):
    """A classifier of a single layer with a relaxation."""

    constraint: eq.Constraint

    @nn.compact
    def __call__(self, x, train=False):
        del train
        conv = eq.LiftingConv(4, 3, group=D4, constraint=self.constraint)
        return nn.Dense(2)(nn.relu(conv(x)).mean((1, 2, 3)))


@functools.cache
def trained(constraint, steps=60):
    """Train on strokes across and along: two classes, and one to D4."""
    y = np.arange(64) % 2
    x = np.random.default_rng(0).normal(size=(64, 6, 6, 1)).astype(np.float32) / 4
    x[y == 0, 2:4] += 1
    x[y == 1, :, 2:4] += 1
    model, optimizer = Small(constraint), optax.adam(0.03)
    state = training.init_state(jax.random.key(0), model, optimizer, x)
    state, _ = training.train(state, [(x, y)] * steps, model=model, optimizer=optimizer)
    return training.evaluate(state.variables, x, y, model=model), state


@pytest.mark.parametrize("name", CONSTRAINT_CASES)
def test_it_learns_what_its_symmetric_point_cannot(name):
    tied, _ = trained(Tied())
    assert tied.error > 0.25
    found, _ = trained(CONSTRAINT_CASES[name])
    assert found.error < 0.1


def test_the_penalty_acts():
    norms = []
    for precision in (1e-4, 1e-2, 1.0):
        prior = eq.ResidualPathway(tied_precision=1e-5, residual_precision=precision)
        _, state = trained(prior)
        norms.append(jnp.linalg.norm(state.params["LiftingConv_0"]["kernel_residual"]))
    assert norms[0] > 2 * norms[1]
    assert norms[1] > 2 * norms[2]


# --- bad input ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make_constraint", "message"),
    [
        (lambda: eq.ResidualPathway(tied_precision=0), "tied_precision must be posit"),
        (lambda: eq.ResidualPathway(residual_precision=-1), "residual_precision must"),
        (lambda: eq.RelaxedWeights(banks=0), "banks must be at least 1, got 0"),
        (lambda: eq.SoftProjection(1.2), r"softness must be in \[0, 1\], got 1.2"),
        (lambda: eq.SoftProjection(1.0, learned=True), "start between 0 and 1, got 1"),
    ],
)
def test_bad_settings(make_constraint, message):
    with pytest.raises(ValueError, match=message):
        make_constraint()


def test_moments_do_not_outlive_a_constraint():
    module, variables, x = make(CONV, CONSTRAINT_CASES["residual"])
    target = module.clone(constraint=Tied())
    state = optax.adam(0.1).init(variables["params"])
    with pytest.raises(ValueError, match="constraint of the model itself changes"):
        eq.morph_optimizer(state, source=module, target=target, inputs=x)


def test_a_relaxed_layers_group_is_no_data():
    module, _, x = make(CONV, CONSTRAINT_CASES["partial"])
    with pytest.raises(ValueError, match="constraint PartialGroup; only the group of"):
        eq.population.encoding.orbit_variables(module, x)
