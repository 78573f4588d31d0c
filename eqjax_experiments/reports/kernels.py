"""The learned kernels of a network, and which of their entries share an orbit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from eqjax.groups.group import Group
from eqjax.kernels.orbits import OrbitTable
from eqjax.kernels.steered import SteeredTable
from eqjax.layers.base import TiedModule
from eqjax.morphism.matching import flat_variables, tied_model
from eqjax.saving import Saved
from eqjax_experiments.reports import charts
from eqjax_experiments.reports.page import Beside, Chart, Choice, Part, Section, Text

MOST_ELEMENTS = 8  # of a fiber, beside each other
ACROSS = 4  # tiles of a kernel that reads an image
SHORTER = {"rotation by ": "", "reflection ": "mirror ", "about ": "", "by ": ""}
LONGEST = 13  # name of an element above a tile
NUMBERED = 300  # entries that have room for the number of their orbit


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A kernel between one input and one output channel, laid out in tiles.

    Attributes:
      weights: the entries.
      orbits: the number of the orbit of every entry; -1 between tiles.
      tile: height and width of a tile.
      names: of the tiles, as `charts.tile_layout` takes them.
      remark: what is drawn, where it is not all.
    """

    weights: np.ndarray
    orbits: np.ndarray
    tile: tuple[int, int]
    names: Mapping[str, Any]
    remark: str


def kernels(network: Saved | str) -> Section:
    """Return the kernels of a network.

    Args:
      network: the best network of a run, or a sentence on why there is none.
    """
    title = "Learned kernels"
    if isinstance(network, str):
        return Section(title, missing=network)
    shape = (1, *(network.preprocessing.shape or ()))
    found = tied_model(network.model, np.zeros(shape, np.float32))
    flat = flat_variables(network.variables)
    options: dict[str, Sequence[Part]] = {}
    for path, layer in found.layers.items():
        if "kernel" not in layer.tables or found.stacked_axes(path):
            continue
        full = layer.read(found.own(path, flat))["kernel"]
        name = f"{'/'.join(path)}, {layer.group.name}"
        options[name] = _parts(layer, np.asarray(_on_taps(layer, full)))
    if not options:
        return Section(title, [Text("The network has no layer with a group.")])
    told = (
        f"The kernels of {network.folder}, the network of least validation error. A "
        "tile is the filter between one element of the group that is read and one that "
        "is written (in a square of tiles rows are read, and columns written), for the "
        "channels of the largest weights. Red is above zero, blue below. Entries with "
        "one number, or of one colour in the second picture, share an orbit of the "
        "layer's group, and so one parameter; colours repeat after "
        f"{len(charts.COLORS)} orbits. Point at an entry to see all of its orbit."
    )
    return Section(title, [Text(told), Choice("Layer", options)])


def _on_taps(layer: TiedModule, full: Any) -> Any:
    sampled = getattr(layer, "sampled", None)
    return full if sampled is None else sampled(full)


def _parts(layer: TiedModule, kernel: np.ndarray) -> list[Part]:
    table = layer.tables["kernel"]
    if not isinstance(table, OrbitTable | SteeredTable):
        return [
            Text("This layer's group turns its fibers; there are no orbits to draw.")
        ]
    size = np.sqrt((kernel.astype(np.float64) ** 2).sum(tuple(range(kernel.ndim - 2))))
    c_in, c_out = np.unravel_index(int(np.argmax(size)), size.shape)
    index = np.asarray(table.index)
    if isinstance(table, SteeredTable):
        index = np.broadcast_to(index, kernel.shape[:-2])
    drawn = lay_out(kernel[..., c_in, c_out], index, layer)
    told = [
        f"Channel {c_in + 1} of {size.shape[0]} read, {c_out + 1} of {size.shape[1]} "
        f"written; {int(np.prod(table.shape)):,} entries in {table.num_orbits:,} "
        "orbits."
    ]
    if drawn.remark:
        told.append(drawn.remark)
    if isinstance(table, SteeredTable):
        told.append(
            "Filters are sums of circular harmonics: tiles of one number are turned "
            "copies of one filter."
        )
    if layer.constraint.symmetry(layer.group) != layer.group:
        told.append(
            f"This layer relaxes {layer.group.name}: its entries need not be equal "
            "along the orbits."
        )
    label = "Weights" if drawn.orbits.size > NUMBERED else "Weights, and orbit numbers"
    ratio = drawn.weights.shape[1] / drawn.weights.shape[0]
    size_of = {"ratio": round(ratio, 3), "width": 720}
    return [
        Text(" ".join(told)),
        Beside(
            [
                Chart(_weights(drawn), label, **size_of),
                Chart(_orbits(drawn), "Orbits", **size_of),
            ]
        ),
    ]


