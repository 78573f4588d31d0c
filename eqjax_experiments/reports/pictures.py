"""Pictures of searches, of trained networks, and of many of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

import eqjax as eq
from eqjax_experiments.reports.statistics import Line

MARKERS = "os^vD"


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a picture, whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        figure.savefig(partial, dpi=130, format=path.suffix[1:])
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def search_figure(
    records: Sequence[dict[str, Any]],
    front: Sequence[dict[str, Any]],
    layers: Sequence[str],
    ambient: eq.Group,
) -> Figure:
    """Draw the front, and which group each layer has over the generations.

    Args:
      records: one per generation, as in the metrics.
      front: the final members, as in the result.
      layers: names of the layers that the search gave a group, in their order.
      ambient: the ambient group, in whose order subgroups are drawn.
    """
    height = 1.2 + 0.75 * max(len(layers), 4)
    figure = Figure(figsize=(11, height), layout="constrained")
    halves = figure.add_gridspec(1, 2, width_ratios=(1.1, 1))
    left = figure.add_subfigure(halves[0])
    right = figure.add_subfigure(halves[1])
    _draw_front(left.subplots(), records, front)
    rows = right.subplots(len(layers), 1, sharex=True, squeeze=False)
    _draw_groups(dict(zip(layers, rows[:, 0], strict=True)), records, ambient)
    right.suptitle("share of the population per layer's group", fontsize="medium")
    return figure


def trial_figure(
    records: Sequence[dict[str, Any]],
    distances: Mapping[str, Mapping[str, float]],
) -> Figure:
    """Draw errors, the weights of mixtures over the steps, and distances to groups.

    Args:
      records: one per piece of training, as in the metrics.
      distances: by layer and group, as in the result.
    """
    points = [point for record in records for point in record["mixtures"]]
    layers = list(points[-1]["weights"]) if points else []
    columns = 3 if layers else 2
    height = 1.2 + 0.75 * max(len(distances), 4)
    figure = Figure(figsize=(4.8 * columns, height), layout="constrained")
    parts = figure.subfigures(1, columns, squeeze=False)[0]
    _draw_errors(parts[0].subplots(), records)
    if layers:
        rows = parts[1].subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
        _draw_mixtures(dict(zip(layers, rows, strict=True)), points)
        parts[1].suptitle("weight of every candidate per layer", fontsize="medium")
    _draw_distances(parts[-1].subplots(), distances)
    return figure


def comparison_figure(title: str, lines: Sequence[Line]) -> Figure:
    """Draw the test errors of all methods, and against their parameters.

    Args:
      title: the experiment.
      lines: of its table.
    """
    height = 1.6 + 0.32 * max(len(lines), 8)
    figure = Figure(figsize=(12, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    errors = [list(line.errors.values()) for line in lines]
    names = [line.method for line in lines]
    left.boxplot(errors, orientation="horizontal", tick_labels=names, showfliers=False)
    colors = mpl.color_sequences["tab20"]
    for i, (line, own) in enumerate(zip(lines, errors, strict=True)):
        style = {"color": colors[i % len(colors)], "marker": MARKERS[i // len(colors)]}
        left.scatter(own, [i + 1] * len(own), s=14, zorder=3, **style)
        right.scatter(
            list(line.test_parameters.values()), own, s=22, label=line.method, **style
        )
    left.invert_yaxis()
    left.set(xlabel="test error (%)")
    right.set(xlabel="parameters at test", ylabel="test error (%)", xscale="log")
    logarithmic = [right.xaxis]
    if min(map(min, errors)) > 0:
        left.set(xscale="log")
        right.set(yscale="log")
        logarithmic += [left.xaxis, right.yaxis]
    for axis in logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter(NullFormatter())
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.suptitle(title)
    return figure


def mixtures_figure(
    title: str, trajectories: Sequence[Sequence[dict[str, Any]]]
) -> Figure:
    """Draw the weight of every candidate per layer over the steps, mean over seeds.

    Args:
      title: the experiment.
      trajectories: one per seed: the weights of every layer at the same steps.
    """
    points = [
        {
            "step": together[0]["step"],
            "weights": {
                layer: {
                    name: float(np.mean([p["weights"][layer][name] for p in together]))
                    for name in weights
                }
                for layer, weights in together[0]["weights"].items()
            },
        }
        for together in zip(*trajectories, strict=True)
    ]
    layers = list(points[-1]["weights"])
    height = 1.4 + 0.75 * max(len(layers), 4)
    figure = Figure(figsize=(6, height), layout="constrained")
    rows = figure.subplots(len(layers), 1, sharex=True, squeeze=False)[:, 0]
    _draw_mixtures(dict(zip(layers, rows, strict=True)), points)
    figure.suptitle(f"{title}, seeds: {len(trajectories)}", fontsize="medium")
    return figure


def _percent(error: float | None) -> float:
    return float("nan") if error is None else 100 * error


def _draw_errors(axes: Axes, records) -> None:
    steps = [record["step"] for record in records]
    for key, label, style in (
        ("train_error", "training", "o--"),
        ("validation_error", "validation", "o-"),
    ):
        errors = [_percent(record[key]) for record in records]
        axes.plot(steps, errors, style, label=label)
    axes.set(xlabel="step", ylabel="error (%)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.legend()


def _draw_mixtures(axes_of: dict[str, Axes], points) -> None:
    steps = [point["step"] for point in points]
    names: list[str] = []
    for layer in axes_of:
        names += [n for n in points[-1]["weights"][layer] if n not in names]
    colors = dict(zip(names, mpl.color_sequences["tab10"], strict=False))
    for layer, axes in axes_of.items():
        weights = {
            name: [point["weights"][layer][name] for point in points]
            for name in points[-1]["weights"][layer]
        }
        axes.stackplot(
            steps,
            list(weights.values()),
            colors=[colors[name] for name in weights],
            labels=list(weights),
        )
        total = max(map(sum, zip(*weights.values(), strict=True)))
        if len(steps) > 1:
            axes.set(xlim=(steps[0], steps[-1]))
        axes.set(ylim=(0, max(1, total)), yticks=[])
        axes.set_ylabel(layer, rotation=0, ha="right", va="center")
    rows = list(axes_of.values())
    rows[-1].set(xlabel="step")
    rows[0].legend(
        handles=[Patch(color=colors[name], label=name) for name in names],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=len(names),
        frameon=False,
        fontsize="small",
        handlelength=1,
        columnspacing=1,
    )


def _draw_distances(axes: Axes, distances) -> None:
    layers = list(distances)
    groups = list(distances[layers[0]])
    values = np.array([[distances[layer][g] for g in groups] for layer in layers])
    axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*values.shape):
        value = values[row, column]
        axes.text(
            column,
            row,
            "0" if value == 0 else f"{value:.2f}".lstrip("0"),
            ha="center",
            va="center",
            color="black" if value > 0.6 else "white",
            fontsize="small",
        )
    axes.set_xticks(range(len(groups)), groups, rotation=45, ha="right")
    axes.set_yticks(range(len(layers)), layers)
    axes.set_title("distance of every kernel to each group", fontsize="medium")


def _draw_front(axes: Axes, records, front) -> None:
    children = [
        (child["parameters"], 100 * child["validation_error"], record["generation"])
        for record in records
        for child in record["children"]
        if child["validation_error"] is not None
    ]
    parameters, errors, generations = np.array(children).reshape(-1, 3).T
    points = axes.scatter(
        parameters, errors, c=generations, cmap="viridis", s=14, alpha=0.7
    )
    ticks = MaxNLocator(integer=True, min_n_ticks=1)
    axes.figure.colorbar(points, ax=axes, label="generation", ticks=ticks)
    ordered = sorted(front, key=lambda member: member["parameters"])
    axes.plot(
        [m["parameters"] for m in ordered],
        [100 * m["validation_error"] for m in ordered],
        "o-",
        color="crimson",
        markerfacecolor="none",
        markersize=9,
        label="front, validation",
    )
    axes.plot(
        [m["parameters"] for m in ordered],
        [100 * m["test_error"] for m in ordered],
        "x",
        color="black",
        markersize=7,
        label="front, test",
    )
    axes.set(xlabel="parameters", ylabel="error (%)")
    if children:
        axes.set_xscale("log")
        decades = parameters.max() > 10 * parameters.min()
        wide, narrow = LogLocator(subs=(1, 2, 5)), MaxNLocator(4)
        axes.xaxis.set_major_locator(wide if decades else narrow)
        axes.xaxis.set_minor_locator(NullLocator())
        scale = _scale([*errors, *(100 * m["test_error"] for m in front)])
        axes.set_yscale(**scale)
        if "linthresh" in scale:
            linear = scale["linthresh"]
            axes.set_ylim(-0.2 * linear, max(axes.get_ylim()[1], linear))
    axes.yaxis.set_minor_formatter("{x:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,g}")
    axes.tick_params(which="minor", labelsize="x-small")
    axes.legend()


def _scale(errors: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic scale; where an error is 0, linear below all others."""
    if min(errors) > 0:
        return {"value": "log"}
    smallest = min((error for error in errors if error > 0), default=1.0)
    return {"value": "symlog", "linthresh": smallest, "linscale": 0.5}


def _draw_groups(axes_of: dict[str, Axes], records, ambient: eq.Group) -> None:
    population = [
        [child["groups"] for child in record["children"] if child["kept"] is not None]
        for record in records
    ]
    used = {name for members in population for groups in members for name in groups}
    names = [group.name for group in ambient.subgroups if group.name in used]
    colors = mpl.color_sequences["tab10"]
    generations = np.arange(len(records))
    for layer, (label, axes) in enumerate(axes_of.items()):
        bottom = np.zeros(len(records))
        for name, color in zip(names, colors, strict=False):
            counts = [Counter(g[layer] for g in members) for members in population]
            share = np.array([c[name] / max(1, c.total()) for c in counts])
            axes.bar(generations, share, 0.9, bottom, color=color, label=name)
            bottom += share
        axes.set(ylim=(0, 1), yticks=[])
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
    rows = list(axes_of.values())
    first, last = rows[0], rows[-1]
    last.set(xlabel="generation", xlim=(-0.6, len(records) - 0.4))
    last.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if names:
        first.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=len(names),
            frameon=False,
            fontsize="small",
        )
