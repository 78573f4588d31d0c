"""From a trained mixture to one group per layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from eqjax.constraints.base import Tied
from tests.catalogue import D4

C4, C1 = D4.subgroup("C4"), D4.subgroup("C1")
MIXTURE = eq.Mixture((D4, C4, C1))
MODEL = eq.exact(
    eq.Architecture.uniform(D4, 3),
    features=(2, 2),
    pool_after=(1,),
    kernel_size=3,
    head_features=4,
    classes=3,
    constraint=MIXTURE,
)
LOGITS = {"conv1": [3.0, 1.0, 0.0], "conv2": [0.0, 2.0, 0.0], "head": [0.0, 0.0, 1.0]}


@pytest.fixture(scope="module")
def network():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = jax.jit(MODEL.init)(jax.random.key(1), x)
    logits = {name: {"logits": jnp.array(v)} for name, v in LOGITS.items()}
    return {**variables, "mixture": logits}, x


def kernel_of(model, variables, path):
    found = eq.morphism.matching.tied_model(model, jnp.zeros((2, 8, 8, 1)))
    flat = {
        (kind, *jax.tree_util.keystr(p, simple=True, separator="/").split("/")): v
        for kind, tree in variables.items()
        for p, v in jax.tree_util.tree_leaves_with_path(tree)
    }
    return found.layers[path].read(found.own(path, flat))["kernel"]


def test_weights_by_layer_and_candidate(network):
    variables, x = network
    found = eq.mixtures(variables, model=MODEL, inputs=x)
    assert list(found) == [("conv1",), ("conv2",), ("head",)]
    for (name,), z in found.items():
        assert list(z) == ["D4", "C4", "C1"]
        expected = jax.nn.softmax(jnp.array(LOGITS[name]))
        np.testing.assert_allclose(list(z.values()), expected, rtol=1e-6)


def test_collapsed_it_computes_the_same(network):
    variables, x = network
    plain, model, report = eq.collapse(variables, model=MODEL, inputs=x)
    assert str(model.architecture) == "C1 C1 C1"
    np.testing.assert_allclose(
        model.apply(plain, x), MODEL.apply(variables, x), rtol=1e-5, atol=1e-6
    )
    assert all(change.relative_change < 1e-6 for change in report.layers)
    assert "mixture" not in plain


def test_candidates_of_no_weight_do_not_loosen_the_collapsed_layer(network):
    variables, x = network
    never = {"logits": jnp.array([0.0, 1.0, -jnp.inf])}
    variables = {**variables, "mixture": {**variables["mixture"], "conv1": never}}
    plain, model, _ = eq.collapse(variables, model=MODEL, inputs=x)
    assert str(model.architecture) == "C4 C1 C1"
    np.testing.assert_allclose(
        model.apply(plain, x), MODEL.apply(variables, x), rtol=1e-5, atol=1e-6
    )


def test_discretized_it_is_the_projection_on_the_heaviest_group(network):
    variables, x = network
    plain, model, report = eq.discretize(variables, model=MODEL, inputs=x)
    assert str(model.architecture) == "D4 C4 C1"
    assert model.constraint == Tied()
    changes = {change.path: change for change in report.layers}
    for path, group in (("conv1",), D4), (("conv2",), C4), (("head",), C1):
        before = kernel_of(MODEL, variables, path)
        after = kernel_of(model, plain, path)
        layer = eq.morphism.matching.tied_model(model, x).layers[path]
        table = layer.ties_of(group)["kernel"].table
        np.testing.assert_allclose(
            after, kernels.reynolds(before, table), rtol=1e-5, atol=1e-6
        )
        expected = np.linalg.norm(after - before) / np.linalg.norm(before)
        found = changes[path].relative_change
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert "%" in str(report)


def test_another_persons_model_says_how_to_rebuild_itself():
    class Theirs(nn.Module):
        group: eq.Group
        constraint: eq.Constraint = MIXTURE

        @nn.compact
        def __call__(self, x):
            settings = {"group": self.group, "constraint": self.constraint}
            x = eq.LiftingConv(2, 3, name="lift", **settings)(x)
            return nn.Dense(2)(nn.relu(x).mean((1, 2, 3)))

    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    model = Theirs(D4)
    variables = model.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="Theirs has no method with_groups; pass rebu"):
        eq.collapse(variables, model=model, inputs=x)
    plain, target, _ = eq.collapse(
        variables,
        model=model,
        inputs=x,
        rebuild=lambda groups: Theirs(groups[("lift",)], Tied()),
    )
    assert target.group == C1
    np.testing.assert_allclose(
        target.apply(plain, x), model.apply(variables, x), rtol=1e-5
    )


class Block(nn.Module):
    constraint: eq.Constraint
    group: eq.Group = D4

    @nn.compact
    def __call__(self, x, _):
        settings = {"group": self.group, "constraint": self.constraint}
        return eq.GroupConv(2, 3, name="conv", **settings)(x), None


class Deep(nn.Module):
    """Three layers stacked by scan."""

    constraint: eq.Constraint
    group: eq.Group = D4

    @nn.compact
    def __call__(self, x):
        kinds = ("params", "mixture", "initial_norms", "penalties")
        blocks = nn.scan(
            Block,
            variable_axes=dict.fromkeys(kinds, 0),
            split_rngs={"params": True},
            length=3,
        )
        return blocks(self.constraint, self.group, name="blocks")(x, None)[0]

    def with_groups(self, groups):
        return self.clone(group=groups["blocks", "conv"], constraint=Tied())


def test_mixed_layers_stacked_by_scan_keep_a_mixture_each():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 8, 2))
    model = Deep(MIXTURE)
    variables = model.init(jax.random.key(0), x)
    logits = jnp.array([[0, 0, -jnp.inf], [2, 3, -jnp.inf], [0, 0.5, -jnp.inf]])
    variables["mixture"]["blocks"]["conv"]["logits"] = logits
    found = eq.mixtures(variables, model=model, inputs=x)["blocks", "conv"]
    np.testing.assert_allclose(found["D4"], jax.nn.softmax(logits)[:, 0])
    moved, plain, report = eq.collapse(variables, model=model, inputs=x)
    assert plain.group == C4
    np.testing.assert_allclose(
        plain.apply(moved, x), model.apply(variables, x), rtol=1e-4, atol=1e-5
    )
    assert report.layers[0].relative_change < 1e-6
    assert eq.discretize(variables, model=model, inputs=x)[1].group == C4
    ledger = eq.distances(moved, model=plain, inputs=x, groups=(D4, C1))
    assert ledger["blocks", "conv"]["C1"].shape == (3,)
    assert np.all(ledger["blocks", "conv"]["D4"] > 0.1)


def test_priors_of_layers_stacked_by_scan_are_penalties():
    x = jnp.ones((1, 4, 4, 8, 2))
    model = Deep(eq.ResidualPathway())
    variables = jax.jit(model.init)(jax.random.key(0), x)
    _, written = jax.jit(lambda v: model.apply(v, x, mutable=["penalties"]))(variables)
    (penalty,) = jax.tree.leaves(written)
    assert penalty.shape == (3,)
    assert np.all(penalty > 0)


def test_what_else_a_layer_has_of_its_own_is_kept():
    class Scaled(eq.GroupConv):
        @nn.compact
        def __call__(self, x):
            return super().__call__(x) * self.param("gain", nn.initializers.ones, ())

    x = jax.random.normal(jax.random.key(0), (1, 3, 3, 8, 2))
    source, target = (Scaled(2, 1, group=D4, constraint=c) for c in (Tied(), MIXTURE))
    variables = source.init(jax.random.key(0), x)
    variables["params"]["gain"] = jnp.array(3.0)
    moved, _ = eq.morph(variables, source=source, target=target, inputs=x)
    np.testing.assert_allclose(
        target.apply(moved, x), source.apply(variables, x), atol=1e-6
    )
