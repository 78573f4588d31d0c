"""What the tests of a run found: one, or those of a search over its milestones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from eqjax_experiments.reports import charts
from eqjax_experiments.reports.page import Chart, Choice, Part, Section, Table, Text
from eqjax_experiments.reports.record import Record, Row


def evidence(record: Record) -> Section:
    """Return the evidence against every group, by test and by layer."""
    title = "Evidence over time"
    entries = record.evidence
    if not entries:
        return Section(
            title, missing="Only guide and test-symmetry ask a network for groups."
        )
    told = (
        "About 1 is what is expected of a group that the data have; more speaks "
        "against it. A small p rejects the group."
    )
    parts: list[Part] = [
        Text(told),
        Table(
            ("step", "named", "groups of its network", "from there on"),
            [
                (
                    f"{entry['step']:,}",
                    _named(entry),
                    " ".join(entry["groups"]),
                    " ".join(entry["next"]),
                )
                for entry in entries
            ],
            left=(1, 2, 3),
        ),
    ]
    if any(entry["network"] for entry in entries):
        label = (
            "Evidence against every group in the whole network, by step of the test; "
            "x marks those rejected"
        )
        parts.append(Chart(_network(entries), label, height=360))
    options: dict[str, Sequence[Part]] = {
        f"after step {entry['step']:,}": [_layers(entry), *_relaxing(entry)]
        for entry in entries
        if any(entry["layers"].values())
    }
    if options:
        parts.append(Choice("Evidence by layer", options))
    return Section(title, parts)


def _named(entry: Row) -> str:
    """Return the group that a test named, its p, and whether that is decided."""
    row = entry["network"].get(entry["named"])
    p = f" (p {row['p']:.2g})" if row else ""
    doubt = "" if entry.get("decided", True) else ", undecided"
    return f"{entry['named']}{p}{doubt}"


def _network(entries: Sequence[Row]) -> go.Figure:
    bars = []
    for number, entry in enumerate(entries):
        rows = entry["network"]
        bars.append(
            go.Bar(
                x=[charts.escaped(name) for name in rows],
                y=[row["evidence"] for row in rows.values()],
                name=f"step {entry['step']:,}",
                marker={"color": charts.color(number)},
                text=["x" if row["rejected"] else "" for row in rows.values()],
                textposition="outside",
                cliponaxis=False,
                customdata=[_told(name, row) for name, row in rows.items()],
                hovertemplate=charts.PLAIN,
            )
        )
    kind = charts.scale(
        row["evidence"] for e in entries for row in e["network"].values()
    )
    return charts.figure(
        bars,
        xaxis={"type": "category", "tickangle": -45},
        yaxis={"title": {"text": "evidence"}, **kind},
        showlegend=True,
    )


def _told(name: str, row: Row) -> str:
    return charts.lines(
        name,
        f"evidence {row['evidence']:.4g}, p {row['p']:.3g}",
        "rejected" if row["rejected"] else "not rejected",
        f"predicted gain {row['gain']:.3g}" if row.get("gain") is not None else None,
    )


def _layers(entry: Row) -> Chart:
    layers = entry["layers"]
    groups = list(next(iter(layers.values())))
    rows = [[own.get(group) for group in groups] for own in layers.values()]
    values = [
        [math.log10(max(row["evidence"], 1)) if row else math.nan for row in own]
        for own in rows
    ]
    text = [
        [
            f"{row['evidence']:.2g}{' x' if row['rejected'] else ''}" if row else ""
            for row in own
        ]
        for own in rows
    ]
    drawn = charts.matrix(values, groups, list(layers), text, colorscale="Magma")
    label = "Evidence against every group in every layer; x marks those rejected"
    return Chart(drawn, label, height=130 + 34 * max(2, len(layers)))


def _relaxing(entry: Row) -> list[Part]:
    """Return the evidence for relaxing every layer, if the search went by that."""
    table = entry.get("evidence_for_relaxing")
    if not table:
        return []
    groups = list(dict.fromkeys(name for row in table.values() for name in row))
    rows = [
        [layer, *(f"{row[g]:+.3g}" if g in row else "" for g in groups)]
        for layer, row in table.items()
    ]
    told = (
        "Evidence for relaxing a layer to a group, by Laplace's approximation; the "
        "layer gets the group that has most of it:"
    )
    return [Text(told), Table(("layer", *groups), rows)]
