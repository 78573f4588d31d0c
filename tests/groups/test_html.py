import itertools
import math
import re
import time
import xml.etree.ElementTree as ET

import pytest

import eqjax as eq
from eqjax.groups import html
from eqjax.groups.diagram import HEIGHT, hasse
from eqjax.groups.text import Rows, page
from tests.page import Page

HOSTILE = """<script>alert("1 & 2")</script>'"""


def test_the_reader_of_these_tests_is_strict():
    for wrong in (
        "<p>a",
        "<p>a</b>",
        "a",
        "<p a='1' a='2'>b</p>",
        "<p onload='x'>b</p>",
    ):
        with pytest.raises((AssertionError, IndexError)):
            Page(wrong)


def test_everything_is_escaped():
    for made in (
        html.page([html.line(HOSTILE), html.table([[HOSTILE], [HOSTILE]])]),
        hasse([HOSTILE], [1], []),
    ):
        assert "script" not in Page(made).tags
        assert Page(made).words.count(HOSTILE.split()[0]) in (1, 3)


def test_tables_are_those_that_are_printed():
    rows = Rows([("group", "p"), ("D4", html.Shaded("0.01 x", 1.0)), ("C1", "1")])
    assert str(rows) == "group  p\nD4     0.01 x\nC1     1"
    assert Page(page(rows)).rows == [["group", "p"], ["D4", "0.01 x"], ["C1", "1"]]


def opacity(shade):
    found = re.search(r"rgba\([\d,]+,([\d.]+)\)", html.line(html.Shaded("a", shade)))
    return 0.0 if found is None else float(found.group(1))


def test_shades_grow_with_their_number_and_end_at_one():
    warm = [opacity(shade) for shade in (0.0, 0.2, 0.7, 1.0, 30.0)]
    assert warm[0] == 0 < warm[1] < warm[2] < warm[3] == warm[4] <= 0.5
    assert opacity(-0.7) == warm[2]
    cool, hot = (html.line(html.Shaded("a", shade)) for shade in (-1, 1))
    assert html.COOL in cool
    assert html.WARM in hot
    assert opacity(math.nan) == opacity(math.inf) == 0


def test_long_tables_are_cut_and_say_so():
    rows = [["n"], *([str(n)] for n in range(html.ROWS))]
    assert len(Page(html.table(rows)).rows) == len(rows)
    longer = Page(html.table([*rows, ["1"], ["2"]]))
    assert len(longer.rows) == len(rows)
    assert "2 rows more" in " ".join(longer.words)
    assert Page(html.table([["only a head"]])).rows == [["only a head"]]


def boxes(made):
    """The centre of every box of a diagram by its label, and the ends of all lines."""
    svg = ET.fromstring(made).find(".//{*}svg")
    centres = {
        text.text: (float(text.get("x")), float(text.get("y")) - 4)
        for text in svg.findall(".//{*}text")
        if text.get("text-anchor") == "middle"
    }
    ends = [
        re.findall(r"[ML]([\d.]+) ([\d.]+)", line.get("d"))
        for line in svg.findall(".//{*}path")
    ]
    sides = {text.text for text in svg.findall(".//{*}text")} - set(centres)
    half = HEIGHT / 2
    lines = [
        ((float(a), float(b) - half), (float(c), float(d) + half))
        for (a, b), (c, d) in ends
    ]
    return svg, centres, lines, sides


def label_of(members, classes):
    """The name of a class: its type alone where no other class is of this type."""
    first = members[0]
    if len(members) == 1:
        return first.name
    alike = [each for each in classes if each[0].family == first.family]
    name = first.family if alike == [members] else first.name
    return f"{name} \u00d7{len(members)}"


@pytest.mark.parametrize("group", [eq.dihedral(4), eq.flip(), eq.octahedral()], ids=str)
def test_a_lattice_is_drawn_by_order_with_all_its_lines(group):
    svg, centres, lines, _ = boxes(group._repr_html_())
    few = len(group.subgroups) <= 24
    classes = [(H,) for H in group.subgroups] if few else group.conjugacy_classes
    labels = {H: label_of(members, classes) for members in classes for H in members}
    assert set(centres) == set(labels.values())
    for (a, b), (c, d) in lines:
        assert b < d  # the smaller one lies lower
        assert {(a, b), (c, d)} <= set(centres.values())
    expected = {
        (centres[labels[H]], centres[labels[K]])
        for H in group.subgroups
        for K in H.covers
    }
    assert set(lines) == expected
    heights = {H.order: centres[labels[H]][1] for H in group.subgroups}
    assert sorted(heights, key=heights.get) == sorted(heights, reverse=True)
    for x, y in centres.values():
        assert 0 < x < float(svg.get("width"))
        assert 0 < y < float(svg.get("height"))


def test_many_subgroups_are_drawn_by_conjugacy_class():
    Oh = eq.full_octahedral()
    made = Oh._repr_html_()
    _, centres, _, sides = boxes(made)
    assert len(centres) == 33
    counts = [int(label.partition("\u00d7")[2] or 1) for label in centres]
    assert sum(counts) == 98
    assert sides == {"48", "24", "16", "12", "8", "6", "4", "3", "2", "1"}
    assert "98 subgroups in 33 classes" in " ".join(Page(made).words)


def test_boxes_of_a_row_do_not_meet():
    for group in (eq.full_octahedral(), eq.dihedral(16), eq.dihedral(4)):
        svg, centres, _, _ = boxes(group._repr_html_())
        width = float(svg.find(".//{*}g/{*}rect").get("width"))
        for y in {y for _, y in centres.values()}:
            row = sorted(x for x, other in centres.values() if other == y)
            assert all(b - a > width for a, b in itertools.pairwise(row))
            assert row[0] - width / 2 > 20  # the orders stand on the left


def test_names_of_closed_groups_and_infinite_orders():
    O3 = eq.orthogonal()
    for H in O3.subgroups:
        words = " ".join(Page(H._repr_html_()).words)
        assert repr(H) in words
        assert ("infinite" in words) == math.isinf(H.order)
    assert "none" in Page(O3.smallest._repr_html_()).words


def test_a_known_lattice_is_drawn_at_once():
    for group in (eq.dihedral(4), eq.full_octahedral(), eq.orthogonal()):
        group._repr_html_()
        begin = time.process_time()
        made = group._repr_html_()
        assert time.process_time() - begin < 0.5
        assert len(made) < 40_000


def test_a_lattice_that_is_planar_is_drawn_without_crossings():
    lines = boxes(eq.dihedral(4)._repr_html_())[2]
    for (a, b), (c, d) in itertools.combinations(lines, 2):
        if (a[1], b[1]) == (c[1], d[1]):  # between the same rows
            assert (a[0] - c[0]) * (b[0] - d[0]) >= 0
