"""HTML for notebooks: lines and tables, for light and for dark pages.

Text has the color of the page's own, and colors behind it are translucent. All of it is
escaped. Styles are inline, since some notebooks drop style sheets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

ROWS = 300  # of a table; what is printed has them all
WARM, COOL = "240,110,30", "40,130,220"
_STRONGEST = 0.5  # opacity of a color behind text
_CELL = "text-align:left;padding:2px 10px;font-variant-numeric:tabular-nums"
_TOP = ";position:sticky;top:0;backdrop-filter:blur(9px)"


class Shaded(str):
    """Text with a color behind it in notebooks; elsewhere a string as any other.

    Attributes:
      shade: from -1, cool, to 1, warm; none at 0 and where it is not finite.
    """

    shade: float

    def __new__(cls, text: str, shade: float) -> Shaded:
        """Return the text, with its shade held within -1 and 1."""
        made = super().__new__(cls, text)
        made.shade = max(-1.0, min(1.0, shade)) if math.isfinite(shade) else 0.0
        return made


def page(parts: Iterable[str]) -> str:
    """Return elements below each other."""
    return f'<div style="max-width:100%;line-height:1.4">{"".join(parts)}</div>'


def line(text: str) -> str:
    """Return a paragraph.

    >>> line("D4 < O(2)")
    '<div style="margin:4px 0">D4 &lt; O(2)</div>'
    """
    return f'<div style="margin:4px 0{_behind(text)}">{escape(text)}</div>'


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as a table, whose first row is its head."""
    head, *body = rows
    first = "".join(f'<th style="{_CELL}{_TOP}">{escape(c)}</th>' for c in head)
    others = "".join(
        "<tr>"
        + "".join(f'<td style="{_CELL}{_behind(c)}">{escape(c)}</td>' for c in row)
        + "</tr>"
        for row in body[:ROWS]
    )
    left = len(body) - ROWS
    rest = line(f"and {left:,} rows more, which print() shows") if left > 0 else ""
    return (
        '<div style="overflow:auto;max-height:36em;margin:4px 0">'
        '<table style="border-collapse:collapse;margin:0">'
        f"<thead><tr>{first}</tr></thead><tbody>{others}</tbody></table></div>{rest}"
    )


def _behind(text: str) -> str:
    """Return the style of the color behind a text, if it has one."""
    shade = getattr(text, "shade", 0.0)
    if not shade:
        return ""
    color = WARM if shade > 0 else COOL
    return f";background:rgba({color},{_STRONGEST * abs(shade):.3f})"
