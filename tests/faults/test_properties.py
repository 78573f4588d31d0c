"""Laws of layers, pools, norms and models, for whatever shapes and settings there are.

Every example draws a layer, its settings, a field and one law. The everyday part is a
few examples of each; the slow part many.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import eqjax as eq
from tests import catalogue
from tests.faults.drawing import (
    DTYPES,
    array,
    groups,
    holds_for,
    moved,
    near,
    space,
)

SINGLE = ("lift", "conv", "transpose", "head")


def examples(few, many):
    return pytest.mark.parametrize(
        "examples", [few, pytest.param(many, marks=pytest.mark.slow)]
    )


def act(y, u, group):
    """Move what a layer returns; numbers without a space stay."""
    return eq.transform(y, u, group=group) if y.ndim > 2 else y


def check_laws(draw, layer, x, apply, variables, dtype, kept):
    """Check one law, drawn, of a layer as a function of x.

    Args:
      draw: of hypothesis.
      layer: a module with a group.
      x: an input of it.
      apply: (module, variables, x) -> its output.
      variables: of the layer.
      dtype: of what is computed.
      kept: the group that the layer commutes with.
    """
    program = jax.jit(lambda v, x: apply(layer, v, x))
    y = program(variables, x)
    assert np.isfinite(np.asarray(y, np.float64)).all()
    law = draw(st.sampled_from(("eager", "rows", "symmetry", "relaxed", "empty")))
    if law == "eager":
        near(y, apply(layer, variables, x), dtype)
    elif law == "rows":
        for i in range(min(len(x), 2)):
            near(y[i : i + 1], program(variables, x[i : i + 1]), dtype)
    elif law == "symmetry":
        u = moved(draw, kept, x.shape[1 : 1 + kept.dimension])
        near(
            program(variables, eq.transform(x, u, group=kept)),
            act(y, u, kept),
            dtype,
        )
    elif law == "relaxed":
        smaller = draw(st.sampled_from(layer.group.subgroups))
        other = layer.clone(group=smaller)
        carried, _ = eq.morph(variables, source=layer, target=other, inputs=x)
        near(y, jax.jit(lambda v, x: apply(other, v, x))(carried, x), dtype)
    else:
        assert program(variables, x[:0]).shape == (0, *y.shape[1:])


def initialized(layer, x):
    shape = (max(1, len(x)), *x.shape[1:])
    return jax.jit(layer.init)(jax.random.key(0), jnp.ones(shape, x.dtype))


def conv_law(data):
    draw = data.draw
    ambient, group = groups(draw)
    kind, size = draw(st.sampled_from(SINGLE)), space(draw, ambient)
    dtype = draw(st.sampled_from(DTYPES))
    features, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    fields = {"group": group, "dtype": dtype, "use_bias": draw(st.booleans())}
    if kind == "head":
        layer = eq.InvariantHead(features, **fields)
    else:
        make = {
            "lift": eq.LiftingConv,
            "conv": eq.GroupConv,
            "transpose": eq.GroupConvTranspose,
        }[kind]
        paddings = ["SAME", "VALID", 0, 1, 2]
        paddings += ["CIRCULAR"] * (kind != "transpose")
        layer = make(
            features,
            draw(st.integers(1, 4)),
            strides=draw(st.integers(1, 3)),
            padding=draw(st.sampled_from(paddings)),
            kernel_dilation=draw(st.integers(1, 2)),
            **fields,
        )
    fiber = () if kind == "lift" else (ambient.order,)
    x = array(draw, (draw(st.integers(0, 3)), *size, *fiber, channels), dtype)
    window = layer.window(size)
    if kind != "head" and 0 in window.output_size:
        with pytest.raises(ValueError, match="does not fit"):
            jax.eval_shape(layer.init, jax.random.key(0), x)
        return
    variables = initialized(layer, x)
    kept = group if kind == "head" else window.symmetry(group)
    apply = lambda layer, v, x: layer.apply(v, x)  # noqa: E731
    y = jax.eval_shape(layer.apply, variables, x)
    assert y.dtype == jnp.dtype(dtype)
    expected = (ambient.order, features) if kind != "head" else (features,)
    out = () if kind == "head" else window.output_size
    assert y.shape == (len(x), *out, *expected)
    check_laws(draw, layer, x, apply, variables, dtype, kept)


@pytest.mark.slow
@examples(14, 300)
def test_convolutions(examples):
    holds_for(conv_law, examples)


def norm_law(data):
    draw = data.draw
    ambient, group = groups(draw)
    dtype = draw(st.sampled_from(DTYPES))
    channels = draw(st.sampled_from((1, 2, 4)))
    fields = {"group": group, "dtype": dtype}
    training = draw(st.booleans())
    makers = (
        lambda: eq.BatchNorm(use_running_average=not training, **fields),
        lambda: eq.LayerNorm(**fields),
        lambda: eq.RMSNorm(**fields),
        lambda: eq.GroupNorm(num_groups=draw(st.sampled_from((1, channels))), **fields),
    )
    layer = draw(st.sampled_from(makers))()
    shape = (draw(st.integers(0, 3)), *space(draw, ambient, 4), ambient.order, channels)
    x = array(draw, shape, dtype) * draw(st.sampled_from((1.0, 30.0)))
    x = x + jnp.asarray(draw(st.sampled_from((0.0, 10.0))), dtype)
    variables = initialized(layer, x)
    batchwise = training and isinstance(layer, eq.BatchNorm)

    def apply(layer, v, x):
        return layer.apply(v, x, mutable=["batch_stats"])[0]

    if batchwise:  # every sample depends on all
        y = jax.jit(lambda v, x: apply(layer, v, x))(variables, x)
        if x.size > channels:
            flat = np.asarray(y, np.float64).reshape(-1, channels)
            near(flat.mean(0), np.zeros(channels), dtype)
        return
    check_laws(draw, layer, x, apply, variables, dtype, group)


@examples(10, 200)
def test_norms(examples):
    holds_for(norm_law, examples)


def windows_of(x, window):
    """Every place of a window, and the points of the padded field that it covers."""
    for place in itertools.product(*map(range, window.output_size)):
        axes = []
        for p, n, k, s, (low, _) in zip(
            place, window.size, window.taps, window.strides, window.padding, strict=True
        ):
            points = np.arange(k) + p * s - low
            axes.append(points[(points >= 0) & (points < n)])
        yield place, x[(slice(None), *np.ix_(*axes))]


def pool_law(data):
    draw = data.draw
    ambient, group = groups(draw)
    d, dtype = ambient.dimension, draw(st.sampled_from(DTYPES))
    size = space(draw, ambient, 5)
    shape = (draw(st.integers(0, 2)), *size, ambient.order, draw(st.integers(1, 3)))
    x = array(draw, shape, dtype)
    exact = np.asarray(x, np.float64)
    if draw(st.booleans()):
        reduce = draw(st.sampled_from(("mean", "max")))
        to = draw(st.sampled_from(("quotient", "invariants")))
        y = eq.fiber_pool(x, group=group, reduce=reduce, to=to)
        assert y.dtype == x.dtype
        product, own = ambient.product, list(group.elements)
        cosets = {
            frozenset(product[g, own] if to == "quotient" else product[own, g])
            for g in range(ambient.order)
        }
        cosets = sorted(map(sorted, cosets))
        pooled = [getattr(exact[..., c, :], reduce)(-2) for c in cosets]
        near(y, np.stack(pooled, -2), dtype)
        return
    pool = draw(st.sampled_from((eq.avg_pool, eq.max_pool)))
    taps = tuple(draw(st.integers(1, 3)) for _ in range(d))
    strides = tuple(draw(st.integers(1, 3)) for _ in range(d))
    padding = draw(
        st.sampled_from(("VALID", "SAME", tuple((k - 1) // 2 for k in taps)))
    )
    window = eq.window(size, taps, strides, padding)
    if 0 in window.output_size:
        with pytest.raises(ValueError, match="does not fit into an input of size"):
            pool(x, taps, strides, padding)
        return
    y = pool(x, taps, strides, padding)
    assert y.shape == (len(x), *window.output_size, *x.shape[-2:])
    assert y.dtype == x.dtype
    space_axes = tuple(range(1, 1 + d))
    expected = np.zeros(y.shape)
    for place, points in windows_of(exact, window):
        if pool is eq.max_pool:
            expected[(slice(None), *place)] = points.max(space_axes)
        else:
            total = points.sum(space_axes) / np.prod(taps)
            expected[(slice(None), *place)] = total
    near(y, expected, dtype)


@examples(25, 400)
def test_pools(examples):
    holds_for(pool_law, examples)


def model_law(data):
    draw = data.draw
    ambient = draw(st.sampled_from((eq.dihedral(4), eq.cyclic(4))))
    layers = draw(st.integers(1, 2))
    own = sorted(draw(st.integers(0, len(ambient.subgroups) - 1)) for _ in range(2))
    chain = [ambient.subgroups[i] for i in own]
    chain = [chain[0], chain[1].meet(chain[0])]
    architecture = eq.Architecture((chain[0],) * layers + (chain[1],))
    size = space(draw, ambient, 9)
    dtype = draw(st.sampled_from(DTYPES))
    model = eq.exact(
        architecture,
        features=(2,) * layers,
        kernel_size=draw(st.sampled_from((1, 3))),
        pool_after=draw(st.sampled_from(((), (1,)))),
        head_features=3,
        classes=2,
        dtype=dtype,
    )
    x = array(draw, (draw(st.integers(1, 3)), *size, 1), dtype)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    program = jax.jit(model.apply)
    y = program(variables, x)
    assert y.shape == (len(x), 2)
    assert y.dtype == jnp.promote_types(dtype, jnp.float32)
    assert np.isfinite(np.asarray(y)).all()
    law = draw(st.sampled_from(("rows", "symmetry", "relaxed", "empty")))
    if law == "rows":
        near(y[:1], program(variables, x[:1]), dtype)
    elif law == "symmetry":
        kept = model.symmetry(size)
        u = moved(draw, kept, size)
        near(y, program(variables, eq.transform(x, u, group=kept)), dtype)
    elif law == "relaxed":
        smaller = chain[1].subgroups[-1]
        other = model.clone(architecture=architecture.replace(layers, smaller))
        carried, _ = eq.morph(variables, source=model, target=other, inputs=x)
        near(y, jax.jit(other.apply)(carried, x), dtype)
    else:
        assert program(variables, x[:0]).shape == (0, 2)


@examples(6, 120)
def test_models(examples):
    holds_for(model_law, examples)


CASES = {f"plane: {name}": case for name, case in catalogue.PLANE.items()} | {
    f"line: {name}": case for name, case in catalogue.LINE.items()
}


def catalogue_law(data):
    """Every layer of the catalogue takes a batch of none, of one, and low precision."""
    draw = data.draw
    case = CASES[draw(st.sampled_from(sorted(CASES)))]
    group = draw(st.sampled_from(case.ambient.subgroups))
    layer = case.make(group)
    variables = case.variables(group)
    batch = draw(st.integers(0, 2))
    dtype = draw(st.sampled_from(DTYPES))
    x = case.input(3)
    run = jax.jit(lambda x: layer.apply(variables, x, mutable=["batch_stats"])[0])
    some = run(x[:batch].astype(dtype))
    whole = jax.eval_shape(run, x)
    assert some.shape == (batch, *whole.shape[1:])
    assert some.dtype == whole.dtype  # of the parameters, which have the most
    assert np.isfinite(np.asarray(some)).all()
    if not getattr(layer, "use_running_average", True):
        return  # every sample depends on all
    near(some, run(x)[:batch], dtype)


@examples(12, 300)
def test_layers_of_the_catalogue(examples):
    holds_for(catalogue_law, examples)
