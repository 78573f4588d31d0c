"""Pictures of symmetry tests: the lattice of groups, and layers by groups.

Matplotlib is imported where something is drawn, and not before.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from eqjax.groups.group import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SMALLEST_P = 1e-3  # darker is not drawn
TITLE = 66  # characters of a line above the groups
WIDE = 12  # groups beside each other that have room for numbers
MANY = 24  # groups; of more, one of each family is drawn


def evidence_figure(entries: Sequence[Mapping[str, Any]], ambient: Group) -> Figure:
    """Draw what tests found: a row for every test.

    Args:
      entries: as `SymmetryTest.numbers` returns them, at least one; with the title of
        each, if it has one.
      ambient: the ambient group.
    """
    from matplotlib.figure import Figure

    shown = [shown_groups(entry, ambient) for entry in entries]
    layers = max(len(entry["layers"]) for entry in entries)
    orders = max(len({H.order for H in groups}) for groups in shown)
    height = max(3.2, 1.6 + 0.4 * (layers + 1), 0.7 * orders)
    width = max(11.5, 0.9 * max(map(len, shown)))
    figure = Figure(figsize=(width, height * len(entries)), layout="constrained")
    axes = figure.subplots(len(entries), 2 if layers else 1, squeeze=False)
    for (left, *right), entry, groups in zip(axes, entries, shown, strict=True):
        draw_lattice(left, entry, groups)
        for each in right:
            draw_layers(each, entry, [H.name for H in groups])
    return figure


def shown_groups(entry: Mapping[str, Any], ambient: Group) -> list[Group]:
    """Return the tested groups; of many, that of the least p in every family."""
    rows = entry["network"]
    groups = [H for H in ambient.subgroups if H.name in rows]
    if len(groups) <= MANY:
        return groups
    least: dict[str, Group] = {}
    for H in sorted(groups, key=lambda H: rows[H.name]["p"]):
        least.setdefault(H.family, H)
    return [H for H in groups if H in least.values()]


def draw_lattice(axes: Axes, entry: Mapping[str, Any], groups: Sequence[Group]) -> None:
    """Draw groups by their order, colored by p, with the evidence inside."""
    rows = entry["network"]
    axes.set_axis_off()
    title = entry.get("title", "network: p of every group, evidence inside")
    axes.set_title(textwrap.fill(title, TITLE), fontsize="medium")
    if not groups:
        axes.text(0.5, 0.5, "no group to test", ha="center")
        return
    place = {}
    orders = sorted({H.order for H in groups})
    for order in orders:
        level = [H for H in groups if H.order == order]
        for i, H in enumerate(level):
            place[H] = (i - (len(level) - 1) / 2, orders.index(order))
    for H, K in itertools.product(groups, repeat=2):
        between = any(H < M < K for M in groups)
        if H < K and not between:
            (a, b), (c, d) = place[H], place[K]
            axes.plot([a, c], [b, d], color="0.8", zorder=0)
    import matplotlib as mpl
    from matplotlib.colors import LogNorm

    colors, norm = mpl.colormaps["viridis"], LogNorm(SMALLEST_P, 1)
    for H, (x, y) in place.items():
        row = rows[H.name]
        p = max(row["p"], SMALLEST_P)
        text = f"{H.name}\n{row['evidence']:.3g}" + (" x" if row["rejected"] else "")
        axes.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            fontsize="small" if len(groups) <= WIDE else "xx-small",
            color="black" if norm(p) > 0.6 else "white",
            bbox={
                "boxstyle": "round",
                "facecolor": colors(norm(p)),
                "edgecolor": "0.5",
            },
        )
    width = max(abs(x) for x, _ in place.values()) + 0.8
    axes.set(xlim=(-width, width), ylim=(-0.6, len(orders) - 0.4))
    scale = mpl.cm.ScalarMappable(norm, colors)
    axes.figure.colorbar(scale, ax=axes, label="p", shrink=0.8)


def draw_layers(axes: Axes, entry: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Draw the evidence of every layer against groups, by their names."""
    layers = list(entry["layers"])
    axes.set_title("evidence by layer, about 1 if the data have it", fontsize="medium")
    if not groups:
        axes.set_axis_off()
        return
    from matplotlib.colors import LogNorm

    values = np.array(
        [[entry["layers"][a][H]["evidence"] for H in groups] for a in layers]
    )
    norm = LogNorm(1, max(10.0, float(values.max())))
    shown = np.clip(values, 1, None)
    axes.imshow(shown, cmap="magma", norm=norm, aspect="auto")
    if len(groups) <= WIDE:
        for row, column in np.ndindex(*values.shape):
            rejected = entry["layers"][layers[row]][groups[column]]["rejected"]
            axes.text(
                column,
                row,
                f"{values[row, column]:.2g}" + (" x" if rejected else ""),
                ha="center",
                va="center",
                color="black" if norm(shown[row, column]) > 0.6 else "white",
                fontsize="small",
            )
    axes.set_xticks(range(len(groups)), groups, rotation=45, ha="right")
    axes.set_yticks(range(len(layers)), layers)
