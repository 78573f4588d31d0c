"""Reading off groups by perturbation: what is removed, and what is decided."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from eqjax.kernels.orbits import kernel_table
from eqjax.search.perturbation import added_part, read_off
from tests.catalogue import D4

C4, C2, C1 = (D4.subgroup(name) for name in ("C4", "C2", "C1"))
NAMES = ("conv1", "head")
MODEL = eq.exact(
    eq.Architecture.uniform(D4, 2),
    features=(3,),
    pool_after=(),
    kernel_size=3,
    head_features=6,
    classes=3,
    constraint=eq.Mixture((D4, C4, C1), hold_norm=False),
)


def tied(full, group):
    """The part of a full kernel that commutes with a group."""
    return kernels.reynolds(full, table(group))


def table(group):
    fiber = eq.regular(D4)
    return kernel_table(group, (3, 3), fiber, fiber)


@pytest.fixture(scope="module")
def full():
    shape = (*table(D4).shape, 2, 2)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize("group", D4.subgroups[1:], ids=str)
def test_a_candidate_adds_nothing_exactly_where_the_kernel_has_the_larger_symmetry(
    full, group
):
    for larger in (G for G in D4.subgroups if group < G):
        part = added_part(tied(full, larger), table(D4), group, (larger,))
        np.testing.assert_allclose(part, 0, atol=1e-12)
        broken = tied(full, group)
        part = added_part(broken, table(D4), group, (larger,))
        np.testing.assert_allclose(part, broken - tied(full, larger), atol=1e-12)
        assert np.linalg.norm(part) > 0.1 * np.linalg.norm(broken)


@pytest.mark.parametrize("group", D4.subgroups[1:], ids=str)
def test_what_several_larger_groups_allow_together_is_not_the_candidates_own(
    full, group
):
    """Whether or not their averages commute, as those of two reflections do not."""
    larger = tuple(G for G in D4.subgroups if group < G)
    together = sum((tied(full + i, G) for i, G in enumerate(larger)), 0 * full)
    np.testing.assert_allclose(
        added_part(together, table(D4), group, larger), 0, atol=1e-12
    )
    part = added_part(full, table(D4), group, larger)
    again = added_part(part, table(D4), group, larger)
    np.testing.assert_allclose(again, part, atol=1e-12)  # a projection
    np.testing.assert_allclose(tied(part, group), part, atol=1e-12)
    for G in larger:
        np.testing.assert_allclose(tied(part, G), 0, atol=1e-12)  # orthogonal to all


def planted(needed, favored):
    """Variables of which one candidate's kernel is needed and another's logit leads."""
    x = np.random.default_rng(0).normal(size=(128, 6, 6, 1)).astype(np.float32)
    variables = jax.jit(MODEL.init)(jax.random.key(0), x)
    params = dict(variables["params"])
    for layer in NAMES:
        params[layer] = {
            name: value * (name.endswith(needed) or name.endswith("_D4"))
            for name, value in params[layer].items()
        }
    logits = jnp.where(jnp.array([n == favored for n in ("D4", "C4", "C1")]), 1.0, 0.0)
    mixture = {layer: {"logits": logits} for layer in NAMES}
    variables = {**variables, "params": params, "mixture": mixture}
    outputs = np.asarray(jax.jit(MODEL.apply)(variables, x))
    size = 20 / outputs.std(0)  # no doubts, and no class forgotten
    params["logits"] = {
        "kernel": params["logits"]["kernel"] * size,
        "bias": (params["logits"]["bias"] - outputs.mean(0)) * size,
    }
    y = ((outputs - outputs.mean(0)) * size).argmax(-1)
    assert np.bincount(y, minlength=3).min() > 3
    return variables, x, y


def leave(variables, model, key):
    return variables


@pytest.mark.parametrize(
    ("needed", "favored"), [("C4", "D4"), ("C1", "D4"), ("D4", "C1"), ("C4", "C1")]
)
@pytest.mark.parametrize("order", ["output", "random"])
def test_the_group_that_the_kernel_needs_not_that_of_the_largest_weight(
    needed, favored, order
):
    variables, x, y = planted(needed, favored)
    _, heaviest, _ = eq.discretize(variables, model=MODEL, inputs=x)
    assert str(heaviest.architecture) == f"{favored} {favored}"
    settings = {"fine_tune": leave, "key": jax.random.key(1), "order": order}
    plain, model, report = read_off(variables, model=MODEL, x=x, y=y, **settings)
    assert str(model.architecture) == f"{needed} {needed}"
    assert model.constraint == eq.Tied()
    assert "mixture" not in plain
    logits = jax.jit(MODEL.apply)(variables, x)
    np.testing.assert_allclose(jax.jit(model.apply)(plain, x), logits, atol=1e-3)
    for layer in report.layers:
        assert list(layer.removals) == ["C4", "C1"]
        for name, removal in layer.removals.items():
            if D4.subgroup(name) < D4.subgroup(needed):
                assert removal.share < 1e-6
                assert not removal.needed
            elif name == needed:
                assert removal.needed
    assert f"{needed}  " in str(report)


@pytest.mark.parametrize(("needed", "favored"), [("C4", "D4"), ("C1", "D4")])
def test_the_largest_group_that_fine_tuning_makes_up_for(needed, favored):
    variables, x, y = planted(needed, favored)
    tuned = []

    def count(variables, model, key):
        tuned.append(model.architecture.names)
        return variables

    settings = {"fine_tune": count, "key": jax.random.key(1), "order": "output"}
    plain, model, report = read_off(
        variables, model=MODEL, x=x, y=y, by="fine-tuning", **settings
    )
    assert str(model.architecture) == f"{needed} {needed}"
    names = ("D4", "C4", "C1")
    assert tuned == [("D4", H) for H in names] + [(H, needed) for H in names]
    logits = jax.jit(MODEL.apply)(variables, x)
    np.testing.assert_allclose(jax.jit(model.apply)(plain, x), logits, atol=1e-3)
    for layer in report.layers:
        needs = {H: not D4.subgroup(H) <= D4.subgroup(needed) for H in names}
        assert {n: r.needed for n, r in layer.removals.items()} == needs
    assert "tied to C4" in str(report)


def test_networks_that_all_diverge_are_an_error():
    variables, x, y = planted("C4", "D4")

    def diverge(variables, model, key):
        return jax.tree.map(lambda v: v * jnp.nan, variables)

    with pytest.raises(ValueError, match="no loss is a number"):
        read_off(
            variables,
            model=MODEL,
            x=x,
            y=y,
            fine_tune=diverge,
            key=jax.random.key(0),
            by="fine-tuning",
        )


def test_layers_are_decided_one_at_a_time_and_the_rest_is_tuned():
    variables, x, y = planted("C4", "D4")
    seen = []

    def tune(variables, model, key):
        seen.append((model.constraints, model.architecture.names))
        left = sorted(variables.get("mixture", {}))
        mixed = [constraint != eq.Tied() for constraint in model.constraints]
        assert left == list(np.array(NAMES)[mixed])
        return {**variables, "params": jax.tree.map(lambda v: v, variables["params"])}

    settings = {"fine_tune": tune, "key": jax.random.key(0)}
    _, _, report = read_off(
        variables, model=MODEL, x=x, y=y, order="output", **settings
    )
    assert [layer.path for layer in report.layers] == [("head",), ("conv1",)]
    mixture = MODEL.constraint
    assert seen == [
        ((mixture, eq.Tied()), ("D4", "C4")),
        ((eq.Tied(), eq.Tied()), ("C4", "C4")),
    ]


def test_a_loss_that_is_not_finite_gives_no_symmetry_away():
    variables, x, y = planted("D4", "D4")
    params = {**variables["params"], "logits": {"kernel": jnp.full((6, 3), np.nan)}}
    params["logits"]["bias"] = variables["params"]["logits"]["bias"]
    conv = {**params["conv1"]}
    conv["kernel_C1"] = jnp.ones_like(conv["kernel_C1"]) + conv["kernel_C1"]
    conv["kernel_C1"] = conv["kernel_C1"].at[0].set(3.0)
    lost = {**variables, "params": {**params, "conv1": conv}}
    settings = {"fine_tune": leave, "key": jax.random.key(0)}
    _, model, report = read_off(lost, model=MODEL, x=x, y=y, **settings)
    assert model.architecture.names == ("C1", "D4")
    (removal,) = (
        layer.removals["C1"] for layer in report.layers if layer.path == ("conv1",)
    )
    assert removal.needed
    assert np.isnan(removal.cost)


def test_without_a_candidate_inside_all_that_are_needed_the_costliest_stays():
    pair = (D4, C4, D4.subgroup("D2:i"))
    model = MODEL.clone(constraint=eq.Mixture(pair, hold_norm=False))
    x = np.random.default_rng(0).normal(size=(64, 6, 6, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    y = np.asarray(jax.jit(model.apply)(variables, x)).argmax(-1)
    settings = {"fine_tune": leave, "key": jax.random.key(0), "margin": -np.inf}
    _, found, report = read_off(variables, model=model, x=x, y=y, **settings)
    for layer, group in zip(NAMES, found.architecture.groups, strict=True):
        (own,) = (e.removals for e in report.layers if e.path == (layer,))
        costs = {name: removal.cost for name, removal in own.items()}
        assert group.name == max(costs, key=costs.get)


def test_somebodys_model_is_read_off_and_one_that_cannot_be_says_why():
    class Theirs(nn.Module):
        group: eq.Group
        constraint: eq.Constraint = eq.Mixture((D4, C1))

        @nn.compact
        def __call__(self, x):
            settings = {"group": self.group, "constraint": self.constraint}
            x = eq.LiftingConv(2, 3, name="lift", **settings)(x)
            return nn.Dense(2)(nn.relu(x).mean((1, 2, 3)))

    x = np.random.default_rng(0).normal(size=(16, 4, 4, 1)).astype(np.float32)
    y = np.arange(16) % 2
    model = Theirs(D4)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    settings = {"x": x, "y": y, "fine_tune": leave, "key": jax.random.key(0)}
    with pytest.raises(ValueError, match="Theirs has no method with_groups; pass rebu"):
        read_off(variables, model=model, **settings)
    with pytest.raises(ValueError, match="that layer is Mixture"):
        read_off(variables, model=model, rebuild=lambda m, g: m, **settings)
    _, found, _ = read_off(
        variables,
        model=model,
        rebuild=lambda m, groups: Theirs(groups[("lift",)], eq.Tied()),
        **settings,
    )
    assert found.constraint == eq.Tied()


def test_bad_arguments():
    variables, x, y = planted("D4", "D4")
    kind = {"fine_tune": leave, "key": jax.random.key(0)}
    with pytest.raises(ValueError, match="order must be one of .*, got 'first'"):
        read_off(variables, model=MODEL, x=x, y=y, order="first", **kind)
    with pytest.raises(ValueError, match="two samples or more, got 1"):
        read_off(variables, model=MODEL, x=x[:1], y=y[:1], **kind)
    plain = MODEL.clone(constraint=eq.Tied())
    with pytest.raises(ValueError, match="has no mixed layer to read off"):
        read_off(variables, model=plain, x=x, y=y, **kind)
