import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from eqjax.kernels import Tie
from eqjax.orbits import kernel_table
from tests.tolerances import DOUBLE

D4 = eq.dihedral(4)
FIBERS = [eq.trivial(D4), eq.regular(D4)]
TABLES = {
    f"{H}, {a.size}->{b.size}": kernel_table(H, (3, 3), a, b)
    for H in D4.subgroups
    for a in FIBERS
    for b in FIBERS
}
each_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
each_kind = pytest.mark.parametrize("kind", kernels.PARAMETRIZATIONS)


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@each_table
@each_kind
def test_collapse_undoes_expand(table, kind):
    tie = Tie(table, kind)
    kernel = random(table.num_orbits, 2, 3)
    full = kernels.expand(kernel, tie)
    assert full.shape == (*table.shape, 2, 3)
    back = kernels.collapse(full, tie)
    if kind == "tied":
        assert np.array_equal(back, kernel)
    np.testing.assert_allclose(back, kernel, atol=DOUBLE)


@each_table
def test_reynolds_is_the_orthogonal_projection(table):
    full = random(*table.shape, 2, seed=1)
    once = kernels.reynolds(full, table)
    assert np.array_equal(kernels.reynolds(once, table), once)
    for orbit in range(table.num_orbits):
        entries = np.asarray(full)[table.index == orbit]
        mean = np.broadcast_to(entries.mean(0), entries.shape)
        np.testing.assert_allclose(once[table.index == orbit], mean, atol=DOUBLE)


@each_table
def test_distance(table):
    full = random(*table.shape, 2)
    near = kernels.reynolds(full, table)
    assert kernels.distance(near, table) == 0
    gap = np.linalg.norm(full - near) / np.linalg.norm(full)
    np.testing.assert_allclose(kernels.distance(full, table), gap, atol=DOUBLE)
    assert kernels.distance(jnp.zeros_like(full), table) == 0


@each_table
def test_orthonormal_keeps_lengths(table):
    tie = Tie(table, "orthonormal")
    kernel = random(table.num_orbits, 2)
    full = kernels.expand(kernel, tie)
    np.testing.assert_allclose(
        jnp.linalg.norm(full), jnp.linalg.norm(kernel), rtol=DOUBLE
    )


@each_kind
def test_every_group_starts_with_the_same_variance(kind):
    for fiber_in in FIBERS:
        for H in D4.subgroups:
            tie = Tie(kernel_table(H, (5, 5), fiber_in, eq.regular(D4)), kind)
            init = kernels.tied_initializer(jax.nn.initializers.lecun_normal(), tie)
            shape = (tie.table.num_orbits, 16, 16)
            full = kernels.expand(init(jax.random.key(0), shape), tie)
            fan_in = 25 * fiber_in.size * 16
            # 6,400 independent entries or more: the deviation of a sample variance
            # is sqrt(2 / n) < 2 %, allowed four times.
            np.testing.assert_allclose(full.var() * fan_in, 1, rtol=0.08)


def test_convolution_layout_orders_real_channels():
    full = random(3, 3, 8, 8, 2, 6)
    dense = kernels.convolution_layout(full, 2)
    assert dense.shape == (3, 3, 16, 48)
    for group in range(2):
        for g in range(8):
            for c in range(3):
                column = dense[..., (group * 8 + g) * 3 + c]
                entry = full[..., g, :, group * 3 + c].reshape(3, 3, 16)
                assert np.array_equal(column, entry)


def test_unknown_parametrization():
    with pytest.raises(ValueError, match="tied, orthonormal, got 'free'"):
        Tie(TABLES["D4, 1->8"], "free")
