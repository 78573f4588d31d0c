import itertools
import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

import eqjax as eq
from eqjax.groups import difference
from eqjax.kernels.orbits import fiber_table
from eqjax.morphism.matching import match
from eqjax.search.evolution import Evolution
from tests import oracle

GROUPS = {
    "flip": eq.flip(),
    "C1": eq.cyclic(1),
    "C2": eq.cyclic(2),
    "C4": eq.cyclic(4),
    "D1": eq.dihedral(1),
    "D2": eq.dihedral(2),
    "D4": eq.dihedral(4),
    "O": eq.octahedral(),
    "Oh": eq.full_octahedral(),
}
# order, subgroups, conjugacy classes of subgroups: from the literature.
KNOWN = {
    "flip": (2, 2, 2),
    "C1": (1, 1, 1),
    "C2": (2, 2, 2),
    "C4": (4, 3, 3),
    "D1": (2, 2, 2),
    "D2": (4, 5, 5),
    "D4": (8, 10, 8),
    "O": (24, 30, 11),
    "Oh": (48, 98, 33),
}
each_group = pytest.mark.parametrize("G", GROUPS.values(), ids=GROUPS.keys())


@each_group
def test_tables_are_those_of_the_matrices(G):
    for H in G.subgroups:
        m = H.matrices
        assert np.array_equal(m[0], np.eye(G.dimension))
        assert np.array_equal(m[H.product], np.einsum("uij,vjk->uvik", m, m))
        assert np.array_equal(m[H.inverse], np.swapaxes(m, 1, 2))
        assert np.array_equal(m, G.matrices[list(H.elements)])
        assert list(H.elements) == sorted(H.elements)
        assert H.ambient is G


@pytest.mark.parametrize("name", GROUPS)
def test_known_lattices(name):
    G = GROUPS[name]
    found = (G.order, len(G.subgroups), len(G.conjugacy_classes))
    assert found == KNOWN[name]
    assert sum(map(len, G.conjugacy_classes)) == len(G.subgroups)
    orders = [H.order for H in G.subgroups]
    assert orders == sorted(orders, reverse=True)


@each_group
def test_names_are_unique_and_parse_back(G):
    names = [H.name for H in G.subgroups]
    assert len(set(names)) == len(names)
    assert [G.subgroup(name) for name in names] == list(G.subgroups)


@each_group
def test_conjugates_share_their_family(G):
    for members in G.conjugacy_classes:
        assert len({H.family for H in members}) == 1
        assert all(H.is_normal_in(G) == (len(members) == 1) for H in members)


@each_group
def test_meet_and_join_are_the_bounds_of_the_lattice(G):
    for H in G.subgroups:
        for K in G.subgroups:
            meet, join = H.meet(K), H.join(K)
            below = [L for L in G.subgroups if L <= H and L <= K]
            above = [L for L in G.subgroups if L >= H and L >= K]
            assert meet == max(below, key=lambda L: L.order)
            assert join == min(above, key=lambda L: L.order)
            assert (H <= K) == (meet == H) == (join == K)


@each_group
def test_covers_are_the_maximal_subgroups(G):
    for H in G.subgroups:
        between = [
            K for K in H.covers if any(K < L < H for L in G.subgroups) or not K < H
        ]
        assert between == []
        assert all(any(K <= L for L in H.covers) for K in H.subgroups if K != H)


def test_chains():
    D4 = GROUPS["D4"]
    chains = list(D4.chains())
    assert len(chains) == 7
    for chain in chains:
        assert chain[0] == D4
        assert chain[-1].order == 1
        pairs = itertools.pairwise(chain)
        assert all(later in H.covers for H, later in pairs)


def test_d4_is_numbered_as_documented():
    D4 = GROUPS["D4"]
    for u in range(8):
        assert [int(v) for v in D4.product[u]] == [
            oracle.product(u, v) for v in range(8)
        ]
    assert D4.subgroup("C4").elements == (0, 1, 2, 3)


def test_d4_names():
    names = [H.name for H in GROUPS["D4"].subgroups]
    plane = ["D1:i", "D1:i+j", "D1:i-j", "D1:j"]
    assert names == ["D4", "C4", "D2:i", "D2:i+j", "C2", *plane, "C1"]
    rows = GROUPS["D4"].subgroup("D1:i").matrices[1]
    assert np.array_equal(rows, np.diag([-1, 1]))