def lay_out(entries: np.ndarray, index: np.ndarray, layer: TiedModule) -> Drawn:
    """Return a kernel (*taps, fiber_in, fiber_out) in tiles, with its orbits."""
    taps, (size_in, size_out) = entries.shape[:-2], entries.shape[-2:]
    ambient = layer.group.ambient
    remarks = []
    if len(taps) == 3:
        remarks.append(f"Drawn is the middle one of {taps[0]} slices.")
        entries, index = entries[taps[0] // 2], index[taps[0] // 2]
    elif len(taps) == 1:
        remarks.append("A filter of a sequence is one row of a tile.")
        entries, index = entries[None], index[None]
    elif not taps:
        remarks.append("This layer has no taps: a tile is a single entry.")
        entries, index = entries[None, None], index[None, None]
    shown = min(size_in, MOST_ELEMENTS), min(size_out, MOST_ELEMENTS)
    if shown != (size_in, size_out):
        sizes = ((shown[0], size_in, "read"), (shown[1], size_out, "written"))
        told = [f"{few} of {n} that are {how}" for few, n, how in sizes if few < n]
        remarks.append(f"Of the elements only {' and '.join(told)} are drawn.")
    rows, columns = (
        element_names(ambient, n)[:MOST_ELEMENTS] for n in (size_in, size_out)
    )
    places = [[(i, j) for j in range(shown[1])] for i in range(shown[0])]
    titles: list[list[str]] = []
    down = charts.GAP
    if 1 in (size_in, size_out):
        names = columns if size_in == 1 else rows
        together = [place for row in places for place in row]
        places, titles = in_rows(together), in_rows(names)
        rows, columns = [], []
        down = max(down, entries.shape[0] // 3)  # room for the names
    both = [
        charts.tiles([[a[..., i, j] for i, j in row] for row in places], fill, down)
        for a, fill in ((entries.astype(np.float64), np.nan), (index, -1))
    ]
    tile = entries.shape[:2]
    names_of = {"columns": columns, "rows": rows, "titles": titles, "down": down}
    return Drawn(both[0], both[1].astype(int), tile, names_of, " ".join(remarks))


def in_rows(things: list[Any]) -> list[list[Any]]:
    """Return things in rows of a few."""
    return [things[i : i + ACROSS] for i in range(0, len(things), ACROSS)]


def element_names(ambient: Group, size: int) -> list[str]:
    """Return short names of the elements of a fiber; numbers for those of cosets."""
    if size == ambient.order:
        short = list(ambient.element_names)
        for long, brief in SHORTER.items():
            short = [name.replace(long, brief) for name in short]
        return [n if len(n) <= LONGEST else f"{n[: LONGEST - 1]}…" for n in short]
    return [""] if size == 1 else [f"coset {i + 1}" for i in range(size)]


def _weights(drawn: Drawn) -> go.Figure:
    top = np.nanmax(np.abs(drawn.weights), initial=0.0)
    top = float(top) if np.isfinite(top) and top > 0 else 1.0
    known = drawn.orbits >= 0
    text = np.where(known, drawn.orbits.astype(str), "")
    heat = go.Heatmap(
        z=drawn.weights,
        zmin=-top,
        zmax=top,
        colorscale="RdBu",
        reversescale=True,
        showscale=False,
        text=text.tolist() if drawn.orbits.size <= NUMBERED else None,
        texttemplate="%{text}" if drawn.orbits.size <= NUMBERED else None,
        textfont={"size": 9},
        customdata=drawn.orbits,
        hovertemplate="%{z:.4g}, orbit %{customdata}<extra></extra>",
        hoverongaps=False,
    )
    return _tiled(heat, drawn)


def _orbits(drawn: Drawn) -> go.Figure:
    count = len(charts.COLORS)
    steps = [
        [edge, charts.color(i)]
        for i in range(count)
        for edge in (i / count, (i + 1) / count)
    ]
    heat = go.Heatmap(
        z=np.where(drawn.orbits >= 0, drawn.orbits % count, np.nan),
        zmin=-0.5,
        zmax=count - 0.5,
        colorscale=steps,
        showscale=False,
        customdata=drawn.orbits,
        hovertemplate="orbit %{customdata}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )
    return _tiled(heat, drawn)


def _tiled(heat: go.Heatmap, drawn: Drawn) -> go.Figure:
    outlines = go.Scatter(
        x=[],
        y=[],
        mode="markers",
        marker={
            "symbol": "square-open",
            "size": 9,
            "color": charts.color(1),
            "line": {"width": 2},
        },
        hoverinfo="skip",
        showlegend=False,
    )
    layout = charts.tile_layout(drawn.tile, drawn.weights.shape, **drawn.names)
    known = [[n if n >= 0 else None for n in row] for row in drawn.orbits.tolist()]
    return charts.figure([heat, outlines], **layout, meta={"orbits": known})
