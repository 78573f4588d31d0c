"""Kernels between irreps: their dimensions, laws, and how they relax."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from eqjax.fields import representations
from eqjax.kernels.intertwiners import intertwiner_table
from eqjax.kernels.orbits import tap_permutations
from tests.tolerances import DOUBLE

OH = eq.full_octahedral()
O3 = eq.orthogonal()
CLASSES = [members[0] for members in OH.conjugacy_classes]
IRREPS = [f"{degree}{parity}" for degree in range(4) for parity in "eo"]
IN, OUT = eq.IrrepsFiber("2x0e + 1o"), eq.IrrepsFiber("0o + 1o + 2e")


def random(table, *rest):
    rng = np.random.default_rng(0)
    return rng.normal(size=(table.num_orbits, *rest))


def nearest(full, table):
    return table.spread(table.mean(full))


@pytest.mark.parametrize("H", CLASSES, ids=str)
def test_there_are_as_many_as_characters_say(H):
    taps = tap_permutations(H.matrices, (3, 3, 3))
    fixed = (taps == np.arange(27)).sum(1)
    traces = {i: np.trace(representations(i, H.matrices), 0, 1, 2) for i in IRREPS}
    for a, b in itertools.product(IRREPS[::2], IRREPS):
        expected = np.mean(fixed * traces[a] * traces[b])
        table = intertwiner_table(H, (3, 3, 3), eq.IrrepsFiber(a), eq.IrrepsFiber(b))
        assert table.num_orbits == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("H", CLASSES, ids=str)
def test_the_elements_leave_the_kernels_as_they_are(H):
    table = intertwiner_table(H, (3, 3, 3), IN, OUT)
    full = table.spread(random(table, 2)).reshape(-1, 2)
    for i in range(H.order):
        np.testing.assert_allclose(table.moved(full, i), full, atol=DOUBLE)


@pytest.mark.parametrize("H", CLASSES[::4], ids=str)
def test_the_nearest_kernel_is_the_mean_over_the_group(H):
    table = intertwiner_table(H, (3, 3, 3), IN, OUT)
    full = np.random.default_rng(0).normal(size=(*table.shape, 2))
    each = np.broadcast_to(full, (H.order, *full.shape))
    expected = table.transformed(each).mean(0)
    np.testing.assert_allclose(nearest(full, table), expected, atol=DOUBLE)


@pytest.mark.parametrize("H", CLASSES, ids=str)
def test_relaxing_changes_nothing_and_constraining_comes_back(H):
    table = intertwiner_table(H, (3, 3, 3), IN, OUT)
    values = random(table)
    full = table.spread(values)
    for K in H.covers:
        smaller = intertwiner_table(K, (3, 3, 3), IN, OUT)
        relaxed = smaller.mean(full)
        np.testing.assert_allclose(smaller.spread(relaxed), full, atol=DOUBLE)
        back = table.mean(smaller.spread(relaxed))
        np.testing.assert_allclose(back, values, atol=DOUBLE)


@pytest.mark.parametrize("name", ["O(3)", "SO(3)", "D∞h", "C∞v", "C∞", "D6h", "C3v"])
@pytest.mark.parametrize("rings", [None, 2])
def test_groups_that_move_taps_off_the_grid_lie_within_those_that_do_not(name, rings):
    group = O3.subgroup(name)
    table = intertwiner_table(group, (3, 3, 3), IN, OUT, rings=rings)
    full = table.spread(random(table))
    largest = max(np.abs(full).max(), 1)
    for H in CLASSES:
        if group >= H:
            found = nearest(full, intertwiner_table(H, (3, 3, 3), IN, OUT))
            np.testing.assert_allclose(found, full, atol=100 * DOUBLE * largest)
    smaller = intertwiner_table(O3.smallest, (3, 3, 3), IN, OUT)
    assert table.num_orbits < smaller.num_orbits == 27 * IN.size * OUT.size


def test_named_groups_of_the_cube_are_those_of_the_cube():
    for name, group in (("D4h", "D4h:k"), ("Td", "Td"), ("C2v", "C2v:k,i")):
        a = intertwiner_table(O3.subgroup(name), (3, 3, 3), IN, OUT)
        b = intertwiner_table(OH.subgroup(group), (3, 3, 3), IN, OUT)
        full = a.spread(random(a))
        assert a.num_orbits == b.num_orbits
        np.testing.assert_allclose(b.spread(b.mean(full)), full, atol=DOUBLE)


@pytest.mark.parametrize("H", CLASSES[::5], ids=str)
def test_permutation_matrices_give_the_orbit_tables(H):
    fibers = eq.quotient(OH.subgroup("D4h:k")), eq.trivial(OH)
    orbits = kernels.kernel_table(H, (3, 3, 3), *fibers)
    basis = intertwiner_table(H, (3, 3, 3), *fibers)
    assert basis.num_orbits == orbits.num_orbits
    full = np.random.default_rng(0).normal(size=orbits.shape)
    expected = kernels.reynolds(jnp.asarray(full), orbits)
    np.testing.assert_allclose(nearest(full, basis), expected, atol=DOUBLE)
    squares = orbits.spread(orbits.mean(jnp.asarray(full**2)))
    found = basis.spread(basis.mean(full**2, squares=True), squares=True)
    np.testing.assert_allclose(found, squares, atol=DOUBLE)


def test_entries_of_untrained_kernels_have_the_variance_of_free_ones():
    table = intertwiner_table(OH, (3, 3, 3), IN, OUT)
    draws = np.random.default_rng(0).normal(size=(*table.shape, 20_000))
    values = table.drawn(draws)
    np.testing.assert_allclose(np.var(values, 1), 1, rtol=0.06)
    full = np.asarray(table.spread(values)).reshape(-1, 20_000)
    for cell in np.unique(table.cells):
        own = full[table.cells == cell]
        if own.any():
            assert np.mean(own**2) == pytest.approx(1, rel=0.05)


def test_the_basis_is_the_same_whatever_the_rounding():
    from eqjax.kernels.bases import _orthonormal

    rng = np.random.default_rng(0)
    span = np.linalg.qr(rng.normal(size=(12, 5)))[0]
    projection = span @ span.T
    expected = _orthonormal(projection)
    noise = 1e-14 * rng.normal(size=projection.shape)
    np.testing.assert_allclose(_orthonormal(projection + noise), expected, atol=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="acts on irreps alone"):
        kernels.commuting(O3, (3, 3, 3), eq.regular(OH), IN)
    with pytest.raises(ValueError, match="largest subgroup"):
        kernels.commuting(OH, (3, 3, 5), IN, OUT)
    with pytest.raises(ValueError, match="fiber of ambient group"):
        kernels.commuting(eq.octahedral(), (3, 3, 3), eq.regular(OH), IN)
    with pytest.raises(ValueError, match="off the grid"):
        intertwiner_table(O3, (3, 3, 3), IN, OUT).moved(np.ones((1215, 1)), 0)