def test_families_of_the_cube_are_the_32_point_groups_without_hexagonal_ones():
    families = {H.family for H in GROUPS["Oh"].subgroups}
    chiral = "C1 C2 C3 C4 D2 D3 D4 T O"
    achiral = "Ci Cs C2h C2v D2h S4 C4h C4v D2d D4h S6 C3v D3d Th Td Oh"
    assert families == set(f"{chiral} {achiral}".split())


def test_subgroup_by_index_and_axis():
    D4 = GROUPS["D4"]
    kin = [H for H in D4.subgroups if H.family == "D1"]
    assert [D4.subgroup("D1", i) for i in range(4)] == kin
    with pytest.warns(UserWarning, match="4 subgroups D1: D1:i, .*; taking the first"):
        assert D4.subgroup("D1") == kin[0]
    assert D4.subgroup("D1", axis="i-j").name == "D1:i-j"
    with pytest.raises(ValueError, match=r"index must be in 0\.\.3, got 4"):
        D4.subgroup("D1", 4)
    with pytest.raises(TypeError, match="for a direction pass axis='j'"):
        D4.subgroup("D1", "j")
    with pytest.raises(TypeError, match="not supported between"):
        assert D4 <= "C4"
    with pytest.raises(ValueError, match="no subgroup 'D3'; nearest: .*D"):
        D4.subgroup("D3")


def test_equal_by_value_across_copies():
    assert eq.dihedral(4) == GROUPS["D4"]
    assert hash(eq.dihedral(4)) == hash(GROUPS["D4"])
    assert eq.dihedral(4).subgroup("C4") == GROUPS["D4"].subgroup("C4")
    assert eq.dihedral(4).subgroup("C4") != eq.cyclic(4)
    copy = pickle.loads(pickle.dumps(GROUPS["D4"].subgroup("D2:i+j")))
    assert copy == GROUPS["D4"].subgroup("D2:i+j")
    assert copy.name == "D2:i+j"


def test_pickles_are_equal_in_another_process():
    # Hashes of bytes differ from process to process, and equality must not care.
    code = (
        "import pickle, sys, eqjax as eq; "
        "H = pickle.load(sys.stdin.buffer); "
        "C4 = eq.dihedral(4).subgroup('C4'); print(H == C4, H in {C4})"
    )
    sent = pickle.dumps(GROUPS["D4"].subgroup("C4"))
    done = subprocess.run(
        [sys.executable, "-c", code], input=sent, capture_output=True, check=True
    )
    assert done.stdout.split() == [b"True", b"True"]


def test_printing():
    D4 = GROUPS["D4"]
    assert str(D4) == "D4"
    assert repr(D4.subgroup("C4")) == "Group(C4 < D4)"
    lines = D4.lattice().splitlines()
    assert len(lines) == 10
    assert lines[0].split() == ["8", "D4", ">", "C4,", "D2:i,", "D2:i+j"]


def test_from_generators_matches_the_standard_groups():
    turn, mirror = [[0, -1], [1, 0]], [[1, 0], [0, -1]]
    made = eq.Group.from_generators([turn, mirror])
    assert {m.tobytes() for m in made.matrices} == {
        m.tobytes() for m in GROUPS["D4"].matrices
    }
    assert eq.Group.from_generators(turn).order == 4


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        ([[[0.6, -0.8], [0.8, 0.6]]], "not a signed permutation"),
        ([[[1, 0], [1, 0]]], "not a signed permutation"),
        ([[[1, 1], [0, 1]]], "not a signed permutation"),
        ([[[1, 0, 0], [0, 1, 0]]], "shape"),
        (np.eye(4)[None], "1, 2 or 3 spatial axes"),
        ([[[1]], [[1, 0], [0, 1]]], "different dimensions"),
        (np.zeros((0, 2, 2)), "shape"),
    ],
)
def test_bad_generators(matrices, message):
    with pytest.raises(ValueError, match=message):
        eq.Group.from_generators(matrices)


def test_matrices_that_are_no_group():
    turn = np.array([[0, -1], [1, 0]])
    with pytest.raises(ValueError, match="do not close.*from_generators"):
        eq.Group(np.stack([np.eye(2, dtype=int), turn]))
    with pytest.raises(ValueError, match="identity"):
        eq.Group(turn[None])
    with pytest.raises(ValueError, match="twice"):
        eq.Group(np.stack([np.eye(2, dtype=int)] * 2))


@pytest.mark.parametrize("n", [0, -4, 2.5, "8", 721])
def test_numbers_of_rotations_that_there_are_not(n):
    for kind in (eq.cyclic, eq.dihedral):
        with pytest.raises(ValueError, match="whole number from 1 to 720"):
            kind(n)


