import itertools

import numpy as np
import pytest

import eqjax as eq
from eqjax.groups import finite_matrices

O3 = eq.orthogonal()
OH = eq.full_octahedral()
FINITE = [H for H in O3.subgroups if np.isfinite(H.order)]


def test_orders_are_those_of_the_tables_of_point_groups():
    known = {"Oh": 48, "O": 24, "Td": 24, "Th": 24, "T": 12, "D6h": 24, "D4h": 16}
    known |= {"D2d": 8, "D3d": 12, "S4": 4, "S6": 6, "C6v": 12, "Ci": 2, "C1": 1}
    assert {name: O3.subgroup(name).order for name in known} == known
    assert len(FINITE) == 32  # the crystallographic point groups


@pytest.mark.parametrize("H", FINITE, ids=str)
def test_finite_groups_contain_the_products_of_their_generators(H):
    for a, b in itertools.product(H.generators, repeat=2):
        assert H.contains(a @ b)
    assert O3.subgroup("SO(3)").contains(H.generators[-1]) == (
        np.linalg.det(H.generators[-1]) > 0
    )


def test_what_contains_what():
    inside = {
        "SO(3)": ("D∞", "C∞", "O", "T", "D6", "C1"),
        "C∞v": ("C∞", "C6v", "C4v", "C2v"),
        "D∞h": ("D∞", "C∞v", "C∞h", "D6h", "D4h", "D2d", "D3d", "S4", "Ci"),
        "D∞": ("C∞", "D6", "D2"),
        "C∞h": ("C∞", "C4h", "S4", "S6", "Cs", "Ci"),
    }
    for large, names in inside.items():
        for name in names:
            assert O3.subgroup(name) < O3.subgroup(large), (name, large)
    for small, large in (("Oh", "SO(3)"), ("Ci", "C∞v"), ("D2", "C∞v"), ("T", "D∞h")):
        assert not O3.subgroup(small) <= O3.subgroup(large)
    assert all(H <= O3 and O3.smallest <= H for H in O3.subgroups)


def test_it_compares_with_groups_of_the_cube():
    assert OH < O3
    assert not OH.subgroup("Ci") < O3.subgroup("SO(3)")
    assert O3.subgroup("Oh") <= OH <= O3.subgroup("Oh")
    assert OH.subgroup("D4h:k") <= O3.subgroup("D4h") <= OH.subgroup("D4h:k")
    assert not OH.subgroup("C4v:i") <= O3.subgroup("C4v")
    assert O3.subgroup("C∞v") > OH.subgroup("C4v:k")
    assert not O3.subgroup("C∞v") <= OH


def test_only_symmetries_of_the_cube_have_integer_elements():
    for H in FINITE:
        found = finite_matrices(H)
        hexagonal = "6" in H.name.replace("S6", "") or "3" in H.name or H.name == "S6"
        assert (found is None) == hexagonal
        assert found is None or len(found) == H.order
    assert finite_matrices(O3) is None


@pytest.mark.parametrize(
    ("symbol", "name"),
    [("4/mmm", "D4h"), ("-43m", "Td"), ("m-3m", "Oh"), ("mm2", "C2v"), ("-1", "Ci")],
)
def test_both_notations_are_read(symbol, name):
    assert O3.subgroup(symbol).name == name
    assert OH.subgroup(symbol, 0).family == name
    assert O3.subgroup("∞m") == O3.subgroup("Cinfv") == O3.subgroup("C∞v")
    assert OH.subgroup("4/mmm:j") == OH.subgroup("D4h:j")


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match=r"nearest: D4h"):
        O3.subgroup("D4hh")
    with pytest.raises(ValueError, match=r"C∞v has no subgroup 'D4h'"):
        O3.subgroup("C∞v").subgroup("D4h")


def test_intersections_have_a_name():
    meet = O3.subgroup("SO(3)").meet(O3.subgroup("C∞v"))
    assert meet == O3.subgroup("C∞")
