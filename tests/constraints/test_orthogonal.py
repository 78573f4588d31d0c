"""Free kernels split into orthogonal parts: gammas along a chain, isotypic filters."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import kernels, training
from eqjax.groups import isotypic_components
from tests.catalogue import D4

C4, C1 = D4.subgroup("C4"), D4.subgroup("C1")
GROUPS = [D4, C4, C1, eq.dihedral(2), eq.flip(), eq.octahedral(), eq.full_octahedral()]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_isotypic_projections_split_what_the_group_acts_on(group):
    components = isotypic_components(group)
    place = group.product[group.inverse]  # of convolution on the group
    projections = [c.weights[place] for c in components]
    np.testing.assert_allclose(sum(projections), np.eye(group.order), atol=1e-12)
    for i, P in enumerate(projections):
        for j, Q in enumerate(projections):
            np.testing.assert_allclose(P @ Q, P if i == j else 0 * P, atol=1e-12)
    np.testing.assert_allclose(components[0].weights, 1 / group.order)
    assert [c.degree for c in components].count(0) == 1


def test_degrees_are_frequencies():
    """A function of the angle belongs to the component of its frequency."""
    C4, angles = eq.cyclic(4), np.arange(4) * np.pi / 2
    for frequency, component in enumerate(isotypic_components(C4)):
        wave = np.cos(frequency * angles)
        P = component.weights[C4.product[C4.inverse]]
        np.testing.assert_allclose(P @ wave, wave, atol=1e-12)
        assert component.degree == frequency


@pytest.mark.parametrize(
    "constraint", [eq.GammaProjection(("C4", "C1")), eq.NonStationary()]
)
def test_parts_are_orthogonal_and_the_first_is_the_average(constraint):
    layer = eq.GroupConv(2, 3, group=D4, constraint=constraint)
    table = layer.tables["kernel"]
    K = jnp.asarray(RNG.normal(size=(*table.shape, 2, 2)))
    weights = jnp.asarray(constraint.weights(D4))
    parts = [kernels.weighted_sum(K, table, each) for each in weights]
    np.testing.assert_allclose(sum(parts), K, atol=1e-12)
    np.testing.assert_allclose(parts[0], kernels.reynolds(K, table), atol=1e-12)
    for i, a in enumerate(parts):
        for b in parts[:i]:
            assert abs(float(jnp.vdot(a, b))) < 1e-10


def test_filters_are_the_sums_of_the_paper():
    """phi(orbit) psi(g), with psi an irrep entry of degree m, is damped by its c."""
    layer = eq.LiftingConv(1, 3, group=eq.cyclic(4), constraint=eq.NonStationary())
    group, table = eq.cyclic(4), layer.tables["kernel"]
    phi = RNG.normal(size=table.num_orbits)[np.asarray(table.index)]
    shares = np.exp(-(np.array([0, 1, 2]) ** 2.0))  # at a width of 1
    for m, share in enumerate(shares):
        psi = np.cos(m * np.arange(4) * np.pi / 2)
        K = jnp.asarray((phi * psi)[..., None, None])
        weights = np.tensordot(shares, layer.constraint.weights(group), 1)
        found = kernels.weighted_sum(K, table, jnp.asarray(weights))
        np.testing.assert_allclose(found, share * K, atol=1e-12)


def test_a_chain_without_gammas_is_its_last_group():
    kind = eq.GammaProjection(("C4",))
    assert kind.symmetry(D4) == C4
    assert kind.symmetry(C4) == C4
    layer = eq.GroupConv(2, 3, group=C4, constraint=kind)
    x = jnp.asarray(RNG.normal(size=(1, 4, 4, 8, 2)))
    assert "gamma" not in layer.init(jax.random.key(0), x)["params"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: eq.GammaProjection(start=-1), "start must be at least 0"),
        (lambda: eq.GammaProjection(precision=-1), "precision must be at least 0"),
        (lambda: eq.NonStationary(width=0), "width must be positive"),
        (lambda: eq.GammaProjection(("C4", "D1:i")).groups(D4), "is not within"),
        (lambda: eq.GammaProjection(("C3",)).groups(D4), "C3"),
        (
            lambda: eq.LiftingConv(
                1, 3, group=D4, constraint=eq.GammaProjection(("C4", "D1:i"))
            ),
            "is not within",
        ),
        (lambda: training.triangular(1), "at least 2"),
        (lambda: eq.dual_gammas(optax.sgd(1), rate=0.0), "rates must be positive"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- gammas and what moves them -----------------------------------------------------


class Single(nn.Module):
    constraint: eq.Constraint
    group: eq.Group = D4

    @nn.compact
    def __call__(self, x):
        kind = {"use_bias": False, "group": self.group, "constraint": self.constraint}
        return eq.LiftingConv(1, 3, padding="VALID", **kind)(x)


@functools.cache
def regressed(truth, constraint, optimizer, steps=600):
    """A layer trained on what a layer of another group makes of noise."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=(16, 8, 8, 1)), jnp.float32)
    teacher = Single(eq.Tied(), truth)
    y = teacher.apply(teacher.init(jax.random.key(7), x), x)
    y = y + 0.1 * jnp.asarray(rng.normal(size=y.shape), jnp.float32)
    model = Single(constraint)

    def loss(params):
        found, sown = model.apply({"params": params}, x, mutable=["penalties"])
        return jnp.mean((found - y) ** 2) + sum(jax.tree.leaves(sown))

    @jax.jit
    def step(params, state):
        gradient = jax.grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = model.init(jax.random.key(0), x)["params"]
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return model, params, state, x


