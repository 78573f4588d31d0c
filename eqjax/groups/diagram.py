"""The subgroups of a group as a Hasse diagram in SVG, for notebooks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from eqjax.groups import html

MANY = 24  # subgroups; of more, one of each conjugacy class is drawn
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
    edges = {
        (number[members[0]], number[K])
        for members in classes
        for K in members[0].covers
    }
    labels = [
        members[0].name + (f" \u00d7{len(members)}" if len(members) > 1 else "")
        for members in classes
    ]
    text = f"{group!r}, order {group.order}: {len(number)} subgroups"
    text += "" if few else f" in {len(classes)} classes under conjugation"
    orders = [members[0].order for members in classes]
    return html.page([html.line(text), hasse(labels, orders, sorted(edges))])


def hasse(labels: Sequence[str], levels: Sequence[int], edges: Edges) -> str:
    """Return an SVG picture of nodes in rows, and of lines between them.

    Args:
      labels: of the nodes.
      levels: of each node; the largest is at the top, and written beside its row.
      edges: positions of two nodes, the upper one first.
    """
    width = GAP + LETTER * max(map(len, labels))
    rows = _rows(levels, edges)
    across = MARGIN + (width + GAP) * max(map(len, rows))
    size = f'width="{across:.0f}" height="{HEIGHT + 6 + STEP * (len(rows) - 1)}"'
    place = {
        n: (
            (MARGIN + across) / 2 + (width + GAP) * _column(i, row),
            HEIGHT / 2 + 3 + STEP * depth,
        )
        for depth, row in enumerate(rows)
        for i, n in enumerate(row)
    }
    boxes = "".join(_box(x, y, width) for x, y in place.values())
    names = "".join(_text(*place[n], labels[n], "middle") for n in place)
    orders = "".join(_text(4, place[r[0]][1], str(levels[r[0]]), "start") for r in rows)
    # Lines end at the boxes, which let the page shine through: a mask cuts them out.
    mask = f"eqjax-{zlib.crc32(repr((labels, levels, edges)).encode()):x}"
    return (
        f'<div style="overflow:auto"><svg xmlns="http://www.w3.org/2000/svg" {size} '
        'font-family="sans-serif" font-size="12" fill="currentColor">'
        f'<mask id="{mask}" maskUnits="userSpaceOnUse" x="0" y="0" {size}>'
        f'<rect {size} fill="white"/><g fill="black">{boxes}</g></mask>'
        f'<g stroke="currentColor" stroke-opacity="0.4" mask="url(#{mask})">'
        f"{_lines(place, edges)}</g>"
        f'<g stroke="rgb({html.COOL})" fill="rgb({html.COOL})" fill-opacity="0.15">'
        f'{boxes}</g>{names}<g opacity="0.6">{orders}</g></svg></div>'
    )


def _rows(levels: Sequence[int], edges: Edges) -> list[list[int]]:
    """Return nodes by level from the top, each near to those it has lines to."""
    found: dict[int, list[int]] = {level: [] for level in sorted(set(levels))[::-1]}
    for n, level in enumerate(levels):
        found[level].append(n)
    rows = list(found.values())
    above: list[list[int]] = [[] for _ in levels]
    below: list[list[int]] = [[] for _ in levels]
    for upper, lower in edges:
        above[lower].append(upper)
        below[upper].append(lower)
    column = {n: _column(i, row) for row in rows for i, n in enumerate(row)}
    down, up = [(row, above) for row in rows], [(row, below) for row in rows[::-1]]
    for row, beside in (down + up) * 2 + down:  # each sweep leaves fewer crossings
        means = {
            n: sum(column[m] for m in beside[n]) / max(1, len(beside[n])) for n in row
        }
        row.sort(key=means.__getitem__)
        column |= {n: _column(i, row) for i, n in enumerate(row)}
    return rows


def _column(position: int, row: Sequence[int]) -> float:
    """Return a position in a row, counted from the middle."""
    return position - (len(row) - 1) / 2


def _box(x: float, y: float, width: float) -> str:
    corner = f'x="{x - width / 2:.1f}" y="{y - HEIGHT / 2:.1f}"'
    return f'<rect {corner} width="{width:.1f}" height="{HEIGHT}" rx="5"/>'


def _lines(place: Mapping[int, Place], edges: Edges) -> str:
    return "".join(
        f'<path d="M{place[a][0]:.1f} {place[a][1]:.1f}'
        f'L{place[b][0]:.1f} {place[b][1]:.1f}"/>'
        for a, b in edges
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    where = f'x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}"'
    return f"<text {where}>{escape(text)}</text>"
