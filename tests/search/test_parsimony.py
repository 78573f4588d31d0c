"""Symmetry stays where its losses are as low, image by image."""

import jax
import numpy as np
import pytest
from scipy import stats

import eqjax as eq
from eqjax.search import Evolution, Score, one_standard_error

D4 = eq.dihedral(4)
KEY = jax.random.key(0)
IMAGES = 400
HARD = np.random.default_rng(0).exponential(size=IMAGES)  # how hard every image is


def parse(*names):
    return [eq.Architecture.parse(D4, name) for name in names]


def losses(*gains, noise=0.1):
    """Losses of children that gain so much over the first, in the mean."""
    rng = np.random.default_rng(1)
    found = [HARD]
    for gain in gains:
        drawn = rng.normal(size=IMAGES)
        drawn = (drawn - drawn.mean()) / drawn.std(ddof=1)
        found.append(HARD - gain + noise * drawn)
    return np.array(found)


def test_a_relaxed_child_stands_from_one_standard_error_on():
    error = 0.1 / IMAGES**0.5
    children = parse("D4 D4", "D4 C4")
    assert one_standard_error(children, losses(1.01 * error)) == [0, 1]
    assert one_standard_error(children, losses(0.99 * error)) == [0]
    assert one_standard_error(children, losses(-1.0)) == [0]


def test_differences_are_paired():
    """The gain is a small part of what the means vary by, and clear all the same."""
    found = losses(0.02)
    assert stats.sem(found[0]) > 0.02 > stats.sem(found[0] - found[1])
    assert one_standard_error(parse("D4 D4", "D4 C4"), found) == [0, 1]


def test_equal_networks_are_worth_their_symmetry():
    children = parse("C1 C1", "D4 C4", "D4 D4")
    assert one_standard_error(children, np.ones((3, 5))) == [2]


def test_symmetry_is_compared_layer_by_layer_and_only_where_it_is_more():
    children = parse("D4 D4", "C4 C4", "D2:i D2:i", "C4 C4")
    found = losses(0.1, 0.1, 0.05)
    # Neither C4 nor D2 contains the other; two networks of C4 are no rivals.
    assert one_standard_error(children, found) == [0, 1, 2, 3]
    # C2 gains over D4, and not over C4.
    children = parse("D4 D4", "C4 C4", "C2 C2")
    assert one_standard_error(children, losses(0.1, 0.1)) == [0, 1]


def test_children_that_fell_are_no_rivals():
    """C4 does not stand beside D4: C2 is then compared with D4 alone."""
    children = parse("D4 D4", "C4 C4", "C2 C2")
    assert one_standard_error(children, losses(0.004, 0.006)) == [0, 2]


def test_the_order_of_the_children_does_not_matter():
    children, found = parse("D4 D4", "C4 C4", "C2 C2"), losses(0.004, 0.006)
    for order in ([2, 1, 0], [1, 2, 0]):
        stood = one_standard_error([children[i] for i in order], found[order])
        assert sorted(order[i] for i in stood) == [0, 2]


def test_a_search_selects_among_those_that_stand():
    search = Evolution(3, parsimony=one_standard_error)
    state = search.init(parse("D4 D4")[0])
    proposals = search.ask(state, KEY)
    state, _ = search.tell(state, proposals, [Score(0.2, 1)], KEY, losses())
    proposals = search.ask(state, KEY)
    scores = [Score(0.2, 1)] + [Score(0.1, 2)] * (len(proposals) - 1)
    first, *others = losses(*[0.0] * (len(proposals) - 2), 0.1)
    scores[1] = Score(float("nan"), 2)  # diverged, with losses that nobody reads
    others[0][:] = np.nan
    after, kept = search.tell(state, proposals, scores, KEY, np.array([first, *others]))
    assert set(kept) == {0, len(proposals) - 1}
    assert after.diverged == 1
    with pytest.raises(ValueError, match="parsimony needs the losses of 4 proposals"):
        search.tell(state, proposals, scores, KEY)
    with pytest.raises(ValueError, match="of 4 proposals .*, got 1"):
        search.tell(state, proposals, scores, KEY, losses())


def test_losses_of_another_shape():
    with pytest.raises(ValueError, match="losses of 2 children on the same 2 samples"):
        one_standard_error(parse("D4", "C4"), np.ones((2, 1)))
    with pytest.raises(ValueError, match=r"got an array \(3, 5\)"):
        one_standard_error(parse("D4", "C4"), np.ones((3, 5)))
