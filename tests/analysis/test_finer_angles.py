"""The symmetry test of elements that pixels do not follow exactly."""

import functools

import jax
import numpy as np
import optax
import pytest

import eqjax as eq
from benchmarks.finer_level import samples, trained
from eqjax import kernels
from eqjax.analysis.finer_angles import TurnedBlocks, turns_of
from eqjax.analysis.randomization import closed_test

C8, D8 = eq.cyclic(8), eq.dihedral(8)
GROUPS = [C8, D8, D8.subgroup("D4:22.5°"), eq.dihedral(3), eq.cyclic(5), eq.dihedral(4)]


@pytest.mark.parametrize("G", GROUPS, ids=str)
def test_every_image_is_one_of_a_few_moved_exactly(G):
    turns = turns_of(G)
    exact = G.exact_subgroup
    assert len(turns.images) == G.order // exact.order
    half = turns.images[turns.image[0]]
    for u, matrix in enumerate(G.matrices):
        assert G.exact[turns.exact[u]]
        again = G.matrices[turns.exact[u]] @ turns.images[turns.image[u]]
        np.testing.assert_allclose(again, half @ matrix, atol=1e-12)
    # All are interpolated alike: at the same angle from the axes, up to its sign.
    angles = np.degrees(np.arctan2(turns.images[:, 1, 0], turns.images[:, 0, 0])) % 90
    rotations = G.order if np.linalg.det(G.matrices).min() > 0 else G.order // 2
    if G == C8:
        np.testing.assert_allclose(np.minimum(angles, 90 - angles), 22.5)
    assert half[0, 0] == pytest.approx(np.cos(np.pi / rotations))


def test_products_are_those_of_blocks_moved_one_by_one():
    turns = turns_of(D8)
    basis = eq.CircularHarmonics()
    table = kernels.commuting(D8, (3, 3), eq.trivial(D8), eq.regular(D8), basis=basis)
    rng = np.random.default_rng(0)
    blocks, entries = 5, table.index.size * table.functions.size
    gradients = rng.normal(size=(2, blocks, entries, 1)).astype(np.float32)
    found = TurnedBlocks(gradients, table, D8, turns, memory=4 * 4 * entries * 3)
    for group in (D8, C8, D8.subgroup("D2:22.5°")):
        moved = rng.integers(group.order, size=(7, blocks))
        products = found.products(group, moved)
        for draw in range(7):
            mean = 0
            for b in range(blocks):
                u = group.elements[moved[draw, b]]
                own = gradients[turns.image[u], b]
                mean = mean + table.moved(own, int(turns.exact[u])) / blocks
            for i, w in enumerate(group.elements):
                expected = np.sum(mean * table.moved(mean, w))
                assert products[draw, i] == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def networks():
    return functools.cache(trained)


def report_of(networks, group, seed, **settings):
    model, variables = networks(group)
    x, y = samples(1500, group, np.random.default_rng(seed))
    return eq.symmetry_test(
        variables,
        model=model,
        x=x,
        y=y,
        key=jax.random.key(seed),
        draws=99,
        block_size=15,
        **settings,
    )


@pytest.mark.slow
def test_data_of_finer_angles_keep_them_and_others_do_not(networks):
    kept = [report_of(networks, "C8", seed) for seed in (2, 3)]
    assert not any(report.network["C8"].rejected for report in kept)
    assert kept[0].group == C8
    assert any("C8 holds elements that pixels follow" in n for n in kept[0].notes)
    lost = [report_of(networks, "C4", seed) for seed in (2, 3)]
    evidence = [report.network["C8"].evidence for report in lost]
    assert np.mean(evidence) > 1.2 > np.mean([r.network["C8"].evidence for r in kept])
    assert any(report.network["C8"].rejected for report in lost)
    assert not any(report.network["C4"].rejected for report in lost)


@pytest.mark.slow
def test_right_angles_are_tested_as_ever(networks):
    """By images as they are, not by turned ones, so that they lose nothing."""
    groups = (C8.subgroup("C4"),)
    report = report_of(networks, "C4", 0, groups=groups)
    assert set(report.network) == {"C4", "C1"}
    again = report_of(networks, "C4", 0, groups=groups)
    assert report.network["C4"].p == again.network["C4"].p


def test_targets_that_move_leave_the_exact_elements():
    model = eq.GroupConv(
        1, 3, group=C8, fiber_in=eq.trivial(C8), fiber_out=eq.trivial(C8)
    )
    x = np.random.default_rng(0).normal(size=(30, 9, 9, 1, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), x[:1])
    report = eq.symmetry_test(
        variables,
        model=model,
        x=x,
        y=x,
        key=jax.random.key(1),
        draws=19,
        loss_fn=lambda out, y: optax.l2_loss(out, y).sum((1, 2, 3, 4)),
        move_targets=lambda y, u: eq.transform(y, u, group=C8),
    )
    assert report.group == C8.subgroup("C4")
    assert any("targets that move" in note for note in report.notes)


def test_the_null_is_tested_in_closed_families():
    """What no draw can tell apart is never rejected."""
    products = lambda group, moved: np.ones((len(moved), group.order))  # noqa: E731
    together, _ = closed_test([products], 4, D8.subgroups, 19, np.random.default_rng(0))
    assert all(outcome.adjusted == 1 for outcome in together.values())
