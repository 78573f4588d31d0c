"""Plain convolutions, and exported ones of escnn, as layers with a group."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import eqjax as eq
from eqjax.exchange import channels, importing
from tests import catalogue

D4 = eq.dihedral(4)
FIXTURE = Path(__file__).parent / "escnn_1_0_11.npz"
ESCNN = {
    "D4": D4,
    "C4": eq.cyclic(4),
    "D2": eq.dihedral(2),
    "C2": eq.cyclic(2),
    "D1": eq.dihedral(1),
}
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 16, 24))
BIAS = RNG.normal(size=24)


def plain_again(near):
    own = eq.to_conv(near.layer, near.variables)
    return {
        name: np.asarray(getattr(own, name), np.float64) + left
        for name, left in near.remainder.items()
    }


@pytest.mark.parametrize("word", catalogue.CONSTRAINT_CASES)
@pytest.mark.parametrize("group", [D4, D4.subgroup("C4"), D4.subgroup("D1:i")], ids=str)
def test_there_and_back(group, word):
    constraint = catalogue.CONSTRAINT_CASES[word]
    if isinstance(constraint, eq.Mixture):
        constraint = eq.Mixture((group, group.smallest), hold_norm=False)
    near = eq.from_conv(KERNEL, bias=BIAS, group=group, constraint=constraint)
    found = plain_again(near)
    np.testing.assert_allclose(found["kernel"], KERNEL, atol=1e-10)
    np.testing.assert_allclose(found["bias"], BIAS, atol=1e-10)


def test_the_nearest_is_the_orbit_mean():
    near = eq.from_conv(KERNEL, group=D4)
    (tie,) = near.layer.ties.values()
    full = channels.full_arrays_of(near.layer, {"kernel": jnp.asarray(KERNEL)})
    expected = eq.kernels.reynolds(full["kernel"], tie.table)
    found = near.layer.read(importing.own_variables(near.variables))["kernel"]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    left = near.relative_remainder
    assert left == pytest.approx(
        float(eq.kernels.distance(full["kernel"], tie.table)), 1e-6
    )
    assert 0.9 < left < 1  # hardly any of a random kernel commutes


def test_a_residual_pathway_holds_everything():
    x = jnp.asarray(RNG.normal(size=(2, 6, 6, 8, 2)))
    near = eq.from_conv(
        KERNEL, bias=BIAS, group=D4, constraint=eq.ResidualPathway(), padding="VALID"
    )
    assert near.relative_remainder < 1e-12
    found = near.layer.apply(near.variables, x)
    expected = jax.lax.conv_general_dilated(
        x.reshape(2, 6, 6, 16),
        jnp.asarray(KERNEL),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(found.reshape(2, 4, 4, 24), expected + BIAS, atol=1e-10)


@pytest.mark.parametrize("lifting", [True, False])
def test_layers_of_flax_bring_their_settings(lifting):
    channels = 3 if lifting else 16
    x = jnp.asarray(RNG.normal(size=(2, 8, 8, channels)), jnp.float32)
    settings = {"strides": 2, "padding": 1, "kernel_dilation": 2}
    linen = nn.Conv(8, (3, 3), **settings)
    variables = linen.init(jax.random.key(0), x)
    native = nnx.Conv(channels, 8, (3, 3), **settings, rngs=nnx.Rngs(0))
    free = {"group": D4, "lifting": lifting, "constraint": eq.ResidualPathway()}
    for near, expected in (
        (eq.from_conv(linen, variables=variables, **free), linen.apply(variables, x)),
        (eq.from_conv(native, **free), native(x)),
    ):
        given = x if lifting else x.reshape(2, 8, 8, 8, 2)
        found = near.layer.apply(near.variables, given)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)


def test_feature_groups_and_quotients():
    kernel = RNG.normal(size=(3, 3, 8, 32))
    near = eq.from_conv(kernel, group=D4, feature_group_count=2)
    np.testing.assert_allclose(plain_again(near)["kernel"], kernel, atol=1e-10)
    fiber = eq.quotient(D4.subgroup("C4"))
    near = eq.from_conv(kernel, group=D4, fiber_in=fiber, fiber_out=fiber)
    assert near.layer.features == 16
    np.testing.assert_allclose(plain_again(near)["kernel"], kernel, atol=1e-10)


@pytest.mark.parametrize("group", [D4, D4.subgroup("C4")], ids=str)
def test_shuffled_channels_are_matched(group):
    layer = eq.LiftingConv(3, 5, group=group, use_bias=False)
    variables = layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 2)))
    kernel = np.asarray(eq.to_conv(layer, variables).kernel)
    shuffled = kernel[..., RNG.permutation(kernel.shape[-1])]
    settings = {"group": group, "lifting": True}
    assert eq.from_conv(shuffled, **settings).relative_remainder > 0.3
    near = eq.from_conv(shuffled, order="matched", **settings)
    assert near.relative_remainder < 1e-6
    again = eq.from_conv(shuffled, order=near.order, **settings)
    assert again.relative_remainder < 1e-6


def test_matching_never_makes_it_worse_and_the_next_layer_is_told():
    kernel = RNG.normal(size=(3, 3, 2, 16))
    settings = {"group": D4, "lifting": True}
    given = eq.from_conv(kernel, **settings)
    near = eq.from_conv(kernel, order="matched", **settings)
    assert near.relative_remainder <= given.relative_remainder
    second = RNG.normal(size=(3, 3, 16, 8))
    free = {"constraint": eq.ResidualPathway(), "group": D4}
    after = eq.from_conv(second, input_order=near.order, **free)
    first = eq.from_conv(kernel, order=near.order, lifting=True, **free)
    x = jnp.asarray(RNG.normal(size=(1, 6, 6, 2)))
    found = after.layer.apply(after.variables, first.layer.apply(first.variables, x))
    y = nn.Conv(16, (3, 3), use_bias=False).apply({"params": {"kernel": kernel}}, x)
    y = nn.Conv(8, (3, 3), use_bias=False).apply({"params": {"kernel": second}}, y)
    np.testing.assert_allclose(found.reshape(y.shape), y, atol=1e-9)


@pytest.mark.parametrize("name", ESCNN)
def test_a_network_of_escnn_comes_out_as_escnn_computed_it(name):
    group = ESCNN[name]
    with np.load(FIXTURE) as file:
        data = {key: file[f"{name}/{key}"] for key in FIELDS}
    x = jnp.asarray(np.moveaxis(data["x"], 1, -1))
    lift, lifted = eq.from_escnn(
        data["lift.weight"], bias=data["lift.bias"], group=group, lifting=True
    )
    norm, normed = eq.from_escnn_norm(
        mean=data["bn.mean"],
        var=data["bn.var"],
        scale=data["bn.scale"],
        bias=data["bn.bias"],
        epsilon=float(data["bn.eps"]),
        group=group,
        use_running_average=True,
    )
    conv, convolved = eq.from_escnn(
        data["conv.weight"], bias=data["conv.bias"], group=group
    )
    y = lift.apply(lifted, x)
    np.testing.assert_allclose(theirs(y), data["after_lift"], atol=1e-5)
    y = norm.apply(normed, y)
    np.testing.assert_allclose(theirs(y), data["after_norm"], atol=1e-5)
    y = conv.apply(convolved, nn.relu(y))
    np.testing.assert_allclose(theirs(y), data["after_conv"], atol=1e-5)
    pooled = eq.fiber_pool(y, group=group, reduce="max")[..., 0, :]
    np.testing.assert_allclose(
        np.moveaxis(np.asarray(pooled), -1, 1), data["pooled"], atol=1e-5
    )


FIELDS = (
    "x lift.weight lift.bias conv.weight conv.bias bn.mean bn.var bn.scale bn.bias "
    "bn.eps after_lift after_norm after_conv pooled"
).split()


def theirs(field):
    """A field as escnn has it: channels first, fields outermost."""
    batch, *space, elements, channels = field.shape
    moved = np.moveaxis(np.asarray(field), (-1, -2), (1, 2))
    return moved.reshape(batch, channels * elements, *space)


def test_what_escnn_did_not_export_is_refused():
    with pytest.raises(ValueError, match="do not commute with"):
        eq.from_escnn(np.moveaxis(KERNEL, (-1, -2), (0, 1)), group=D4)
    numbers = {n: RNG.uniform(size=16) for n in ("mean", "var", "scale", "bias")}
    with pytest.raises(ValueError, match="different numbers for the 8 elements"):
        eq.from_escnn_norm(**numbers, group=D4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "IOHW"}, "layout must be one of"),
        ({"order": "best"}, "order must be 'as given'"),
        ({"order": [0, 0]}, "order must be a permutation of 24"),
        ({"group": eq.octahedral()}, "has 3 axes of taps"),
        ({"group": eq.full_octahedral()}, "has 3 axes of taps"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        eq.from_conv(KERNEL, **{"group": D4, **settings})


def test_channels_that_the_fiber_does_not_divide():
    with pytest.raises(ValueError, match=r"20 real output .* nearest .* is 16"):
        eq.from_conv(KERNEL[..., :20], group=D4)
    with pytest.raises(ValueError, match=r"3 real input .* nearest .* is 8"):
        eq.from_conv(KERNEL[:, :, :3], group=D4)
    with pytest.raises(TypeError, match="to_conv takes a convolution"):
        eq.to_conv(eq.BatchNorm(group=D4), {})


# --- circular harmonics ---------------------------------------------------------------

ANGLES = Path(__file__).parent / "escnn_angles.npz"  # escnn 1.0.11, float32


@pytest.mark.parametrize("kind", ["lifting", "conv"])
@pytest.mark.parametrize("name", ["D8", "C6"])
def test_finer_angles_of_escnn_come_out_as_escnn_computed_them(name, kind):
    group = {"D8": eq.dihedral(8), "C6": eq.cyclic(6)}[name]
    own = {
        key: np.load(ANGLES)[f"{name}/{kind}/{key}"]
        for key in ("weight", "bias", "x", "y")
    }
    lifting = kind == "lifting"
    layer, variables = eq.from_escnn(
        own["weight"], group=group, bias=own["bias"], lifting=lifting
    )
    x = np.moveaxis(own["x"], 1, -1)
    y = layer.apply(variables, x if lifting else x[..., None])
    expected = np.moveaxis(own["y"], 1, -1)[..., None]
    np.testing.assert_allclose(y, expected, atol=1e-5)
    wrong = eq.CircularHarmonics((0.0, 1.0), (0.5, 0.5), (0, 1))
    with pytest.raises(ValueError, match="rings and frequencies"):
        eq.from_escnn(own["weight"], group=group, lifting=lifting, basis=wrong)


def test_a_plain_kernel_as_harmonics_and_what_is_left():
    D8 = eq.dihedral(8)
    kernel = np.random.default_rng(0).normal(size=(5, 5, 16, 32))
    near = eq.from_conv(kernel, group=D8)
    assert near.layer.harmonics == eq.CircularHarmonics()
    own = np.asarray(eq.to_conv(near.layer, near.variables).kernel, np.float64)
    np.testing.assert_allclose(own + near.remainder["kernel"], kernel, atol=1e-6)
    again = eq.from_conv(own, group=D8)
    assert again.relative_remainder < 1e-6
    shuffled = own[..., np.random.default_rng(1).permutation(32)]
    matched = eq.from_conv(shuffled, group=D8, order="matched")
    assert (
        matched.relative_remainder < eq.from_conv(shuffled, group=D8).relative_remainder
    )


def test_networks_over_finer_angles_are_exported():
    groups = eq.Architecture.uniform(eq.dihedral(8), 3)
    model = eq.exact(groups, features=(1, 2), pool_after=(1,), classes=3)
    x = jax.random.normal(jax.random.key(0), (2, 9, 9, 1))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    found, plain = eq.export(model, variables, format="linen", inputs=x)
    assert found["params"]["conv1"]["kernel"].shape == (5, 5, 1, 16)
    np.testing.assert_allclose(
        plain.apply(found, x), model.apply(variables, x), atol=1e-5
    )