ADAM = optax.adamw(0.02, weight_decay=0.01)


@pytest.mark.parametrize(
    "optimizer",
    [ADAM, eq.dual_gammas(ADAM, rate=0.05, dual_rate=0.02, resilient=True)],
    ids=["penalty", "resilient"],
)
@pytest.mark.parametrize(("truth", "open_"), [(D4, (0, 0)), (C4, (1, 0)), (C1, (1, 1))])
def test_gammas_stay_open_where_the_data_break_the_symmetry(truth, open_, optimizer):
    precision = 0.02 if optimizer is ADAM else 0.0
    constraint = eq.GammaProjection(("C4", "C1"), precision=precision)
    _, params, _, _ = regressed(truth, constraint, optimizer)
    gamma = np.asarray(params["LiftingConv_0"]["gamma"])
    for value, needed in zip(np.abs(gamma), open_, strict=True):
        assert value > 0.12 if needed else value < 0.06, gamma


def test_a_schedule_opens_and_closes_again():
    schedule = training.triangular(40)
    optimizer = eq.scheduled_gammas(optax.adam(0.02), schedule)
    constraint = eq.GammaProjection(start=0.0)
    for steps, expected in ((20, 1.0), (40, 0.0)):
        model, params, _, x = regressed(C4, constraint, optimizer, steps)
        assert params["LiftingConv_0"]["gamma"].tolist() == [expected]
        error = eq.equivariance_error(
            functools.partial(model.apply, {"params": params}), x, group=D4
        )
        assert error < 1e-5 if expected == 0 else error > 1e-2


@pytest.mark.parametrize("truth", [D4, C4])
def test_dual_variables_close_gammas(truth):
    """Whatever the data; the multiplier then holds against them."""
    optimizer = eq.dual_gammas(ADAM, rate=0.1, dual_rate=0.1)
    damped = eq.GammaProjection(precision=3.0)
    _, params, state, _ = regressed(truth, damped, optimizer, 1000)
    assert abs(float(params["LiftingConv_0"]["gamma"][0])) < 0.05
    duals = state.inner_states["gamma"].inner_state.multipliers
    force = abs(float(duals["LiftingConv_0"]["gamma"][0]))
    assert force > 0.05 if truth == C4 else force < 0.05, force


class Two(nn.Module):
    group: eq.Group = D4

    @nn.compact
    def __call__(self, x):
        kind = eq.GammaProjection(("C4", "C1"))
        x = nn.relu(eq.LiftingConv(2, 3, group=D4, constraint=kind, name="open")(x))
        return eq.InvariantHead(3, group=self.group, name="head")(x)


def test_optimizers_of_gammas_are_carried_along():
    optimizer = eq.dual_gammas(optax.adam(0.01), resilient=True)
    x = jnp.asarray(RNG.normal(size=(4, 6, 6, 1)), jnp.float32)
    model, target = Two(), Two(C4)
    variables = model.init(jax.random.key(0), x)
    state = optimizer.init(variables["params"])
    gradient = jax.tree.map(jnp.ones_like, variables["params"])
    for _ in range(3):
        _, state = optimizer.update(gradient, state, variables["params"])
    relaxed, _ = eq.morph(variables, source=model, target=target, inputs=x)
    moved = eq.morph_optimizer(state, source=model, target=target, inputs=x)
    duals = [s.inner_states["gamma"].inner_state for s in (state, moved)]
    chex.assert_trees_all_equal(*duals)
    updates, _ = optimizer.update(
        jax.tree.map(jnp.ones_like, relaxed["params"]), moved, relaxed["params"]
    )
    assert updates["head"]["kernel"].shape == relaxed["params"]["head"]["kernel"].shape
