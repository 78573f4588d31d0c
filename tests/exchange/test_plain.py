"""A network of plain layers computes what the network of layers with a group does."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax.exchange.plain import to_plain
from tests import catalogue
from tests.resnet import ResNet

D4 = eq.dihedral(4)
C2 = D4.subgroup("C2")
RMS = catalogue.conv(eq.RMSNorm, use_bias=True, scale_init=catalogue.RANDOM)
CASES = {
    "plane, RMS norm with an offset": catalogue.plane(RMS, (3, 3)),
    **{f"plane, {name}": case for name, case in catalogue.PLANE.items()},
    **{f"line, {name}": case for name, case in catalogue.LINE.items()},
    **{
        f"volume, {name}": case
        for name, case in catalogue.volume(eq.octahedral()).items()
    },
}


@pytest.mark.parametrize("name", CASES)
def test_layers(name):
    case = CASES[name]
    for group in (case.ambient, case.ambient.smallest):
        model = case.make(group)
        if "in training" in name:
            model = model.clone(use_running_average=True)
        variables, x = case.variables(group), case.input()
        plain, network = to_plain(variables, model=model, inputs=x)
        found = network.apply(plain, x)
        np.testing.assert_allclose(found, model.apply(variables, x), atol=1e-12)


@pytest.mark.parametrize(
    ("word", "name"), catalogue.combinations(catalogue.CONSTRAINED)
)
def test_constraints(word, name):
    case = catalogue.CONSTRAINED[name]
    group = catalogue.D4
    model = case.make(group, constraint=catalogue.CONSTRAINT_CASES[word])
    x = case.input()
    variables = model.init(jax.random.key(0), x)
    plain, network = to_plain(variables, model=model, inputs=x)
    assert set(plain) == {"params"}
    found = network.apply(plain, x)
    np.testing.assert_allclose(found, model.apply(variables, x), atol=1e-10)


def test_parameters_are_those_of_flax():
    x = jnp.ones((1, 8, 8, 2))
    layer = eq.LiftingConv(3, 3, strides=2, padding=1, group=C2)
    variables = layer.init(jax.random.key(0), x)
    plain, _ = to_plain(variables, model=layer, inputs=x)
    theirs = nn.Conv(24, (3, 3), 2, 1)
    shapes = jax.eval_shape(theirs.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, dict(shapes))
    expected = layer.apply(variables, x).reshape(1, 4, 4, 24)
    np.testing.assert_allclose(theirs.apply(plain, x), expected, atol=1e-6)


def trained_statistics(variables, seed=0):
    """Statistics and scales as training leaves them: far from zero and one."""
    rng = np.random.default_rng(seed)
    stats = {
        "batch_stats": jax.tree.map(
            lambda v: jnp.asarray(rng.uniform(0.5, 2, v.shape), v.dtype),
            variables["batch_stats"],
        )
    }
    params = jax.tree.map(
        lambda v: v + jnp.asarray(rng.normal(0, 0.1, v.shape), v.dtype),
        variables["params"],
    )
    return {**variables, **stats, "params": params}


def network(groups="D4 C4 D1:i", **settings):
    groups = eq.Architecture.parse(D4, groups)
    kind = {"features": (2, 3), "pool_after": (1,), "kernel_size": 3, "classes": 3}
    model = eq.exact(groups, head_features=4, **kind, **settings)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    return model, trained_statistics(model.init(jax.random.key(0), x)), x


@pytest.mark.parametrize("norm", ["channel", "element"])
def test_folded_norms_are_gone(norm):
    model, variables, x = network(norm=norm)
    plain, folded = to_plain(variables, model=model, inputs=x, fold_norms=True)
    np.testing.assert_allclose(
        folded.apply(plain, x), model.apply(variables, x), atol=1e-5
    )
    assert set(plain) == {"params"}
    assert set(plain["params"]) == {"conv1", "conv2", "head", "logits"}


def test_folding_with_feature_groups_and_an_own_bias():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 5, 8, 4)))
    conv = eq.GroupConv(6, 3, feature_group_count=2, group=D4)
    for norm in (
        eq.BatchNorm(use_running_average=True, group=D4),
        eq.ElementBatchNorm(use_running_average=True, group=D4),
        nn.BatchNorm(use_running_average=True, use_scale=False),
    ):
        model = nn.Sequential([conv, norm])
        variables = trained_statistics(model.init(jax.random.key(0), x))
        plain, folded = to_plain(variables, model=model, inputs=x, fold_norms=True)
        assert set(plain["params"]) == {"layers_0"}
        np.testing.assert_allclose(
            folded.apply(plain, x), model.apply(variables, x), atol=1e-5
        )


@pytest.mark.slow
def test_a_resnet_under_scan_and_remat():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    for model in (ResNet(blocks=2), Repeated()):
        variables = trained_statistics(model.init(jax.random.key(0), x))
        for fold in (False, True):
            plain, found = to_plain(variables, model=model, inputs=x, fold_norms=fold)
            np.testing.assert_allclose(
                found.apply(plain, x), model.apply(variables, x), atol=2e-5
            )
            assert ("batch_stats" in plain) == (not fold)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        y = eq.GroupConv(2, 3, group=D4, name="conv")(x)
        return nn.relu(x + eq.BatchNorm(True, group=D4, name="norm")(y)), None


class Repeated(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.remat(eq.LiftingConv)(2, 3, group=D4, name="stem")(x)
        axes = {"params": 0, "batch_stats": 0}
        steps = nn.scan(Step, axes, split_rngs={"params": True}, length=3)
        x, _ = steps(name="steps")(x, None)
        return eq.InvariantHead(3, group=D4, name="head")(x)


def test_relaxed_models_and_mixtures():
    model, variables, x = network("D4 D4 D4", constraint=eq.Mixture((D4, C2)))
    relaxed, other, _ = eq.relax(
        variables, model=model, groups={"norm2": D4.smallest}, inputs=x
    )
    plain, found = to_plain(relaxed, model=other, inputs=x)
    np.testing.assert_allclose(
        found.apply(plain, x), other.apply(relaxed, x), atol=1e-5
    )


def test_a_plain_network_is_trained_on():
    model, variables, x = network()
    plain, other = to_plain(variables, model=model, inputs=x)
    _, updates = other.apply(plain, x, train=True, mutable=["batch_stats"])
    assert updates["batch_stats"]["norm1"]["mean"].shape == (16,)


def test_a_layer_of_another_kind():
    class Own(eq.layers.base.TiedModule):
        group: eq.Group

        @nn.compact
        def __call__(self, x):
            return x + self.full_arrays({}, jnp.float32).get("no", 0)

        def ties_of(self, group):
            return {}

    x = jnp.ones((1, 4, 4, 8, 2))
    model = Own(group=D4)
    _, network = to_plain({}, model=model, inputs=x)
    with pytest.raises(ValueError, match="Own, which has no plain counterpart"):
        network.apply({}, x)


def test_norms_that_measure_the_batch_are_not_folded():
    model, variables, x = network()
    with pytest.raises(ValueError, match="norm1 measures every batch"):
        to_plain(
            variables,
            model=model,
            inputs=x,
            call_kwargs={"train": True},
            fold_norms=True,
        )
