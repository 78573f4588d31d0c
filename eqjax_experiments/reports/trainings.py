"""The training of single networks: errors, mixtures over time, distances to groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from eqjax_experiments.reports import charts
from eqjax_experiments.reports.page import Chart, Part, Section, Text
from eqjax_experiments.reports.record import Record, Row, Training

MOST_POINTS = 400  # of a mixture over time


def errors(record: Record) -> Section:
    """Return the errors of single networks over their training."""
    title = "Errors over the training"
    parts: list[Part] = [_errors(t) for t in record.trainings if t.pieces]
    none = (
        "This run has no training of a single network that was measured piece by piece."
    )
    return Section(title, parts, "" if parts else none)


def _errors(training: Training) -> Chart:
    steps = [piece["step"] for piece in training.pieces]
    lines = []
    for number, (key, name) in enumerate(
        (("train_error", "training"), ("validation_error", "validation"))
    ):
        found = [piece[key] for piece in training.pieces]
        lines.append(
            go.Scatter(
                x=steps,
                y=[None if error is None else 100 * error for error in found],
                mode="lines+markers",
                name=name,
                line={"color": charts.color(number)},
                hovertemplate=f"step %{{x}}, {name}: %{{y:.2f}} %<extra></extra>",
            )
        )
    drawn = charts.figure(
        lines,
        xaxis={"title": {"text": "step"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "error (%)"}, "rangemode": "tozero"},
    )
    return Chart(drawn, f"Errors of {training.title}", height=300)


def mixtures(record: Record) -> Section:
    """Return the weights of all candidates of mixed layers over the steps."""
    parts: list[Part] = []
    for training in record.trainings:
        points = [p for piece in training.pieces for p in piece.get("mixtures", ())]
        points = [point for point in points if point["weights"]]
        if points:
            parts.append(_mixtures(training, points[:: len(points) // MOST_POINTS + 1]))
    none = "No layer of this run is a mixture of groups; differentiate has such layers."
    return Section("Mixture weights over time", parts, "" if parts else none)


def _mixtures(training: Training, points: Sequence[Row]) -> Chart:
    layers = list(points[-1]["weights"])
    names: dict[str, None] = {}
    for own in points[-1]["weights"].values():
        names |= dict.fromkeys(own)
    spacing = 0.25 / max(4, len(layers))
    drawn = make_subplots(len(layers), 1, shared_xaxes=True, vertical_spacing=spacing)
    listed = set()
    for row, layer in enumerate(layers, 1):
        for number, name in enumerate(names):
            if name not in points[-1]["weights"][layer]:
                continue
            area = go.Scatter(
                x=[point["step"] for point in points],
                y=[point["weights"][layer][name] for point in points],
                name=charts.escaped(name),
                legendgroup=name,
                showlegend=name not in listed,
                stackgroup=layer,
                mode="lines",
                line={"width": 0.5, "color": charts.color(number)},
                fillcolor=charts.color(number),
                hovertemplate=(
                    f"step %{{x}}, {charts.escaped(layer)}: {charts.escaped(name)} "
                    "%{y:.3f}<extra></extra>"
                ),
            )
            listed.add(name)
            drawn.add_trace(area, row, 1)
        drawn.update_yaxes(row=row, col=1, **_share_axis(layer, points))
    drawn.update_layout(**charts.figure().layout.to_plotly_json())
    drawn.update_xaxes(title={"text": "step"}, row=len(layers), col=1)
    return Chart(
        drawn,
        f"Weight of every candidate of {training.title}, by layer",
        height=120 + 70 * max(2, len(layers)),
    )


def _share_axis(layer: str, points: Sequence[Row]) -> dict[str, Any]:
    """Return the axis of a layer, from 0 to the sum of its weights, at least 1."""
    top = max(1.0, *(sum(point["weights"][layer].values()) for point in points))
    name = charts.escaped(layer)
    return {"range": [0, top], "tickvals": [top / 2], "ticktext": [name]}


def distances(record: Record) -> Section:
    """Return how far every layer is from every group, of each network that was read."""
    parts: list[Part] = []
    for training in record.trainings:
        table = (training.result or {}).get("distances")
        if table:
            parts.append(_distances(training, table))
    if parts:
        told = (
            "The distance |K - P K| / |K| of every kernel K to those that commute with "
            "a group, P being the projection onto these: 0 for a layer that has "
            "the symmetry, near 1 for one that has nothing of it."
        )
        return Section("Distances to groups", [Text(told), *parts])
    none = "They are measured at the end of the training of a single network."
    return Section("Distances to groups", missing=none)


def _short(value: float | None) -> str:
    if not value:
        return "" if value is None else "0"
    return f"{value:.2f}".lstrip("0")


def _distances(training: Training, table: dict[str, dict[str, float]]) -> Chart:
    groups = list(next(iter(table.values())))
    values = [[row.get(group) for group in groups] for row in table.values()]
    text = [[_short(value) for value in row] for row in values]
    drawn = charts.matrix(values, groups, list(table), text, zmin=0, zmax=1)
    label = f"Distance of every layer of {training.title} to each group"
    return Chart(drawn, label, height=130 + 34 * max(2, len(table)))
