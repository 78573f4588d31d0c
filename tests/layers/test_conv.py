"""Every layer commutes with each element of its group and with no other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from tests import oracle
from tests.catalogue import D4, FLIP, LINE, PLANE, run, volume
from tests.tolerances import BROKEN, DOUBLE, SINGLE

OH = eq.full_octahedral()
VOLUME = volume(OH)


@functools.cache
def all_transforms(ambient, fiber):
    """A compiled function from a field to its transforms by every ambient element."""

    def move(x):
        one = functools.partial(eq.transform, x, group=ambient, fiber=fiber)
        return jnp.concatenate([one(u) for u in ambient.elements])

    return jax.jit(move)


def errors(case, group, dtype=np.float64):
    """Relative equivariance error of a layer over `group` for each ambient element."""
    variables = case.variables(group, dtype)
    ambient, n = case.ambient, case.ambient.order
    moved = all_transforms(ambient, case.fiber_in)(case.input(1, dtype))
    if getattr(case.make(group), "use_running_average", None) is False:
        samples = jnp.split(moved, n)
        got = np.concatenate([run(case, group, variables, x) for x in samples])
    else:
        got = run(case, group, variables, moved)
    reference = got[:1]  # element 0 is the identity
    if case.fiber_out is None:
        expected = np.repeat(reference, n, axis=0)
    else:
        fiber = None if case.fiber_out.size == n else case.fiber_out
        expected = np.asarray(all_transforms(ambient, fiber)(reference))
    gap = np.linalg.norm((got - expected).reshape(n, -1), axis=1)
    return gap / np.linalg.norm(reference)


def check_commutes_with_exactly(case, group, dtype=np.float64, tolerance=DOUBLE):
    found = errors(case, group, dtype)
    inside = np.isin(np.arange(case.ambient.order), group.elements)
    assert np.all(found[inside] < tolerance), found
    assert np.all(found[~inside] > BROKEN), found


@pytest.mark.parametrize("H", D4.subgroups, ids=str)
@pytest.mark.parametrize("name", PLANE)
def test_commutes_with_exactly_its_group_in_the_plane(name, H):
    check_commutes_with_exactly(PLANE[name], H)


@pytest.mark.parametrize("H", FLIP.subgroups, ids=str)
@pytest.mark.parametrize("name", LINE)
def test_commutes_with_exactly_its_group_on_a_line(name, H):
    check_commutes_with_exactly(LINE[name], H)


@pytest.mark.parametrize("H", [c[0] for c in OH.conjugacy_classes], ids=str)
@pytest.mark.parametrize("name", VOLUME)
def test_commutes_with_exactly_its_group_in_a_volume(name, H):
    check_commutes_with_exactly(VOLUME[name], H)


@pytest.mark.parametrize("H", OH.subgroups, ids=str)
def test_every_subgroup_of_the_cube(H):
    check_commutes_with_exactly(VOLUME["conv 2x2x2"], H)


@pytest.mark.parametrize("name", PLANE)
def test_single_precision(name):
    for members in D4.conjugacy_classes:
        check_commutes_with_exactly(PLANE[name], members[0], np.float32, SINGLE)


@pytest.mark.parametrize("name", VOLUME)
def test_single_precision_in_a_volume(name):
    for family in ("Oh", "T", "C2v:k,i", "C1"):
        H = OH.subgroup(family)
        check_commutes_with_exactly(VOLUME[name], H, np.float32, SINGLE)


@pytest.mark.parametrize("name", PLANE)
def test_jit_equals_eager_and_vmap_equals_loop(name):
    case = PLANE[name]
    model = case.make(D4.subgroup("C4"))
    x = case.input()
    members = [case.variables(D4.subgroup("C4"))]
    members.append(jax.tree.map(lambda v: 2 * v, members[0]))

    def apply(variables):
        return model.apply(variables, x, mutable=["batch_stats"])[0]

    loop = [apply(v) for v in members]
    stacked = jax.vmap(apply)(jax.tree.map(lambda *v: jnp.stack(v), *members))
    for i, one in enumerate(loop):
        np.testing.assert_allclose(stacked[i], one, rtol=DOUBLE, atol=DOUBLE)
        np.testing.assert_allclose(
            jax.jit(apply)(members[i]), one, rtol=DOUBLE, atol=DOUBLE
        )


# --- against definitions that know no tables ----------------------------------------


@pytest.mark.parametrize("u", range(8))
def test_transform_is_rotation_and_flip(u):
    field = np.random.default_rng(0).normal(size=(5, 5, 8, 3))
    moved = eq.transform(jnp.asarray(field)[None], u, group=D4)[0]
    assert np.array_equal(moved, oracle.act_on_field(field, u))
    image = eq.transform(jnp.asarray(field[:, :, 0])[None], u, group=D4)[0]
    assert np.array_equal(image, oracle.act(field[:, :, 0], u))


def test_transform_in_a_volume_is_rotation_and_flip():
    x = np.random.default_rng(0).normal(size=(1, 3, 3, 3, 2))
    for u, matrix in enumerate(OH.matrices):
        expected = np.empty_like(x)
        for p in np.ndindex(3, 3, 3):
            source = np.linalg.inv(matrix) @ (np.array(p) - 1) + 1
            expected[0][p] = x[0][tuple(np.rint(source).astype(int))]
        assert np.array_equal(eq.transform(x, u, group=OH), expected)


def test_transform_acts_from_the_left():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 3, 3, 8, 1)))
    for u in range(8):
        for v in range(8):
            twice = eq.transform(eq.transform(x, v, group=D4), u, group=D4)
            once = eq.transform(x, int(D4.product[u, v]), group=D4)
            assert np.array_equal(twice, once)


@pytest.mark.parametrize("name", ["C1", "C2", "C4", "D1:j", "D2:i", "D4"])
@pytest.mark.parametrize("kernel_size", [3, 2])
def test_group_convolution_is_the_textbook_one(name, kernel_size):
    # The layer over H, seen over the group H alone, with any other ambient copy of it.
    H = D4.subgroup(name)
    alone = eq.Group(H.matrices)
    rng = np.random.default_rng(0)
    layer = eq.GroupConv(2, kernel_size, use_bias=False, group=alone)
    x = rng.normal(size=(1, 4, 4, H.order, 2))
    kernel = rng.normal(size=layer.init(jax.random.key(0), x)["params"]["kernel"].shape)
    full = kernels.expand(jnp.asarray(kernel), layer.ties["kernel"])
    identity_filters = np.asarray(full)[:, :, :, 0]
    expected = oracle.group_convolution(x[0], identity_filters, list(H.elements))
    got = layer.apply({"params": {"kernel": kernel}}, x)[0]
    np.testing.assert_allclose(got, expected, atol=DOUBLE)


def test_a_plain_convolution_is_not_equivariant():
    # The laws have teeth: a layer tied to nothing fails them for every element.
    found = errors(PLANE["conv 3x3"], D4.subgroup("C1"))
    assert found[0] < DOUBLE
    assert np.all(found[1:] > BROKEN)


# --- settings -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_dtypes(dtype):
    layer = eq.GroupConv(2, 3, dtype=dtype, param_dtype=dtype, group=D4)
    norm = eq.BatchNorm(use_running_average=False, dtype=dtype, group=D4)
    x = jnp.ones((1, 4, 4, 8, 2), jnp.float32)
    y, variables = layer.init_with_output(jax.random.key(0), x)
    assert y.dtype == dtype
    assert variables["params"]["kernel"].dtype == dtype
    z, variables = norm.init_with_output(jax.random.key(0), y)
    assert z.dtype == dtype
    assert variables["batch_stats"]["statistics"]["mean"].dtype == jnp.float32


def test_precision_reaches_the_convolution():
    layer = eq.GroupConv(2, 3, precision="highest", group=D4)
    x = jnp.ones((1, 4, 4, 8, 2))
    variables = layer.init(jax.random.key(0), x)
    assert "HIGHEST" in str(jax.make_jaxpr(layer.apply)(variables, x))


def test_depthwise_mixes_fiber_elements_but_not_channels():
    layer = eq.GroupConv(3, 3, feature_group_count=3, group=D4)
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 8, 3))
    variables = layer.init(jax.random.key(0), x)
    assert variables["params"]["kernel"].shape == (9 * 64 // 8, 1, 3)
    changed = x.copy()
    changed[..., 0, 1] += 1
    difference = np.abs(layer.apply(variables, changed) - layer.apply(variables, x))
    assert np.all(difference[..., 1].max((0, 1, 2)) > BROKEN)
    assert difference[..., [0, 2]].max() < DOUBLE


def test_non_square_kernels_and_strides():
    D2 = D4.subgroup("D2:i")
    layer = eq.GroupConv(2, (3, 1), strides=(2, 1), padding=((1, 1), (0, 0)), group=D2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 4, 8, 2)))
    variables = layer.init(jax.random.key(0), x)
    error = eq.equivariance_error(lambda x: layer.apply(variables, x), x, group=D2)
    assert error < SINGLE


def test_output_shapes_match_flax():
    import flax.linen as nn

    for settings in (
        {"strides": 2, "padding": "SAME"},
        {"kernel_dilation": 2, "padding": "VALID"},
        {"padding": 3},
        {"padding": ((0, 1), (2, 0))},
        {"padding": "CIRCULAR", "strides": 2},
    ):
        ours = eq.GroupConv(1, 3, group=D4.subgroup("C1"), **settings)
        flax = nn.Conv(8, (3, 3), **settings)
        x = jnp.ones((1, 7, 7, 8, 1))
        key = jax.random.key(0)
        shape = jax.eval_shape(ours.init_with_output, key, x)[0].shape
        theirs = jax.eval_shape(flax.init_with_output, key, x[..., 0])[0].shape
        assert shape[:3] == theirs[:3]


# --- errors -------------------------------------------------------------------------

FIELD = jnp.ones((1, 4, 4, 8, 2))
IMAGE = jnp.ones((1, 4, 4, 2))


@pytest.mark.parametrize(
    ("layer", "x", "message"),
    [
        (eq.GroupConv(2, 3, group=D4), IMAGE, "images go through LiftingConv"),
        (eq.LiftingConv(2, 3, group=D4), FIELD, "fields go through GroupConv"),
        (eq.GroupConv(2, 3, group=D4), FIELD[:, :, :, :4], r"spatial axes, 8, chann"),
        (eq.GroupConv(2, (3, 5), group=D4), FIELD, "largest subgroup .* D2:i"),
        (eq.GroupConv(2, 3, strides=(1, 2), group=D4), FIELD, "strides .* D2:i"),
        (eq.GroupConv(2, (3, 3, 3), group=D4), FIELD, "kernel_size must be a positive"),
        (eq.GroupConv(2, 0, group=D4), FIELD, "kernel_size must be a positive"),
        (eq.GroupConv(2, 3, padding="FULL", group=D4), FIELD, "SAME, VALID, CIRCULAR"),
        (eq.GroupConv(2, 3, padding=[1], group=D4), FIELD, "each of 2 axes"),
        (eq.GroupConv(2, 5, padding="VALID", group=D4), FIELD, "does not fit"),
        (eq.GroupConv(3, 3, feature_group_count=2, group=D4), FIELD, "must divide"),
        (eq.GroupConv(2, (3.0, 3.0), group=D4), FIELD, "kernel_size must be a posi"),
        (eq.GroupConv(0, 3, group=D4), FIELD, "features must be at least 1"),
        (eq.GroupConv(2, 3, feature_group_count=0, group=D4), FIELD, "must divide"),
        (eq.GroupNorm(0, group=D4), FIELD, "must divide the 2 channels, got 0"),
        (eq.GroupConvTranspose(2, 3, padding=10, group=D4), FIELD, "does not fit"),
        (
            eq.LayerNorm(group=D4, fiber=eq.regular(eq.cyclic(4))),
            FIELD[..., :4, :],
            "does not fit a layer over",
        ),
        (eq.InvariantHead(3, group=D4), IMAGE, "takes a field"),
        (
            eq.InvariantHead(3, group=D4, fiber_out=eq.regular(D4)),
            FIELD,
            "fiber_out must be None",
        ),
        (
            eq.LiftingConv(3, 1, group=D4, fiber_in=eq.regular(D4)),
            IMAGE,
            "fiber_in must be None",
        ),
        (eq.BatchNorm(False, group=D4), IMAGE, "takes a field"),
        (eq.GroupNorm(num_groups=3, group=D4), FIELD, "must divide the 2 channels"),
        (
            eq.GroupConv(2, 3, parametrization="free", group=D4),
            FIELD,
            "tied, orthonormal, got 'free'",
        ),
        (
            eq.GroupConvTranspose(2, 3, feature_group_count=2, group=D4),
            FIELD,
            "no feature groups",
        ),
        (
            eq.GroupConvTranspose(2, 3, padding="CIRCULAR", group=D4),
            FIELD,
            "pads with zeros",
        ),
    ],
)
def test_bad_input(layer, x, message):
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), x)


def test_numpy_integers_are_integers():
    three, one = np.int64(3), np.int64(1)
    layer = eq.GroupConv(2, three, padding=(one, one), strides=one, group=D4)
    assert layer.init_with_output(jax.random.key(0), FIELD)[0].shape == FIELD.shape


def test_a_name_in_place_of_a_group():
    with pytest.raises(TypeError, match="GroupConv needs a Group, .* group='C4'"):
        eq.GroupConv(2, 3, group="C4")


def test_bad_transforms():
    for fiber in (eq.quotient(D4.subgroup("D1")), eq.regular(eq.cyclic(4))):
        with pytest.raises(ValueError, match="elements over .* does not fit shape"):
            eq.transform(FIELD, 1, group=D4, fiber=fiber)
    with pytest.raises(ValueError, match="5 is not an element .* 0 .identity., 1"):
        eq.transform(IMAGE, 5, group=D4.subgroup("C4"))
    with pytest.raises(ValueError, match=r"8 elements \(regular\) or 1 \(trivial\)"):
        eq.transform(jnp.ones((1, 4, 4, 3, 2)), 1, group=D4)
    with pytest.raises(ValueError, match="expected a field .* or an image"):
        eq.transform(jnp.ones((4, 4)), 1, group=D4)
