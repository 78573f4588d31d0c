import itertools

import numpy as np
import pytest

import eqjax as eq
from eqjax.kernels.orbits import fiber_table, kernel_table

D4 = eq.dihedral(4)
OH = eq.full_octahedral()
FLIP = eq.flip()


def defining_orbits(group, kernel_size, fiber_in, fiber_out):
    """Orbits of (y, h, g) -> (u y, u h, u g) by walking from point to point."""
    offsets = [
        tuple(2 * i - (k - 1) for i, k in zip(tap, kernel_size, strict=True))
        for tap in itertools.product(*map(range, kernel_size))
    ]
    orbit = {}
    for start in itertools.product(
        offsets, range(fiber_in.size), range(fiber_out.size)
    ):
        if start in orbit:
            continue
        number = len(set(orbit.values()))
        for u, matrix in zip(group.elements, group.matrices, strict=True):
            y, h, g = start
            moved = tuple(int(v) for v in matrix @ np.array(y))
            orbit[moved, fiber_in.action[u, h], fiber_out.action[u, g]] = number
    order = itertools.product(offsets, range(fiber_in.size), range(fiber_out.size))
    shape = (*kernel_size, fiber_in.size, fiber_out.size)
    return np.array([orbit[entry] for entry in order]).reshape(shape)


@pytest.mark.parametrize("H", D4.subgroups, ids=str)
@pytest.mark.parametrize("kernel_size", [(3, 3), (2, 2)])
def test_kernel_table_is_its_definition(H, kernel_size):
    fibers = [eq.trivial(D4), eq.regular(D4), eq.quotient(D4.subgroup("D1"))]
    for a, b in itertools.product(fibers, repeat=2):
        table = kernel_table(H, kernel_size, a, b)
        assert np.array_equal(table.index, defining_orbits(H, kernel_size, a, b))


@pytest.mark.parametrize("H", D4.subgroup("D2").subgroups, ids=str)
def test_non_square_kernels(H):
    regular = eq.regular(D4)
    table = kernel_table(H, (1, 4), regular, regular)
    assert np.array_equal(table.index, defining_orbits(H, (1, 4), regular, regular))


@pytest.mark.parametrize("H", [c[0] for c in OH.conjugacy_classes], ids=str)
def test_tables_in_a_volume(H):
    table = kernel_table(H, (2, 2, 2), eq.trivial(OH), eq.regular(OH))
    defined = defining_orbits(H, (2, 2, 2), eq.trivial(OH), eq.regular(OH))
    assert np.array_equal(table.index, defined)


@pytest.mark.parametrize("G", [FLIP, D4, OH], ids=str)
def test_regular_orbits_are_free(G):
    regular = eq.regular(G)
    size = (3,) * G.dimension
    for H in G.subgroups:
        table = kernel_table(H, size, regular, regular)
        assert set(table.size) == {H.order}
        assert table.num_orbits == 3**G.dimension * G.order**2 // H.order
        cosets = fiber_table(H, regular)
        assert cosets.num_orbits == G.order // H.order


@pytest.mark.parametrize("G", [FLIP, D4, eq.octahedral()], ids=str)
def test_fibers_are_group_actions(G):
    for K in G.subgroups:
        action = eq.quotient(K).action
        assert action.shape == (G.order, G.order // K.order)
        assert np.array_equal(action[0], np.arange(action.shape[1]))
        for u, v in itertools.product(range(G.order), repeat=2):
            assert np.array_equal(action[G.product[u, v]], action[u][action[v]])
        fixing = [u for u in range(G.order) if action[u, 0] == 0]
        assert tuple(fixing) == K.elements


def test_tables_are_consistent():
    table = kernel_table(D4, (3, 3), eq.trivial(D4), eq.trivial(D4))
    flat = table.index.reshape(-1)
    assert np.array_equal(np.bincount(flat), table.size)
    assert np.array_equal(flat[table.representative], np.arange(table.num_orbits))
    assert sorted(table.size) == [1, 4, 4]


def test_tables_are_cached():
    arguments = (D4, (3, 3), eq.regular(D4), eq.regular(D4))
    assert kernel_table(*arguments) is kernel_table(*arguments)


def test_a_shape_that_the_group_does_not_keep():
    regular = eq.regular(D4)
    with pytest.raises(ValueError, match=r"\(3, 5\).*by D4; the largest.*is D2:i$"):
        kernel_table(D4, (3, 5), regular, regular)
    with pytest.raises(ValueError, match="largest subgroup for which it works is C2"):
        kernel_table(D4.subgroup("C4"), (3, 5), regular, regular)
    with pytest.raises(ValueError, match="one entry for each of the 2 axes"):
        kernel_table(D4, (3,), regular, regular)


def test_a_fiber_of_another_group():
    with pytest.raises(ValueError, match="does not fit a layer over"):
        kernel_table(D4, (3, 3), eq.regular(eq.cyclic(4)), eq.regular(D4))
