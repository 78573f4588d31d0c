import itertools
import math

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


def test_enumeration():
    found = list(eq.enumerate_architectures(D4.subgroups, 2))
    pairs = [(H, K) for H, K in itertools.product(D4.subgroups, repeat=2) if K <= H]
    assert [a.groups for a in found] == pairs


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


def test_how_much_symmetry_an_architecture_has():
    a, b, c = (eq.Architecture.parse(D4, n) for n in ("D4 C4", "D4 C2", "C4 C4"))
    assert a.log_order == pytest.approx(math.log(32))
    assert a.contains(a)
    assert a.contains(b)
    assert a.contains(c)
    assert not b.contains(c)
    assert not c.contains(b)
    with pytest.raises(ValueError, match="shorter"):
        a.contains(eq.Architecture.parse(D4, "D4"))
