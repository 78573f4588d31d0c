"""All three searches, on somebody's model, over other groups, with other losses."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax.training import (
    mean_squared_error,
    pixel_cross_entropy,
    sigmoid_cross_entropy,
)

RNG = np.random.default_rng(0)
SAMPLES = 24


class Mine(nn.Module):
    """Two layers and a head, or a field of logits per point."""

    architecture: eq.Architecture
    constraint: eq.Constraint = eq.Tied()
    outputs: int = 3
    dense: bool = False  # a prediction for every point

    layer_names = ("first", "second", "last")

    @nn.compact
    def __call__(self, x, train=False):
        groups = self.architecture.groups
        tie = [{"group": H, "constraint": self.constraint} for H in groups]
        x = nn.relu(eq.LiftingConv(2, 3, name="first", **tie[0])(x))
        x = nn.relu(eq.GroupConv(2, 3, name="second", **tie[1])(x))
        if not self.dense:
            return eq.InvariantHead(self.outputs, name="last", **tie[2])(x)
        to = eq.trivial(groups[-1])
        y = eq.GroupConv(self.outputs, 1, fiber_out=to, name="last", **tie[2])(x)
        return y[..., 0, :]

    def with_groups(self, groups):
        chosen = tuple(groups[(name,)] for name in self.layer_names)
        return self.clone(architecture=eq.Architecture(chosen), constraint=eq.Tied())


AMBIENT = {
    "D4": (eq.dihedral(4), (6, 6), "C4"),
    "C4": (eq.cyclic(4), (6, 6), "C2"),
    "flip": (eq.flip(), (8,), "C1"),
    "Oh": (eq.full_octahedral(), (3, 3, 3), "O"),
}
TARGETS = {
    "classes": (None, lambda n, space: RNG.integers(3, size=n)),
    "regression": (
        mean_squared_error,
        lambda n, space: RNG.normal(size=(n, 3)).astype(np.float32),
    ),
    "labels": (
        sigmoid_cross_entropy,
        lambda n, space: RNG.integers(2, size=(n, 3)).astype(np.float32),
    ),
    "points": (
        pixel_cross_entropy,
        lambda n, space: RNG.integers(3, size=(n, *space)),
    ),
}
CASES = [
    *((ambient, "classes") for ambient in AMBIENT),
    *(("D4", targets) for targets in TARGETS if targets != "classes"),
]


def setting(ambient, targets):
    group, space, smaller = AMBIENT[ambient]
    loss_fn, draw = TARGETS[targets]
    x = RNG.normal(size=(SAMPLES, *space, 1)).astype(np.float32)
    data = x, draw(SAMPLES, space)
    settings = {} if loss_fn is None else {"loss_fn": loss_fn}
    small = next(H for H in group.subgroups if H.name == smaller)
    return group, small, data, {**settings, "batch_size": 8}


@pytest.mark.slow
@pytest.mark.parametrize(("ambient", "targets"), CASES)
def test_evolve(ambient, targets):
    group, small, data, settings = setting(ambient, targets)
    found = eq.evolve(
        lambda groups: Mine(groups, dense=targets == "points"),
        eq.Architecture.uniform(group, 3),
        data,
        data,
        optimizer=optax.adam(0.01),
        search=eq.Evolution(population_size=2, children=2, candidates=(group, small)),
        generations=1,
        first_steps=2,
        steps=2,
        **settings,
    )
    assert {net.model.architecture.groups[-1] for net in found.networks} <= {
        group,
        small,
    }
    assert np.isfinite(found.best.error)


@pytest.mark.parametrize(("ambient", "targets"), CASES)
def test_differentiate(ambient, targets):
    group, small, data, settings = setting(ambient, targets)
    mixed = Mine(
        eq.Architecture.uniform(group, 3),
        constraint=eq.Mixture((group, small)),
        dense=targets == "points",
    )
    found = eq.differentiate(
        mixed,
        data,
        data,
        optimizer=optax.adam(0.01),
        mixture_optimizer=optax.adam(0.1),
        steps=3,
        **settings,
    )
    plain, variables = found.plain
    assert plain.constraint == eq.Tied()
    for name, chosen in zip(plain.layer_names, plain.architecture.groups, strict=True):
        weights = found.weights[(name,)]
        assert float(weights[chosen.name]) == max(map(float, weights.values()))
    assert np.isfinite(found.validation[1].loss)
    assert "plain" in str(found)
    assert plain.apply(variables, data[0]).shape[0] == SAMPLES


@pytest.mark.parametrize(("ambient", "targets"), CASES)
def test_guide(ambient, targets):
    group, _, data, settings = setting(ambient, targets)
    if targets == "points":
        settings["move_targets"] = lambda y, u: eq.transform(
            y[..., None], u, group=group
        )[..., 0]
    found = eq.guide(
        lambda groups: Mine(groups, dense=targets == "points"),
        eq.Architecture.uniform(group, 3),
        data,
        data,
        optimizer=optax.adam,
        steps=3,
        **settings,
    )
    assert found.architecture.groups[0] == group
    assert found.architecture.groups[-1] == found.named.group
    assert "named: " in str(found)
    assert np.isfinite(found.validation.loss)


def test_losses_per_sample_and_bad_targets():
    y = jnp.array([[0, 1, 2], [2, 2, 2]])
    logits = 9.0 * jnp.eye(3)[jnp.array([[0, 1, 1], [2, 2, 2]])]
    found = pixel_cross_entropy(logits, y)
    np.testing.assert_allclose(found.error, [1 / 3, 0])
    with pytest.raises(ValueError, match="a class for every point"):
        pixel_cross_entropy(logits, y[:, :2])
    with pytest.raises(ValueError, match="of the outputs' shape"):
        mean_squared_error(logits, y)
    with pytest.raises(ValueError, match="of the outputs' shape"):
        sigmoid_cross_entropy(logits, y)
