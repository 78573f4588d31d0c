import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from eqjax.kernels.orbits import OrbitTable, kernel_table
from eqjax.kernels.tied import Tie
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
    back = kernels.project(full, tie)
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


@jax.jit
def carried(full, source, target):
    """Full arrays after a projection on one table, and after the next."""
    once = kernels.reynolds(full, OrbitTable(None, *source))
    return once, kernels.reynolds(once, OrbitTable(None, *target))


def padded(table):
    """The arrays of a table, as long as those of the trivial group."""
    more = table.index.size - table.num_orbits
    return table.index, *(
        np.pad(a, (0, more)) for a in (table.size, table.representative)
    )


CHAINS = {
    "line": (eq.flip(), (4,)),
    "plane": (D4, (3, 3)),
    "plane, even": (D4, (2, 2)),
    "cube": (eq.full_octahedral(), (1, 1, 1)),
    "cube, lifting": (eq.full_octahedral(), (3, 3, 3)),
}


@pytest.mark.parametrize("name", CHAINS)
def test_relaxing_is_bitwise_for_every_pair_of_groups(name):
    """An array tied to H passes through the table of every H' <= H as it is.

    So a way down from group to group is its last step, whichever way it takes.
    """
    G, size = CHAINS[name]
    fiber_in = eq.trivial(G) if "lifting" in name else eq.regular(G)
    tables = {H: kernel_table(H, size, fiber_in, eq.regular(G)) for H in G.subgroups}
    arrays = {H: padded(table) for H, table in tables.items()}
    full = random(*tables[G].shape, 1)
    for H in G.subgroups:
        for K in H.subgroups:
            before, after = carried(full, arrays[H], arrays[K])
            assert np.array_equal(before, after), (H, K)


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
