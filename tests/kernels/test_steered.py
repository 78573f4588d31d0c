"""The laws of orbit tables, for coefficients that are turned along orbits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from eqjax.fields.irreps import representations
from eqjax.kernels import SteeredTable

D8, C16 = eq.dihedral(8), eq.cyclic(16)
HARMONICS = eq.CircularHarmonics()
FIBERS = {
    "regular": lambda G: (eq.regular(G), eq.regular(G)),
    "lifting": lambda G: (eq.trivial(G), eq.regular(G)),
    "head": lambda G: (eq.regular(G), eq.trivial(G)),
}
each_kind = pytest.mark.parametrize("kind", FIBERS)
each_group = pytest.mark.parametrize("G", [D8, C16], ids=str)


def tables(G, kind, size=5):
    fibers = FIBERS[kind](G)
    for H in G.subgroups:
        yield kernels.commuting(H, (size, size), *fibers, basis=HARMONICS)


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@each_kind
@each_group
def test_the_law_for_every_element_of_every_subgroup(G, kind):
    functions = HARMONICS.fiber(5)
    turned = representations(functions.irreps, G.matrices)
    fiber_in, fiber_out = FIBERS[kind](G)
    for table in tables(G, kind):
        assert isinstance(table, SteeredTable)
        full = np.asarray(table.spread(jnp.asarray(random((table.num_orbits, 2, 3)))))
        assert full.shape == (*table.shape, 2, 3)
        for u in table.group.elements:
            there = full[:, fiber_in.action[u]][:, :, fiber_out.action[u]]
            expected = np.einsum("ab,bhgio->ahgio", turned[u], full)
            np.testing.assert_allclose(there, expected, atol=1e-12)


@each_kind
@each_group
def test_the_mean_is_the_adjoint_and_undoes_the_spread(G, kind):
    for table in tables(G, kind):
        values = jnp.asarray(random((table.num_orbits, 2)))
        spread = table.spread(values)
        np.testing.assert_allclose(table.mean(spread), values, atol=1e-13)
        other = jnp.asarray(random((*table.shape, 2), 1))
        weighted = values * table.size[:, None]
        left = jnp.vdot(spread, other)
        right = jnp.vdot(weighted, table.mean(other))
        np.testing.assert_allclose(left, right, atol=1e-9)


@each_group
def test_the_mean_is_that_over_the_group(G):
    for table in tables(G, "regular"):
        full = random((*table.shape, 2))
        entries = full.reshape(-1, 2)
        moved = [table.moved(entries, i) for i in range(table.group.order)]
        mean = np.mean(moved, 0).reshape(full.shape)
        projected = kernels.reynolds(jnp.asarray(full), table)
        np.testing.assert_allclose(projected, mean, atol=1e-12)
        each = np.broadcast_to(full, (len(moved), *full.shape))
        transformed = table.transformed(np.array(each))
        np.testing.assert_allclose(transformed.mean(0), mean, atol=1e-12)


@each_group
def test_moves_are_an_action(G):
    table = kernels.commuting(G, (5, 5), eq.regular(G), eq.regular(G), basis=HARMONICS)
    entries = random((table.index.size * table.functions.size, 2))
    for u, v in ((1, 3), (G.order - 1, 2), (5, 5)):
        twice = table.moved(table.moved(entries, v), u)
        at_once = table.moved(entries, int(G.product[u, v]))
        np.testing.assert_allclose(twice, at_once, atol=1e-12)


@each_group
def test_squares_are_those_of_coefficients_without_correlations(G):
    table = kernels.commuting(G, (3, 3), eq.trivial(G), eq.regular(G), basis=HARMONICS)
    squares = jnp.asarray(random((table.num_orbits, 1)) ** 2)
    draws = jnp.sqrt(squares) * random((table.num_orbits, 200_000))
    expected = np.mean(np.asarray(table.spread(draws)) ** 2, -1)
    found = np.asarray(table.spread(squares, squares=True))[..., 0]
    np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.01)
    again = table.mean(table.spread(squares, squares=True), squares=True)
    assert np.all(np.asarray(again) >= 0)


@each_group
def test_cells_hold_what_the_group_mixes(G):
    for table in tables(G, "regular"):
        cells = np.asarray(table.cells)
        entries = np.arange(len(cells))[:, None].astype(float)
        one = np.zeros_like(entries)
        for entry in np.linspace(0, len(cells) - 1, 7).astype(int):
            one[:] = 0
            one[entry] = 1
            for i in range(table.group.order):
                reached = np.flatnonzero(np.abs(table.moved(one, i)[:, 0]) > 1e-9)
                assert set(cells[reached]) == {cells[entry]}


@each_group
def test_the_group_may_be_data(G):
    smallest = kernels.commuting(
        G.smallest, (5, 5), eq.regular(G), eq.regular(G), basis=HARMONICS
    )
    assert smallest.num_orbits == smallest.most
    spread = jax.jit(lambda values, arrays: smallest.of_data(arrays).spread(values))
    for table in tables(G, "regular"):
        values = jnp.asarray(random((table.num_orbits, 2)))
        padded = jnp.pad(values, [(0, table.most - table.num_orbits), (0, 0)])
        arrays = dict(table.arrays)
        for name in table.PER_ORBIT:
            arrays[name] = np.pad(
                arrays[name], (0, table.index.size - len(arrays[name]))
            )
        np.testing.assert_array_equal(spread(padded, arrays), table.spread(values))
        mean = smallest.of_data(arrays).mean(table.spread(values))
        np.testing.assert_allclose(mean[: table.num_orbits], values, atol=1e-13)


def test_coefficients_that_a_stabilizer_ties_have_a_basis_instead():
    half = eq.quotient(D8.subgroup("D1:i"))
    table = kernels.commuting(D8, (5, 5), half, half, basis=HARMONICS)
    assert isinstance(table, kernels.IntertwinerTable)
    matrices = representations(HARMONICS.fiber(5).irreps, D8.matrices)
    fixed = np.trace(matrices, axis1=1, axis2=2)
    points = [(half.action[u] == np.arange(half.size)).sum() for u in D8.elements]
    assert table.num_orbits == round(np.mean(fixed * np.square(points)))


def test_taps_cannot_follow_and_say_so():
    with pytest.raises(ValueError, match=r"rotation by 45°.*takes Group\(D4:i < D8\)"):
        kernels.commuting(D8, (3, 3), eq.regular(D8), eq.regular(D8))
    inside = D8.subgroup("D4:i")
    table = kernels.commuting(inside, (3, 3), eq.trivial(D8), eq.regular(D8))
    assert table.shape == (3, 3, 1, 16)
    with pytest.raises(ValueError, match="as many rows as columns"):
        kernels.commuting(D8, (3, 5), eq.trivial(D8), eq.regular(D8), basis=HARMONICS)
