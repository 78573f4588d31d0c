import itertools

import pytest

import eqjax as eq

D4 = eq.dihedral(4)
SIX = tuple(D4.subgroup(n) for n in ("D4", "C4", "D2", "C2", "D1", "C1"))


def parse(names):
    return eq.Architecture.parse(D4, names)


def test_parse_and_print():
    architecture = parse("D4 C4 D1:i-j")
    assert architecture.names == ("D4", "C4", "D1:i-j")
    assert parse(str(architecture)) == architecture
    assert hash(parse("D4 C4")) == hash(parse(["D4", "C4"]))
    assert eq.Architecture.uniform(D4, 3) == parse("D4 D4 D4")
    assert len(architecture) == 3


def test_children_relax_from_the_output_side():
    assert [str(c) for c in parse("D4 D4").children(SIX)] == [
        "D4 D4",
        "D4 C4",
        "D4 D2:i",
    ]
    assert [str(c) for c in parse("D4 D4 C2").children(SIX)] == [
        "D4 D4 C2",
        "D4 D4 C1",
        "D4 C2 C2",
    ]
    assert [str(c) for c in parse("D4 C4 C1").children()] == [
        "D4 C4 C1",
        "C4 C4 C1",
        "D4 C1 C1",
    ]


def test_children_stay_monotone_and_reach_everything():
    seen = {parse("D4 D4 D4")}
    frontier = list(seen)
    while frontier:
        for child in frontier.pop().children(SIX):
            assert child.is_monotone
            if child not in seen:
                seen.add(child)
                frontier.append(child)
    # Everything whose layers lie on one chain of candidates, each below the one before.
    everything = set(eq.enumerate_architectures(SIX, 3))
    assert seen == everything


def test_enumeration():
    found = list(eq.enumerate_architectures(D4.subgroups, 2))
    pairs = [(H, K) for H, K in itertools.product(D4.subgroups, repeat=2) if K <= H]
    assert [a.groups for a in found] == pairs


def test_neighbors_are_mutual_and_one_step_away():
    for architecture in eq.enumerate_architectures(SIX, 2):
        for other in architecture.neighbors(SIX):
            pairs = zip(architecture.groups, other.groups, strict=True)
            assert sum(a != b for a, b in pairs) == 1
            assert other.is_monotone
            assert architecture in other.neighbors(SIX)


def test_bad_architectures():
    with pytest.raises(ValueError, match="at least one layer"):
        eq.Architecture(())
    with pytest.raises(ValueError, match=r"layer 1 lives over Group\(C4\)"):
        eq.Architecture((D4, eq.cyclic(4)))
    with pytest.raises(TypeError, match="Architecture.parse"):
        eq.Architecture("D4 C4")
    with pytest.raises(TypeError, match="layer 1 needs a Group, got 'C4'"):
        eq.Architecture((D4, "C4"))
    assert hash(eq.Architecture([D4, D4])) == hash(eq.Architecture((D4, D4)))
    with pytest.raises(ValueError, match="no subgroup 'C8'"):
        parse("D4 C8")
