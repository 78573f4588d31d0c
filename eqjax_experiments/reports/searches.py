"""A search over architectures: its front, and the groups of its layers over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from eqjax_experiments.reports import charts
from eqjax_experiments.reports.overview import layer_labels
from eqjax_experiments.reports.page import Chart, Part, Section, Table, Text
from eqjax_experiments.reports.printing import percent
from eqjax_experiments.reports.record import Record, Row

NO_NETWORKS = "Only evolve and generate keep the errors of many networks."
NO_GENERATIONS = "Only a search by evolve has generations."


def front(record: Record, layers: Sequence[str]) -> Section:
    """Return the networks of a search by error and parameters.

    Args:
      record: of the run.
      layers: names of the layers with a group, where they are known.
    """
    title = "Error and parameters"
    if record.tried:
        return Section(title, [_tried(record.tried)])
    records = record.main.generations
    children = [c for r in records for c in r["children"]]
    if not children:
        return Section(title, missing=NO_NETWORKS)
    members = record.result.get("front")
    named = "front"
    parts: list[Part] = []
    if members is None:
        kept = [r for r in records if any(c["kept"] is not None for c in r["children"])]
        last = kept[-1]["children"] if kept else []
        members = [child for child in last if child["kept"] is not None]
        named = "population so far"
        parts.append(Text("The front is known at the end; drawn are those that live."))
    ordered = sorted(members, key=lambda member: member["parameters"])
    labels = layer_labels(layers, len(children[0]["groups"]))
    drawn = _front_figure(records, ordered, named, labels)
    label = "Error against parameters; hover for the groups of every layer"
    parts.append(Chart(drawn, label, height=440))
    head = ("parameters", "validation error", "test error", *labels)
    rows = [
        (
            f"{m['parameters']:,}",
            percent(m["validation_error"]),
            percent(m["test_error"]) if "test_error" in m else "not yet",
            *m["groups"],
        )
        for m in ordered
    ]
    if rows:
        parts.append(Table(head, rows, left=range(3, len(head))))
    else:
        parts.append(Text("Every network diverged, so that the front is empty."))
    return Section(title, parts)


def _front_figure(
    records: Sequence[Row], members: Sequence[Row], named: str, labels: Sequence[str]
) -> go.Figure:
    tried = [
        (record["generation"], child)
        for record in records
        for child in record["children"]
        if child["validation_error"] is not None
    ]
    tested = [m for m in members if m.get("test_error") is not None]
    errors = [child["validation_error"] for _, child in tried]
    errors += [m["test_error"] for m in tested]
    cloud = go.Scatter(
        x=[child["parameters"] for _, child in tried],
        y=[100 * child["validation_error"] for _, child in tried],
        mode="markers",
        name="all children, validation",
        marker={
            "color": [generation for generation, _ in tried],
            "colorscale": "Viridis",
            "size": 7,
            "opacity": 0.75,
            "showscale": True,
            "colorbar": {
                "title": {"text": "generation", "side": "top"},
                "orientation": "h",
                "thickness": 8,
                "y": -0.22,
                "yanchor": "top",
                "dtick": max(1, len(records) // 8),
            },
        },
        customdata=[_told(c, labels, f"generation {g}") for g, c in tried],
        hovertemplate=charts.PLAIN,
    )
    line = go.Scatter(
        x=[m["parameters"] for m in members],
        y=[100 * m["validation_error"] for m in members],
        mode="lines+markers",
        name=f"{named}, validation",
        line={"color": charts.color(3)},
        marker={"size": 11, "symbol": "circle-open", "line": {"width": 2}},
        customdata=[_told(m, labels, named) for m in members],
        hovertemplate=charts.PLAIN,
    )
    crosses = go.Scatter(
        x=[m["parameters"] for m in tested],
        y=[100 * m["test_error"] for m in tested],
        mode="markers",
        name=f"{named}, test",
        marker={"size": 9, "symbol": "x", "color": charts.GREY},
        customdata=[_told(m, labels, named) for m in tested],
        hovertemplate=charts.PLAIN,
    )
    parameters = [child["parameters"] for _, child in tried]
    return charts.figure(
        [cloud, line, crosses],
        xaxis={
            "title": {"text": "parameters"},
            "tickformat": "~s",
            **charts.scale(parameters, ticks=4),
        },
        yaxis={"title": {"text": "error (%)"}, **charts.scale(errors)},
        margin={"l": 48, "r": 8, "t": 24, "b": 90},
    )


def _told(network: Row, labels: Sequence[str], where: str) -> str:
    groups = zip(labels, network["groups"], strict=True)
    test = network.get("test_error")
    return charts.lines(
        where,
        *(f"{label}: {group}" for label, group in groups),
        f"{network['parameters']:,} parameters",
        f"validation error {percent(network['validation_error'])}",
        None if test is None else f"test error {percent(test)}",
    )


def _tried(tried: Sequence[Row]) -> Chart:
    """Return the networks of a search of generators, in their order."""
    dots = go.Scatter(
        x=list(range(1, len(tried) + 1)),
        y=[100 * (1 - row["accuracy"]) for row in tried],
        mode="lines+markers",
        marker={"color": charts.color(0)},
        line={"width": 1},
        customdata=[
            charts.lines(
                f"network {i}",
                " ".join(row["groups"]),
                f"validation error {percent(1 - row['accuracy'])}",
            )
            for i, row in enumerate(tried, 1)
        ],
        hovertemplate=charts.PLAIN,
    )
    drawn = charts.figure(
        [dots],
        xaxis={"title": {"text": "network"}, **charts.whole(len(tried))},
        yaxis={"title": {"text": "validation error (%)"}, "rangemode": "tozero"},
    )
    return Chart(
        drawn, "Networks in the order in which they were tried, by their groups"
    )


def groups_over_time(record: Record, layers: Sequence[str]) -> Section:
    """Return which share of the population has which group, by layer and generation.

    Args:
      record: of the run.
      layers: names of the layers with a group, where they are known.
    """
    title = "Groups over the generations"
    population = [
        [child["groups"] for child in r["children"] if child["kept"] is not None]
        for r in record.main.generations
    ]
    if not any(population):
        return Section(title, missing=NO_GENERATIONS)
    count = len(next(groups for members in population for groups in members))
    labels = layer_labels(layers, count)
    names = dict.fromkeys(n for members in population for g in members for n in g)
    drawn = make_subplots(
        count, 1, shared_xaxes=True, vertical_spacing=0.25 / max(4, count)
    )
    for number, name in enumerate(names):
        for layer in range(count):
            counts = [Counter(g[layer] for g in members) for members in population]
            shares = [100 * c[name] / max(1, c.total()) for c in counts]
            if not any(shares):
                continue
            bars = go.Bar(
                x=[r["generation"] for r in record.main.generations],
                y=shares,
                name=charts.escaped(name),
                legendgroup=name,
                showlegend=False,
                marker={"color": charts.color(number)},
                hovertemplate=(
                    f"generation %{{x}}, {charts.escaped(labels[layer])}: "
                    f"{charts.escaped(name)} in %{{y:.0f}} %<extra></extra>"
                ),
            )
            drawn.add_trace(bars, layer + 1, 1)
        drawn.add_trace(_in_legend(name, charts.color(number)), 1, 1)
    drawn.update_layout(**charts.figure().layout.to_plotly_json(), barmode="stack")
    drawn.update_layout(bargap=0.1)
    drawn.update_xaxes(**charts.whole(len(population) - 1))
    drawn.update_xaxes(title={"text": "generation"}, row=count, col=1)
    for layer, label in enumerate(labels):
        drawn.update_yaxes(
            row=layer + 1, col=1, range=[0, 100], tickvals=[50], ticktext=[label]
        )
    label = "Share of the population that has each group, by layer"
    return Section(title, [Chart(drawn, label, height=120 + 58 * max(2, count))])


def _in_legend(name: str, color: str) -> go.Scatter:
    """Return an entry of the legend for traces that have none."""
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=charts.escaped(name),
        marker={"color": color, "size": 10, "symbol": "square"},
        legendgroup=name,
    )
