"""What all charts of a page share: colours, text, axes, tiles of small pictures.

Colours stand out on light and on dark ground; those of text and axes are left to the
page, which knows its theme.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

COLORS = (
    "#3b82c4",
    "#e08a2e",
    "#3fa36c",
    "#d1495b",
    "#8e6bbf",
    "#a07850",
    "#d976a8",
    "#85909a",
    "#b0a832",
    "#2fb0c0",
)
GREY = "#8a929c"
GAP = 1  # of cells between tiles
PLAIN = "%{customdata}<extra></extra>"  # a hover text that is ready


def escaped(text: Any) -> str:
    """Return text as a chart shows it: plotly reads some tags."""
    return html.escape(str(text), quote=False)


def lines(*parts: Any) -> str:
    """Return a hover text of several lines, without those that are None."""
    return "<br>".join(escaped(part) for part in parts if part is not None)


def color(number: int) -> str:
    """Return a colour by its number; there are ten, and then they repeat."""
    return COLORS[number % len(COLORS)]


def figure(traces: Sequence[Any] = (), **layout: Any) -> go.Figure:
    """Return a figure that leaves what belongs to the theme to the page."""
    shared = {"template": "none", "margin": {"l": 48, "r": 16, "t": 24, "b": 44}}
    return go.Figure(list(traces), {**shared, **layout})


def scale(values: Iterable[float | None], ticks: int = 6) -> dict[str, Any]:
    """Return a logarithmic axis; a linear one where a value has no logarithm.

    Args:
      values: that are drawn; None for those that are not.
      ticks: about how many, of less than a decade.
    """
    known = [value for value in values if value is not None]
    if not known or min(known) <= 0:
        return {"type": "linear"}
    decades = max(known) > 10 * min(known)
    return {"type": "log", **({"dtick": "D2"} if decades else {"nticks": ticks})}


def whole(last: int) -> dict[str, Any]:
    """Return the settings of an axis from 0 to a whole number, such as generations."""
    return {"dtick": max(1, -(-last // 10)), "range": [-0.5, last + 0.5]}


def matrix(
    values: Any,
    columns: Sequence[str],
    rows: Sequence[str],
    text: Any = None,
    **settings: Any,
) -> go.Figure:
    """Return a heat map of named rows and columns, with numbers where they fit.

    Args:
      values: (rows, columns) numbers, by which cells are coloured.
      columns: names of the columns.
      rows: names of the rows, the first on top.
      text: (rows, columns) of the cells, shown inside or when pointed at.
      **settings: of the heat map.
    """
    values = np.array(values, np.float64)
    text = [[escaped(v) for v in row] for row in (values if text is None else text)]
    fits = len(columns) <= 12
    heat = go.Heatmap(
        z=values,
        x=[escaped(name) for name in columns],
        y=[escaped(name) for name in rows],
        customdata=text,
        text=text if fits else None,
        texttemplate="%{text}" if fits else None,
        textfont={"size": 10},
        hovertemplate="%{y}, %{x}: %{customdata}<extra></extra>",
        xgap=1,
        ygap=1,
        **{"showscale": False, "colorscale": "Viridis", **settings},
    )
    return figure(
        [heat],
        yaxis={"autorange": "reversed", "type": "category"},
        xaxis={"type": "category", "tickangle": -45},
    )


def tiles(
    pictures: Sequence[Sequence[np.ndarray]], fill: float = np.nan, down: int = GAP
) -> np.ndarray:
    """Return small pictures of equal shape, in rows, as one with gaps between them.

    Args:
      pictures: rows of arrays (height, width); the last row may be shorter.
      fill: what the gaps hold.
      down: cells between rows of tiles.
    """
    height, width = pictures[0][0].shape
    step = height + down, width + GAP
    columns = max(map(len, pictures))
    shape = len(pictures) * step[0] - down, columns * step[1] - GAP
    whole = np.full(shape, fill)
    for i, row in enumerate(pictures):
        for j, each in enumerate(row):
            top, left = i * step[0], j * step[1]
            whole[top : top + height, left : left + width] = each
    return whole


def tile_layout(
    tile: tuple[int, ...],
    whole: tuple[int, ...],
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    titles: Sequence[Sequence[str]] = (),
    down: int = GAP,
) -> Mapping[str, Any]:
    """Return the layout of a picture of tiles: square cells, and names.

    Args:
      tile: height and width of a tile.
      whole: of the picture.
      columns: names of the columns, on top.
      rows: names of the rows, on the left.
      titles: names of the tiles, by rows, above each.
      down: cells between rows of tiles.
    """
    height, width = tile
    count = max(map(len, [columns, *titles]), default=0)
    across = [j * (width + GAP) + (width - 1) / 2 for j in range(count)]
    middle = [i * (height + down) + (height - 1) / 2 for i in range(len(rows))]
    bare: dict[str, Any] = {"showgrid": False, "zeroline": False, "ticks": ""}
    annotations = [
        {
            "text": escaped(name),
            "x": across[j],
            "y": i * (height + down) - 0.5,
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 10},
        }
        for i, row in enumerate(titles)
        for j, name in enumerate(row)
    ]
    return {
        "annotations": annotations,
        "xaxis": {
            **bare,
            "side": "top",
            "tickvals": across if columns else [],
            "ticktext": list(map(escaped, columns)),
            "tickangle": 40 if len(columns) > 4 else 0,
            "range": [-0.5, whole[1] - 0.5],
            "constrain": "domain",
        },
        "yaxis": {
            **bare,
            "tickvals": middle,
            "ticktext": list(map(escaped, rows)),
            "range": [whole[0] - 0.5, -0.5],
            "scaleanchor": "x",
            "constrain": "domain",
        },
        "margin": {"l": 8, "r": 8, "t": 24, "b": 8},
    }
