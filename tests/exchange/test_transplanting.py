"""Whole plain networks into models of eqjax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from tests.exchange.test_importing import ESCNN, FIELDS, FIXTURE, theirs
from tests.exchange.test_plain import Repeated, network, trained_statistics
from tests.resnet import ResNet

D4 = eq.dihedral(4)
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)


class PlainNetwork(nn.Module):
    """As somebody has trained it, with names of its own."""

    @nn.compact
    def __call__(self, x, train=False):
        for _ in range(2):
            x = nn.Conv(16, (3, 3))(x)
            x = nn.relu(nn.BatchNorm(not train)(x))
        return nn.Dense(3)(x.mean((1, 2)))


class Ours(nn.Module):
    group: eq.Group = D4
    constraint: eq.Constraint = eq.Tied()

    @nn.compact
    def __call__(self, x, train=False):
        tie = {"group": self.group, "constraint": self.constraint}
        for n, make in enumerate((eq.LiftingConv, eq.GroupConv)):
            x = make(2, 3, name=f"conv{n}", **tie)(x)
            norm = eq.ElementBatchNorm(not train, group=D4, name=f"norm{n}")
            x = nn.relu(norm(x))
        return eq.InvariantHead(3, name="head", **tie)(x)


PATHS = {"conv*": "Conv_*", "norm*": "BatchNorm_*", "head": "Dense_0"}


def trained():
    model = PlainNetwork()
    return model, trained_statistics(model.init(jax.random.key(0), X))


def test_a_residual_pathway_is_the_plain_network():
    plain, variables = trained()
    ours = Ours(constraint=eq.ResidualPathway())
    found, report = eq.from_plain(variables, model=ours, inputs=X, paths=PATHS)
    np.testing.assert_allclose(
        ours.apply(found, X), plain.apply(variables, X), atol=1e-5
    )
    assert all(row.remainder < 1e-6 for row in report.layers)


def test_tied_layers_are_the_nearest_and_say_what_they_leave_out():
    _, variables = trained()
    ours = Ours()
    found, report = eq.from_plain(variables, model=ours, inputs=X, paths=PATHS)
    near = eq.from_conv(variables["params"]["Conv_1"]["kernel"], group=D4)
    np.testing.assert_allclose(
        found["params"]["conv1"]["kernel"],
        near.variables["params"]["kernel"],
        atol=1e-6,
    )
    left = {row.path: row.remainder for row in report.layers}
    assert left[("conv1",)] > 0.5
    assert "Conv_1" in str(report)
    eq.assert_equivariant(
        lambda x: Ours(eq.dihedral(4)).apply(pooled(found), x), X, group=D4
    )


def pooled(variables):
    """With the same statistics for all elements, so that norms break nothing."""
    stats = jax.tree.map(
        lambda v: jnp.broadcast_to(v.mean(0), v.shape), variables["batch_stats"]
    )
    params = dict(variables["params"])
    for name in ("norm0", "norm1"):
        params[name] = {
            key: jnp.broadcast_to(value.reshape(8, 2).mean(0), (8, 2)).reshape(
                value.shape
            )
            for key, value in params[name].items()
        }
    return {"params": params, "batch_stats": stats}


def test_names_and_layout_of_pytorch():
    plain, variables = trained()
    flat = {}
    for n in range(2):
        kernel = np.asarray(variables["params"][f"Conv_{n}"]["kernel"])
        flat[f"body.{n}.conv.weight"] = np.moveaxis(kernel, (-1, -2), (0, 1))
        flat[f"body.{n}.conv.bias"] = np.asarray(
            variables["params"][f"Conv_{n}"]["bias"]
        )
        norm = f"BatchNorm_{n}"
        for theirs_, (kind, ours_) in {
            "weight": ("params", "scale"),
            "bias": ("params", "bias"),
            "running_mean": ("batch_stats", "mean"),
            "running_var": ("batch_stats", "var"),
        }.items():
            flat[f"body.{n}.bn.{theirs_}"] = np.asarray(variables[kind][norm][ours_])
    dense = variables["params"]["Dense_0"]
    flat["head.weight"], flat["head.bias"] = (
        np.asarray(dense["kernel"]).T,
        dense["bias"],
    )
    ours = Ours(constraint=eq.ResidualPathway())
    paths = {"conv*": "body.*.conv", "norm*": "body.*.bn"}
    found, _ = eq.from_plain(flat, model=ours, inputs=X, paths=paths, layout="OIHW")
    np.testing.assert_allclose(
        ours.apply(found, X), plain.apply(variables, X), atol=1e-5
    )


@pytest.mark.parametrize("model", [ResNet(blocks=2), Repeated()], ids=["plain", "scan"])
def test_exported_and_back(model):
    variables = trained_statistics(model.init(jax.random.key(0), X))
    plain, _ = eq.export(model, variables, format="linen", inputs=X, tolerance=1e-4)
    again, report = eq.from_plain(plain, model=model, inputs=X)
    assert all(row.remainder < 1e-6 for row in report.layers)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), again, variables
    )


def test_a_searchable_network_and_back():
    model, variables, x = network()
    plain, _ = eq.export(model, variables, format="linen", inputs=x)
    again, _ = eq.from_plain(plain, model=model, inputs=x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), again, variables
    )


@pytest.mark.parametrize("name", ["D4", "C4"])
def test_a_network_of_escnn_is_relaxed_here(name):
    group = ESCNN[name]

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = eq.LiftingConv(2, 3, group=group, name="lift")(x)
            x = nn.relu(eq.BatchNorm(True, epsilon=1e-5, group=group, name="bn")(x))
            return eq.GroupConv(3, 5, group=group, name="conv")(x)

    with np.load(FIXTURE) as file:
        data = {key: file[f"{name}/{key}"] for key in FIELDS}
    x = jnp.asarray(np.moveaxis(data["x"], 1, -1))
    found, report = eq.from_plain(data, model=Net(), inputs=x, layout="escnn")
    assert all(row.remainder < 1e-5 for row in report.layers)
    y = Net().apply(found, x)
    np.testing.assert_allclose(theirs(y), data["after_conv"], atol=1e-5)
    smaller = {"conv": group.subgroup("C2")}
    relaxed, other, _ = eq.relax(found, model=Net(), groups=smaller, inputs=x)
    np.testing.assert_allclose(other.apply(relaxed, x), y, atol=1e-6)


def test_what_does_not_fit_is_named():
    _, variables = trained()
    with pytest.raises(ValueError, match=r"no conv0/kernel or .* nearest: Conv_0"):
        eq.from_plain(variables, model=Ours(), inputs=X)
    wrong = {**PATHS, "conv1": "Conv_0"}
    wrong = {"conv1": "Conv_0", **PATHS}
    with pytest.raises(ValueError, match=r"Conv_0 has shape .* conv1 .* asks for"):
        eq.from_plain(variables, model=Ours(), inputs=X, paths=wrong)
