"""The subgroups of a group as a Hasse diagram in SVG, for notebooks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from eqjax.groups import html

MANY = 24  # subgroups; of more, one of each conjugacy class is drawn
STARTS = 16  # orders of nodes to begin with
SHIFTS = sorted((n / 4 for n in range(-8, 9)), key=abs)  # columns
LETTER, HEIGHT, GAP, STEP, MARGIN = 7.5, 22, 14, 58, 34  # pixels

Edges = Sequence[tuple[int, int]]
Place = tuple[float, float]


def lattice(group: Any) -> str:
    """Draw the subgroups of a `Group` by their orders, each above its maximal ones.

    Of many subgroups, one of each class under conjugation stands for all.
    """
    few = len(group.subgroups) <= MANY
    classes = [(H,) for H in group.subgroups] if few else group.conjugacy_classes
    number = {H: n for n, members in enumerate(classes) for H in members}
    edges = {(n, number[K]) for n, (H, *_) in enumerate(classes) for K in H.covers}
    text = f"{group!r}, order {group.order}: {len(number)} subgroups"
    text += "" if few else f" in {len(classes)} classes under conjugation"
    orders = [members[0].order for members in classes]
    picture = hasse(_labels(classes), orders, sorted(edges))
    return html.page([html.line(text), picture])


def _labels(classes: Sequence[Sequence[Any]]) -> list[str]:
    """Return names and counts, by type alone where one class has all of a type."""
    families = [members[0].family for members in classes]
    found = []
    for (first, *others), family in zip(classes, families, strict=True):
        one = others and families.count(family) == 1
        count = f" \u00d7{1 + len(others)}" if others else ""
        found.append((family if one else first.name) + count)
    return found


def hasse(labels: Sequence[str], levels: Sequence[int], edges: Edges) -> str:
    """Return an SVG picture of nodes in rows, and of lines between them.

    Args:
      labels: of the nodes.
      levels: of each node; the largest is at the top, and written beside its row.
      edges: positions of two nodes, the upper one first.
    """
    width = GAP + LETTER * max(map(len, labels))
    columns = _arranged(levels, edges)
    left = min(column for column, _ in columns.values()) - 0.5
    right = max(column for column, _ in columns.values()) + 0.5
    place = {
        n: (
            MARGIN + (width + GAP) * (column - left),
            HEIGHT / 2 + 3 + STEP * depth,
        )
        for n, (column, depth) in columns.items()
    }
    sides = {y: levels[n] for n, (_, y) in place.items()}
    across, down = MARGIN + (width + GAP) * (right - left), max(sides) + HEIGHT / 2 + 3
    lines = "".join(_line(place[a], place[b]) for a, b in edges)
    boxes = "".join(_box(x, y, width) for x, y in place.values())
    names = "".join(_text(*place[n], labels[n], "middle") for n in place)
    orders = "".join(_text(4, y, str(level), "start") for y, level in sides.items())
    return (
        '<div style="overflow:auto"><svg xmlns="http://www.w3.org/2000/svg" '
        f'width="{across:.0f}" height="{down:.0f}" '
        'font-family="sans-serif" font-size="12" fill="currentColor">'
        f'<g stroke="currentColor" stroke-opacity="0.4">{lines}</g>'
        f'<g stroke="rgb({html.COOL})" fill="rgb({html.COOL})" fill-opacity="0.15">'
        f'{boxes}</g>{names}<g opacity="0.6">{orders}</g></svg></div>'
    )


def _arranged(levels: Sequence[int], edges: Edges) -> dict[int, Place]:
    """Return the column and row of every node, so that few lines cross.

    Every node goes near to those that it has lines to, from several orders to begin
    with: the barycenter method (Sugiyama et al. 1981). Then rows are moved sideways, so
    that fewer lines go through other nodes.
    """
    beside: dict[tuple[int, bool], list[int]] = {}
    for upper, lower in edges:
        beside.setdefault((lower, True), []).append(upper)
        beside.setdefault((upper, False), []).append(lower)
    rng = random.Random(0)
    found: list[list[list[int]]] = []
    for _ in range(STARTS):
        by_level: dict[int, list[int]] = {n: [] for n in sorted(set(levels))[::-1]}
        for n, level in enumerate(levels):
            by_level[level].append(n)
        rows = list(by_level.values())
        for row in rows if found else ():
            rng.shuffle(row)
        for down in (True, False) * 3:
            for row in rows if down else rows[::-1]:
                column = {n: place[0] for n, place in _places(rows).items()}
                near = {n: [column[m] for m in beside.get((n, down), [n])] for n in row}
                means = {n: sum(near[n]) / len(near[n]) for n in row}
                row.sort(key=means.__getitem__)
        found.append(rows)
    best = min(found, key=lambda rows: _faults(_places(rows), edges))
    shifts: dict[int, float] = {}
    for depth in [*range(1, len(best))] * 2:

        def moved(by: float, depth: int = depth) -> dict[int, Place]:
            return _places(best, {**shifts, depth: by})

        shifts[depth] = min(SHIFTS, key=lambda by: _faults(moved(by), edges))
    return _places(best, shifts)


def _places(
    rows: Sequence[Sequence[int]], shifts: Mapping[int, float] | None = None
) -> dict[int, Place]:
    """Return the column of every node, counted from the middle, and its row."""
    return {
        n: (i - (len(row) - 1) / 2 + (shifts or {}).get(depth, 0.0), depth)
        for depth, row in enumerate(rows)
        for i, n in enumerate(row)
    }


def _faults(places: Mapping[int, Place], edges: Edges) -> float:
    """Return how many lines cross each other, and more for those through nodes."""
    if not edges:
        return 0.0
    place = np.array([at for _, at in sorted(places.items())])
    begin, end = place[np.array(edges)].swapaxes(0, 1)
    (x, y), (dx, dy) = begin.T[:, :, None], (end - begin).T[:, :, None]
    # On which side of every line the two ends of every other are.
    first, second = (dx * (p[:, 1] - y) - dy * (p[:, 0] - x) for p in (begin, end))
    apart = first * second < 0
    crossing = np.sum(apart & apart.T) / 2
    share = (place[:, 1] - y) / dy
    inside = (share > 0) & (share < 1)
    through = inside & (np.abs(x + share * dx - place[:, 0]) < 0.5)
    return float(crossing + 20 * through.sum())


def _box(x: float, y: float, width: float) -> str:
    corner = f'x="{x - width / 2:.1f}" y="{y - HEIGHT / 2:.1f}"'
    return f'<rect {corner} width="{width:.1f}" height="{HEIGHT}" rx="5"/>'


def _line(upper: Place, lower: Place) -> str:
    (a, b), (c, d) = upper, lower
    return f'<path d="M{a:.1f} {b + HEIGHT / 2:.1f}L{c:.1f} {d - HEIGHT / 2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    where = f'x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}"'
    return f"<text {where}>{escape(text)}</text>"
