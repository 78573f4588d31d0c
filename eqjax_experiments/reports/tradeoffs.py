"""A picture of what searches cost and how far they are from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

MARKERS = "os^vDPX"


def regret_figure(methods: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Draw regret over cost.

    Args:
      methods: by name, points of gradient steps and regret in percentage points; those
        of a method are connected.
    """
    figure = Figure(figsize=(9.5, 5), layout="constrained")
    axes = figure.subplots()
    colors = mpl.color_sequences["tab10"]
    for i, (name, points) in enumerate(methods.items()):
        steps, regrets = zip(*sorted(points), strict=True)
        axes.plot(
            steps,
            regrets,
            color=colors[i % len(colors)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=7 if len(points) == 1 else 4,
            linestyle="-" if len(points) > 1 else "none",
            label=name,
        )
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=0.1, linscale=0.5)
    axes.set(
        xlabel="gradient steps",
        ylabel="regret (percentage points of test error)",
    )
    axes.set_ylim(bottom=-0.02)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    axes.grid(color="0.9")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return figure
