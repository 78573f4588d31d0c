"""Both forms of the convolution are one function, with all its derivatives."""

import itertools
from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import eqjax as eq
from eqjax.ops import winograd
from eqjax.ops.convolution import convolve, convolve_transpose, prefer
from tests.tolerances import DOUBLE

LAYOUTS = {
    1: ("NWC", "WIO", "NWC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}
# (space, taps, settings): sizes that tiles divide and sizes that they do not.
CASES = [
    ((9,), (3,), {}),
    ((8,), (7,), {"padding": ((3, 3),)}),
    ((8, 8), (5, 5), {"padding": ((2, 2), (2, 2))}),
    ((7, 9), (3, 5), {"padding": ((1, 1), (0, 4))}),
    ((6, 5), (2, 4), {"padding": ((1, 0), (2, 1))}),
    ((6, 5), (1, 1), {}),
    ((6, 5), (1, 3), {"padding": ((2, 1), (1, 1))}),
    ((5, 5), (5, 5), {}),
    ((3, 3), (6, 6), {"padding": ((3, 3), (3, 3))}),
    ((8, 8), (3, 3), {"circular": True, "padding": ((1, 1), (1, 1))}),
    ((5, 4, 6), (3, 3, 2), {"padding": ((1, 1), (1, 1), (1, 0))}),
    ((9, 9), (3, 3), {"strides": (2, 2)}),
    ((8, 9), (5, 4), {"strides": (2, 3), "padding": ((2, 2), (1, 0))}),
    ((7, 7), (1, 1), {"strides": (2, 2)}),
    ((7, 6), (2, 1), {"strides": (3, 2), "padding": ((0, 0), (1, 2))}),
    ((7, 6, 5), (3, 3, 3), {"strides": (2, 2, 2), "padding": ((1, 1),) * 3}),
    ((9, 9), (3, 3), {"dilation": (2, 1)}),
    ((9, 8), (3, 2), {"dilation": (2, 3), "padding": ((2, 2), (0, 3))}),
    ((8, 8), (3, 3), {"feature_group_count": 4, "padding": ((1, 1), (0, 2))}),
    ((8, 8), (3, 3), {"feature_group_count": 2}),
    ((7, 8), (3, 2), {"feature_group_count": 2, "strides": (2, 1)}),
    ((7,), (3,), {"feature_group_count": 4, "dilation": (2,)}),
    # No other form: the direct one stands in.
    ((9, 9), (3, 3), {"strides": (2, 2), "dilation": (2, 2)}),
    ((12,), (9,), {"padding": ((4, 4),)}),
]


def arrays(space, taps, settings, batch=3, c_in=2, c_out=4, dtype=float):
    rng = np.random.default_rng(0)
    split = settings.get("feature_group_count", 1)
    c_in = max(c_in, split)
    shapes = (batch, *space, c_in), (*taps, c_in // split, c_out)
    return tuple(jnp.asarray(rng.normal(size=s), dtype) for s in shapes)


def convolution(settings, d):
    """The function under test and the library's own."""
    zeros, ones = ((0, 0),) * d, (1,) * d
    full = {"strides": ones, "padding": zeros, "dilation": ones, **settings}

    def library(x, kernel):
        pad = full["padding"]
        if settings.get("circular"):
            x, pad = jnp.pad(x, ((0, 0), *pad, (0, 0)), mode="wrap"), zeros
        return lax.conv_general_dilated(
            x,
            kernel,
            full["strides"],
            pad,
            rhs_dilation=full["dilation"],
            dimension_numbers=LAYOUTS[d],
            feature_group_count=settings.get("feature_group_count", 1),
        )

    def ours(x, kernel):
        with prefer("winograd"):
            return convolve(x, kernel, **full)

    return ours, library


def assert_equal(a, b, tolerance=DOUBLE):
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert u.shape == v.shape
        assert jnp.linalg.norm(u - v) <= tolerance * jnp.linalg.norm(v)


def assert_one_function(ours, library, x, kernel):
    """Compare values, and derivatives of first and second order in both modes."""
    assert_equal(ours(x, kernel), library(x, kernel))
    tangents = jax.tree.map(jnp.cos, (x, kernel))

    def derivatives(fn, x, kernel):
        loss = lambda *a: jnp.sum(jnp.sin(fn(*a)))  # noqa: E731
        gradient = jax.grad(loss, argnums=(0, 1))
        return (
            jax.jvp(fn, (x, kernel), tangents)[1],
            gradient(x, kernel),
            jax.jvp(gradient, (x, kernel), tangents)[1],
            jax.grad(lambda *a: jnp.sum(jnp.cos(gradient(*a)[1])))(x, kernel),
        )

    jitted = jax.jit(derivatives, static_argnums=0)
    assert_equal(jitted(ours, x, kernel), jitted(library, x, kernel))


@pytest.mark.parametrize(("space", "taps", "settings"), CASES)
def test_values_and_derivatives(space, taps, settings, monkeypatch):
    monkeypatch.setattr(winograd, "_CHUNK_ROWS", 1)
    monkeypatch.setattr(winograd, "_CHUNK_BYTES", {"cpu": 1})  # chunks of one sample
    ours, library = convolution(settings, len(space))
    assert_one_function(ours, library, *arrays(space, taps, settings))


@pytest.mark.parametrize(
    ("space", "taps", "strides", "padding"),
    [
        ((4, 4), (3, 3), (2, 2), ((1, 2), (1, 2))),
        ((5, 4), (4, 2), (2, 3), ((2, 2), (1, 4))),
        ((4, 3), (1, 5), (3, 2), ((0, 2), (3, 3))),
        ((4,), (3,), (1,), ((1, 1),)),
        ((3, 2, 3), (2, 2, 3), (2, 2, 2), ((1, 1),) * 3),
    ],
)
def test_values_and_derivatives_of_transposed_convolutions(
    space, taps, strides, padding
):
    d = len(space)

    def library(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (1,) * d,
            padding,
            lhs_dilation=strides,
            dimension_numbers=LAYOUTS[d],
        )

    def ours(x, kernel):
        with prefer("winograd"):
            return convolve_transpose(
                x, kernel, strides=strides, padding=padding, dilation=(1,) * d
            )

    assert_one_function(ours, library, *arrays(space, taps, {}))


@pytest.mark.parametrize("taps", [(3, 3), (5, 5)])
def test_members_and_chunks_do_not_touch_each_other(taps, monkeypatch):
    """vmap equals the loop, whatever the chunks."""
    ours, library = convolution({"padding": ((1, 2), (2, 1))}, 2)
    x, kernel = arrays((6, 7), taps, {}, batch=5)
    xs, kernels = jnp.stack([x, x + 1, x**2]), jnp.stack([kernel, -kernel, kernel**2])
    gradient = jax.vmap(jax.grad(lambda *a: jnp.sum(ours(*a) ** 2), argnums=(0, 1)))
    reference = [
        jax.grad(lambda *a: jnp.sum(library(*a) ** 2), argnums=(0, 1))(*a)
        for a in zip(xs, kernels, strict=True)
    ]
    reference = jax.tree.map(lambda *a: jnp.stack(a), *reference)
    for rows in (1, 36):
        monkeypatch.setattr(winograd, "_CHUNK_ROWS", rows)
        monkeypatch.setattr(winograd, "_CHUNK_BYTES", {"cpu": rows})
        assert_equal(gradient(xs, kernels), reference)


@pytest.mark.parametrize(
    "taps", [*((r,) * 2 for r in range(2, 8)), (3, 3, 3), (7,) * 3]
)
def test_single_precision(taps):
    """Rounding stays within bounds of the whole, at the channels of a real network."""
    d = len(taps)
    ours, library = convolution({"padding": ((2, 2),) * d}, d)
    x, kernel = arrays((7 + 5,) * d, taps, {}, 1, 64, 64, jnp.float32)
    y = ours(x, kernel)
    assert y.dtype == jnp.float32
    assert_equal(y, library(x, kernel), 1e-5 if d == 2 else 3e-5)


@pytest.mark.parametrize(
    ("tile", "taps"),
    [(m, r) for m, r in itertools.product(range(1, 9), repeat=2) if m + r - 1 <= 8],
)
def test_transforms_are_exact(tile, taps):
    A, G, B = winograd.transforms(tile, taps)
    rng = np.random.default_rng(0)
    x, k = rng.normal(size=tile + taps - 1), rng.normal(size=taps)
    np.testing.assert_allclose(
        A @ ((G @ k) * (B @ x)), np.correlate(x, k, "valid"), rtol=1e-10, atol=1e-10
    )


def test_the_form_is_chosen_by_size_precision_and_context(monkeypatch):
    used = []
    fast = winograd.convolve
    monkeypatch.setattr(
        winograd, "convolve", lambda *a, **k: used.append(1) or fast(*a, **k)
    )
    settings = {"strides": (1, 1), "dilation": (1, 1), "padding": ((2, 2), (2, 2))}

    def uses(form, channels, dtype=jnp.float32, **more):
        used.clear()
        shapes = (8, 8, 8, channels), (5, 5, channels, channels)
        x, kernel = (jax.ShapeDtypeStruct(s, dtype) for s in shapes)
        with prefer(form):
            jax.eval_shape(partial(convolve, **settings, **more), x, kernel)
        return bool(used)

    assert uses("winograd", 1)
    assert not uses("direct", 64)
    on_cpu = jax.default_backend() == "cpu"
    assert uses("auto", 64) == on_cpu
    assert not uses("auto", 1)
    assert not uses("winograd", 64, jnp.bfloat16)
    assert not uses("winograd", 64, precision="highest")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="direct on accelerators")
@pytest.mark.parametrize(
    ("space", "taps", "channels", "settings", "direct"),
    [
        ((12, 12), 5, 64, {}, False),
        ((12, 12), 5, 4, {}, True),  # too few for a matrix product
        ((12, 12), 5, 64, {"strides": 2}, True),  # XLA's own form is as fast
        ((12, 12, 12), 3, 64, {"strides": 2}, False),
        ((13, 13, 13), 3, 64, {"strides": 2}, False),  # to 7: more of them are wasted
        ((12, 12), 3, 64, {"dilation": 2}, False),
        ((12, 12), 3, 64, {"feature_group_count": 8}, False),
        ((12, 12), 3, 64, {"feature_group_count": 64}, False),
        ((12, 12), 3, 64, {"strides": 2, "dilation": 2}, True),
    ],
)
def test_the_form_is_that_which_was_measured_to_be_faster(
    space, taps, channels, settings, direct
):
    d, groups = len(space), settings.get("feature_group_count", 1)
    spacing = {name: (settings.get(name, 1),) * d for name in ("strides", "dilation")}
    shapes = (512, *space, channels), (*(taps,) * d, channels // groups, channels)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    program = partial(
        convolve, padding=((1, 1),) * d, feature_group_count=groups, **spacing
    )
    text = jax.jit(program).lower(*arrays).as_text()
    assert (text.count("stablehlo.convolution") == 1) == direct


def test_a_jitted_function_has_a_program_for_every_form():
    x, kernel = jnp.ones((8, 8, 8, 16), "f4"), jnp.ones((5, 5, 16, 16), "f4")
    settings = {"strides": (1, 1), "dilation": (1, 1), "padding": ((2, 2), (2, 2))}
    program = jax.jit(partial(convolve, **settings))
    for form in ("winograd", "direct", "winograd"):
        with prefer(form):
            direct = "stablehlo.convolution" in program.lower(x, kernel).as_text()
        assert direct == (form == "direct")


def test_a_symbolic_batch_can_be_exported():
    layer = eq.LiftingConv(2, 3, group=eq.dihedral(4))
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 6, 6, 1)))
    (b,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((b, 6, 6, 1), jnp.float32)
    exported = jax.export.export(jax.jit(partial(layer.apply, variables)))(x)
    assert exported.call(jnp.ones((3, 6, 6, 1), jnp.float32)).shape == (3, 6, 6, 8, 2)


def test_bad_input():
    with (
        pytest.raises(ValueError, match="one of auto, direct, winograd"),
        prefer("fft"),
    ):
        pass
    with pytest.raises(ValueError, match="at most 8 input points, got 9 for 4 outputs"):
        winograd.transforms(4, 6)
