"""Which children a member has."""

import eqjax as eq
from eqjax.search.proposals import neighbors, relax_from_output

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
