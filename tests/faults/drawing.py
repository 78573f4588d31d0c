"""What hypothesis draws layers, fields and settings from, and how near is near."""

import hypothesis
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import eqjax as eq

AMBIENT = (eq.flip(), eq.cyclic(4), eq.dihedral(4))
DTYPES = ("float16", "bfloat16", "float32", "float64")
# Largest deviation of what is computed twice, relative to the largest number of both:
# the error of a few hundred additions, and of the steps between.
NEAR = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-4, "float64": 1e-9}


def holds_for(law, examples):
    """Assert a law of drawn data, for so many examples, the same ones every time."""
    checked = hypothesis.given(st.data())(law)
    everything = list(hypothesis.HealthCheck)  # compiling takes its time
    hypothesis.settings(max_examples=examples, suppress_health_check=everything)(
        checked
    )()


def groups(draw):
    """An ambient group and a subgroup of it."""
    ambient = draw(st.sampled_from(AMBIENT))
    return ambient, draw(st.sampled_from(ambient.subgroups))


def space(draw, ambient, most=6):
    """Points per axis, of one or of several sizes, and often square."""
    if draw(st.booleans()):
        return (draw(st.integers(1, most)),) * ambient.dimension
    return tuple(draw(st.integers(1, most)) for _ in range(ambient.dimension))


def array(draw, shape, dtype):
    """Normal numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return jnp.asarray(rng.normal(size=shape), dtype)


def near(a, b, dtype):
    """Assert that two arrays are what a dtype can tell apart."""
    a, b = (np.asarray(each, np.float64) for each in (a, b))
    assert a.shape == b.shape
    scale = max(1.0, np.abs(a).max(initial=0), np.abs(b).max(initial=0))
    np.testing.assert_allclose(a, b, atol=NEAR[str(dtype)] * scale, rtol=0)


def moved(draw, group, size):
    """An element of a group that keeps the shape of a grid."""
    keeping = [
        u
        for u, matrix in zip(group.elements, group.matrices, strict=True)
        if tuple(np.abs(matrix) @ size) == tuple(size)
    ]
    return draw(st.sampled_from(keeping))
