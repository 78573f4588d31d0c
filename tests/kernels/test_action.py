"""Elements acting on full kernels, and the convolution that commutes with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from eqjax.kernels import kernel_table, transform_kernel
from tests.tolerances import BROKEN, DOUBLE

D4 = eq.dihedral(4)
FIBERS = {
    "regular": (eq.regular(D4), eq.regular(D4)),
    "lifting": (eq.trivial(D4), eq.regular(D4)),
    "head": (eq.regular(D4), eq.trivial(D4)),
    "quotient": (eq.quotient(D4.subgroup("D1")), eq.regular(D4)),
}
each_pair = pytest.mark.parametrize("name", FIBERS)


def random(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def sides(name):
    return dict(zip(("fiber_in", "fiber_out"), FIBERS[name], strict=True))


@each_pair
def test_a_transformed_kernel_on_a_transformed_field(name):
    """u . (f * K) = (u . f) * (u . K) for any kernel at all."""
    fiber_in, fiber_out = FIBERS[name]
    layer = eq.GroupConv(2, 3, use_bias=False, group=D4.smallest, **sides(name))
    x = random(1, 5, 5, fiber_in.size, 1)
    table = kernel_table(D4.smallest, (3, 3), fiber_in, fiber_out)
    full = random(*table.shape, 1, 2)
    apply = jax.jit(lambda K, x: layer.apply({"params": {"kernel": entries(K)}}, x))

    def entries(K):
        return kernels.project(K, layer.ties["kernel"])

    y = apply(full, x)
    for u in D4.elements:
        moved = eq.transform(x, u, group=D4, fiber=fiber_in)
        got = apply(transform_kernel(full, u, group=D4, **sides(name)), moved)
        expected = eq.transform(y, u, group=D4, fiber=fiber_out)
        np.testing.assert_allclose(got, expected, atol=DOUBLE)


@each_pair
@pytest.mark.parametrize("H", D4.subgroups, ids=str)
def test_a_tied_kernel_stays_under_exactly_its_group(name, H):
    table = kernel_table(H, (3, 3), *FIBERS[name])
    full = kernels.reynolds(random(*table.shape, 1, 1), table)
    for u in D4.elements:
        moved = transform_kernel(full, u, group=D4, **sides(name))
        gap = jnp.linalg.norm(moved - full) / jnp.linalg.norm(full)
        assert gap < DOUBLE if u in H else gap > BROKEN


def test_it_acts_from_the_left():
    full = random(2, 2, 8, 8, 1, 1)
    act = lambda K, u: transform_kernel(K, u, group=D4, **sides("regular"))  # noqa: E731
    for u in D4.elements:
        for v in D4.elements:
            once = act(full, int(D4.product[u, v]))
            assert np.array_equal(act(act(full, v), u), once)


@pytest.mark.parametrize(
    ("shape", "u", "group", "message"),
    [
        (
            (3, 3, 8, 8, 1, 1),
            5,
            D4.subgroup("C4"),
            "5 is not an element .* 0 .identity., 1",
        ),
        ((3, 3, 8, 4, 1, 1), 1, D4, r"expected a full kernel \(\*taps, 8, 8, c_in"),
        ((3, 5, 8, 8, 1, 1), 1, D4, "largest subgroup for which it works is D2:i"),
    ],
)
def test_bad_input(shape, u, group, message):
    with pytest.raises(ValueError, match=message):
        transform_kernel(jnp.ones(shape), u, group=group, **sides("regular"))
