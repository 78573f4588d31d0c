"""Groups of any number of rotations of the plane."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest

import eqjax as eq
from eqjax.groups import standard_group
from eqjax.groups.angles import cos_sin, fraction_of, planar

GROUPS = [eq.cyclic(3), eq.cyclic(8), eq.dihedral(3), eq.dihedral(8), eq.dihedral(12)]
each_group = pytest.mark.parametrize("G", GROUPS, ids=str)


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


def test_fractions_of_a_turn_are_exact_where_they_can_be():
    assert [cos_sin(Fraction(k, 4)) for k in range(4)] == [
        (1, 0),
        (0, 1),
        (-1, 0),
        (0, -1),
    ]
    cos, sin = cos_sin(Fraction(1, 8))
    assert cos == sin
    for k in range(-40, 40):
        turn = Fraction(k, 23)
        expected = (math.cos(2 * math.pi * k / 23), math.sin(2 * math.pi * k / 23))
        np.testing.assert_allclose(cos_sin(turn), expected, atol=1e-15)
        assert fraction_of(planar(turn, reflected=True)) == (turn % 1, True)
    assert fraction_of(np.array([[0.6, -0.8], [0.8, 0.6]])) is None


@each_group
def test_tables_are_those_of_the_matrices(G):
    for u in range(G.order):
        for v in range(G.order):
            product = G.matrices[u] @ G.matrices[v]
            np.testing.assert_allclose(G.matrices[G.product[u, v]], product, atol=1e-14)
        back = G.matrices[G.inverse[u]] @ G.matrices[u]
        np.testing.assert_allclose(back, np.eye(2), atol=1e-14)


@pytest.mark.parametrize("n", [3, 5, 6, 8, 12, 16])
def test_subgroups_are_all_there_and_have_names(n):
    C, D = eq.cyclic(n), eq.dihedral(n)
    assert [H.name for H in C.subgroups] == [f"C{d}" for d in divisors(n)[::-1]]
    # A subgroup of D_n is C_d, or one of n / d conjugates of D_d.
    assert len(D.subgroups) == len(divisors(n)) + sum(divisors(n))
    names = [H.name for H in D.subgroups]
    assert len(set(names)) == len(names)
    assert all(D.subgroup(H.name) == H for H in D.subgroups)


def test_mirrors_are_named_by_their_normals():
    D8 = eq.dihedral(8)
    mirrors = [H.name for H in D8.subgroups if H.family == "D1"]
    assert mirrors[:4] == ["D1:i", "D1:i+j", "D1:i-j", "D1:j"]
    assert mirrors[4:] == ["D1:22.5°", "D1:67.5°", "D1:112.5°", "D1:157.5°"]
    for name in mirrors[4:]:
        angle = math.radians(float(name[3:-1]))
        normal = np.array([math.cos(angle), math.sin(angle)])
        matrix = D8.subgroup(name).matrices[1]
        np.testing.assert_allclose(matrix @ normal, -normal, atol=1e-12)
    same = [D8.subgroup("D1:22.5"), D8.subgroup("D1", axis="22.5°")]
    assert same == [D8.subgroup("D1:22.5°")] * 2
    assert D8.subgroup("D1:45") == D8.subgroup("D1:i+j")
    assert D8.subgroup("D1:202.5") == D8.subgroup("D1:22.5")
    with pytest.raises(ValueError, match="no subgroup 'D1:20°'.*nearest: D1:2"):
        D8.subgroup("D1:20")


def test_what_is_exact_on_pixels_is_said():
    assert eq.dihedral(4).exact == (True,) * 8
    assert eq.dihedral(4).matrices.dtype == np.int64
    D8 = eq.dihedral(8)
    assert sum(D8.exact) == 8
    exact = [n for n, e in zip(D8.element_names, D8.exact, strict=True) if e]
    assert exact[:4] == list(eq.cyclic(4).element_names)
    assert D8.subgroup("D4:i").exact == (True,) * 8
    assert sum(D8.subgroup("D4:22.5°").exact) == 4
    assert eq.full_octahedral().exact == (True,) * 48


def test_what_right_angles_share_with_the_exact_groups():
    inside, alone = eq.dihedral(8).subgroup("D4:i"), eq.dihedral(4)
    as_set = lambda G: {tuple(np.rint(m).astype(int).ravel()) for m in G.matrices}  # noqa: E731
    assert as_set(inside) == as_set(alone)
    assert {H.name for H in alone.subgroups if H.family == "D1"} == {
        H.name for H in inside.subgroups if H.family == "D1"
    }


def test_generators_need_not_be_exact_to_the_last_bit():
    turn = eq.cyclic(12).matrices[1].round(11)
    flip = np.diag([1, -1])
    made = eq.Group.from_generators([turn, flip])
    assert made.order == 24
    as_set = lambda G: {tuple((m.round(9) + 0.0).ravel()) for m in G.matrices}  # noqa: E731
    assert as_set(made) == as_set(eq.dihedral(12))


def test_they_compare_travel_and_are_found_by_name():
    D16 = eq.dihedral(16)
    assert standard_group("D16") == D16
    assert standard_group("C8") == eq.cyclic(8)
    H = D16.subgroup("D4:22.5°")
    again = pickle.loads(pickle.dumps(H))
    assert again == H
    assert hash(again) == hash(H)
    with pytest.raises(ValueError, match="no ambient group 'E8'.*C8, D16"):
        standard_group("E8")
