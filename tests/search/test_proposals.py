"""Which children a member has, and which of them are tried first."""

import jax
import pytest

import eqjax as eq
from eqjax.search import Evolution, Score
from eqjax.search.proposals import (
    by_gain,
    neighbors,
    relax_and_constrain,
    relax_from_output,
)

D4 = eq.dihedral(4)
SIX = tuple(D4.subgroup(n) for n in ("D4", "C4", "D2", "C2", "D1", "C1"))


def parse(names):
    return eq.Architecture.parse(D4, names)


def test_children_relax_from_the_output_side():
    assert [str(c) for c in relax_from_output(parse("D4 D4"), SIX)] == [
        "D4 D4",
        "D4 C4",
        "D4 D2:i",
    ]
    assert [str(c) for c in relax_from_output(parse("D4 D4 C2"), SIX)] == [
        "D4 D4 C2",
        "D4 D4 C1",
        "D4 C2 C2",
    ]
    assert [str(c) for c in relax_from_output(parse("D4 C4 C1"))] == [
        "D4 C4 C1",
        "C4 C4 C1",
        "D4 C1 C1",
    ]


def test_children_stay_monotone_and_reach_everything():
    seen = {parse("D4 D4 D4")}
    frontier = list(seen)
    while frontier:
        for child in relax_from_output(frontier.pop(), SIX):
            assert child.is_monotone
            if child not in seen:
                seen.add(child)
                frontier.append(child)
    # Everything whose layers lie on one chain of candidates, each below the one before.
    everything = set(eq.enumerate_architectures(SIX, 3))
    assert seen == everything


def test_neighbors_are_mutual_and_one_step_away():
    for architecture in eq.enumerate_architectures(SIX, 2):
        copy, *others = neighbors(architecture, SIX)
        assert copy == architecture
        for other in others:
            pairs = zip(architecture.groups, other.groups, strict=True)
            assert sum(a != b for a, b in pairs) == 1
            assert other.is_monotone
            assert architecture in neighbors(other, SIX)


def test_a_layer_goes_back_up_one_step_or_to_the_layer_before_it():
    assert [str(c) for c in relax_and_constrain(parse("D4 C1"), SIX)] == [
        "D4 C1",
        "C1 C1",  # as relax_from_output has it
        "D4 C2",
        "D4 D1:i",
        "D4 D4",
    ]
    assert [str(c) for c in relax_and_constrain(parse("C4 C4"), SIX)] == [
        "C4 C4",
        "C4 C2",
        "D4 C4",
    ]


def test_every_architecture_has_a_way_to_every_other():
    everything = set(eq.enumerate_architectures(SIX, 3))
    up = {}
    for architecture in everything:
        copy, *others = relax_and_constrain(architecture, SIX)
        assert copy == architecture
        assert len(set(others)) == len(others)
        assert set(relax_from_output(architecture, SIX)) <= {copy, *others}
        assert set(others) <= everything
        up[architecture] = others
    seen, frontier = {parse("C1 C1 C1")}, [parse("C1 C1 C1")]
    while frontier:
        new = set(up[frontier.pop()]) - seen
        seen |= new
        frontier += new
    assert seen == everything  # from the bottom; from the top, by relaxation alone


def asked(evolution, names):
    state = evolution.init(parse(names))
    first = evolution.ask(state, jax.random.key(0))
    state, _ = evolution.tell(state, first, [Score(0.1, 1)], jax.random.key(0))
    proposals = evolution.ask(state, jax.random.key(0))
    return [str(p.architecture) for p in proposals]


def test_the_most_promising_children_are_tried_instead_of_random_ones():
    groups = {name: D4.subgroup(name) for name in ("C4", "D2:i", "D2:i+j")}
    order = by_gain({(1, groups["D2:i+j"]): 0.2, (1, groups["C4"]): 0.1})
    ordered = Evolution(children=3, order=order)
    assert asked(ordered, "D4 D4") == ["D4 D4", "D4 D2:i+j", "D4 C4"]
    few = Evolution(children=2, order=by_gain({(1, groups["D2:i"]): -1.0}))
    assert asked(few, "D4 D4") != ["D4 D4", "D4 D2:i"]
    one = Evolution(children=1, order=order)
    assert asked(one, "D4 D4") == ["D4 D4"]

    def gain(parent, child):
        assert parent == parse("D4 D4")
        return -child.groups[1].order - child.groups[1].is_normal_in(D4)

    every = Evolution(order=by_gain(gain))
    assert len(asked(every, "D4 D4")) == 4


def test_an_order_makes_up_no_children():
    search = Evolution(order=lambda parent, children: [parse("C1 C1")])
    with pytest.raises(ValueError, match="order returned .*C1 C1.*, no child of"):
        asked(search, "D4 D4")