def test_subgroups_of_different_ambient_groups_do_not_meet():
    with pytest.raises(ValueError, match="different ambient groups"):
        GROUPS["D4"].meet(eq.cyclic(4))
    with pytest.raises(ValueError, match="not a subgroup of"):
        GROUPS["D4"].subgroup("C4").index(GROUPS["D4"].subgroup("D2:i"))


@each_group
def test_a_name_that_several_subgroups_share_is_never_taken_silently(G):
    families = [H.family for H in G.subgroups]
    for H in G.subgroups:
        shared = families.count(H.family) > 1
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            G.subgroup(H.family)
            G.subgroup(H.name)
            G.subgroup(H.family, families.count(H.family) - 1)
        assert len(caught) == shared
        for told in caught:
            assert H.name in str(told.message)


def test_groups_of_one_name_are_told_apart():
    D4, D1 = GROUPS["D4"], GROUPS["D1"]
    shuffled = eq.Group(D4.matrices[[0, 2, 1, *range(3, 8)]])
    other_axis = eq.Group(D4.subgroup("D1:i").matrices)
    for a, b, told in [
        (D4, shuffled, "the same matrices in another order: element 1 is"),
        (D1, other_axis, "other matrices: element 1 is"),
    ]:
        layers = [eq.InvariantHead(1, group=G) for G in (a, b)]
        x = np.ones((1, 2, 2, a.order, 1))
        for call in (
            lambda a=a, b=b: a.meet(b),
            lambda a=a, b=b: a.join(b),
            lambda a=a, b=b: b.index(a),
            lambda a=a, b=b: eq.Architecture((b, a)),
            lambda a=a, b=b: eq.Mixture((b, a)),
            lambda a=a, b=b: Evolution(candidates=(b, a)),
            lambda a=a, b=b, x=x: eq.transform(x, 1, group=a, fiber=eq.regular(b)),
            lambda a=a, b=b: fiber_table(a, eq.regular(b)),
            lambda layers=layers, x=x: match(*layers, x),
        ):
            with pytest.raises(ValueError, match=told) as error:
                call()
            assert str(a.matrices[1].tolist()) in str(error.value)
            assert str(b.matrices[1].tolist()) in str(error.value)
        assert difference(a, a) == difference(a, eq.full_octahedral()) == ""


def named_motion(name, dimension):
    """The matrix of a motion that is called so, by Rodrigues' formula."""
    if name == "identity":
        return np.eye(dimension)
    if name == "inversion":
        return -np.eye(dimension)
    kind, _, rest = name.partition(" ")
    angle, _, axis = rest.removeprefix("by ").partition("° about ")
    axis = axis or ("k" if kind == "rotation" else rest)
    terms = re.findall(r"([+-]?)([ijk])", axis)
    n = sum(np.eye(3)["ijk".index(a)] * (-1 if s == "-" else 1) for s, a in terms)
    n = n / np.linalg.norm(n)
    mirror = np.eye(3) - 2 * np.outer(n, n)
    if kind == "reflection":
        return mirror[:dimension, :dimension]
    turn, cross = np.radians(float(angle.rstrip("°"))), np.cross(np.eye(3), n)
    rotation = np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) * cross @ cross
    motion = mirror @ rotation if kind == "rotoreflection" else rotation
    return motion[:dimension, :dimension]


@each_group
def test_elements_are_called_what_they_do(G):
    assert len(set(G.element_names)) == G.order
    for name, matrix in zip(G.element_names, G.matrices, strict=True):
        np.testing.assert_allclose(named_motion(name, G.dimension), matrix, atol=1e-12)
    for H in G.subgroups:
        assert H.element_names == tuple(G.element_names[u] for u in H.elements)


def test_rotations_turn_as_numpy_does():
    D4, image = eq.dihedral(4), np.arange(16.0).reshape(1, 4, 4, 1)
    for u, name in enumerate(D4.element_names[:4]):
        expected = np.rot90(image, u, (1, 2))
        assert np.array_equal(eq.transform(image, u, group=D4), expected)
        assert name == ("identity", *(f"rotation by {90 * k}°" for k in (1, 2, 3)))[u]
    flips = dict(zip(D4.element_names, D4.elements, strict=True))
    moved = eq.transform(image, flips["reflection i"], group=D4)
    assert np.array_equal(moved, image[:, ::-1])
