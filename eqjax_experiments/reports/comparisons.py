"""Many methods over several seeds: tables with intervals, and errors by method."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from eqjax_experiments.data.splits import counted
from eqjax_experiments.reports import charts
from eqjax_experiments.reports.page import (
    Beside,
    Chart,
    Folded,
    Part,
    Section,
    Table,
    Text,
)
from eqjax_experiments.reports.record import Record, Row
from eqjax_experiments.reports.statistics import (
    LEVEL,
    READINGS,
    Line,
    by_experiment,
    summarize,
)
from eqjax_experiments.reports.tables import columns

LONGEST = 26  # name of a method beside a chart


def comparisons(record: Record) -> Section:
    """Return the table of every experiment, with its charts."""
    title = "Methods"
    if not record.is_comparison:
        return Section(
            title, missing="This is a run of one method; compare has several."
        )
    parts: list[Part] = []
    for name, rows in by_experiment(record.rows).items():
        parts += _experiment(name, rows, record.settings)
    if not parts:
        parts = [Text("No run of a method has ended yet.")]
    if record.inner:
        told = (
            "Every run has a folder of its own, and can have a report of its own: "
            f"python -m experiments.report {record.folder / record.inner[0]}"
        )
        names = [(name,) for name in record.inner]
        folders: list[Part] = [Text(told), Table(("folder",), names)]
        count = counted(len(names), "folder of a run", "folders of runs")
        parts.append(Folded(count, folders))
    return Section(title, parts)


def _experiment(name: str, rows: Sequence[Row], settings: Row) -> list[Part]:
    told = [r for r in rows if r["reading"] in READINGS and r["test_error"] is not None]
    lost = sum(row["test_error"] is None for row in rows)
    parts: list[Part] = []
    if lost:
        missing = counted(lost, "network", "networks")
        parts.append(Text(f"{name}: {missing} diverged, and count nowhere."))
    if not told:
        return [*parts, Text(f"{name}: no network has a test error yet.")]
    there = {row["method"] + READINGS[row["reading"]] for row in told}
    wanted = settings.get("reference") or settings.get("ambient")
    found = summarize(rows, wanted if wanted in there else None)
    head = columns(found.reference)
    left = [i for i, column in enumerate(head) if column in ("method", "last layer")]
    table = Table(head, [line.cells() for line in found.lines], left)
    height = 110 + 24 * max(3, len(found.lines))
    parts += [
        Text(
            f"Experiment {name}: errors are means over the seeds, with their standard "
            "deviation; "
            f"intervals hold the mean difference to {found.reference}, seed by seed, "
            f"at {100 * LEVEL:.0f} %, by bootstrap; p is that of the paired t test."
        ),
        table,
    ]
    drawn: list[Part] = [
        Chart(_errors(found.lines), f"Test errors of {name}, a dot per seed", height)
    ]
    if any(line.difference is not None for line in found.lines):
        label = f"Difference to {found.reference}, with {100 * LEVEL:.0f} % intervals"
        drawn.append(Chart(_differences(found.lines), label, height))
    return [*parts, Beside(drawn)]


def _errors(lines: Sequence[Line]) -> go.Figure:
    places = range(len(lines))
    dots = go.Scatter(
        x=[error for line in lines for error in line.errors.values()],
        y=[i for i, line in enumerate(lines) for _ in line.errors],
        mode="markers",
        name="seeds",
        marker={"color": charts.color(0), "size": 8, "opacity": 0.7},
        customdata=[
            charts.lines(line.method, f"seed {seed}: {error:.2f} %")
            for line in lines
            for seed, error in line.errors.items()
        ],
        hovertemplate=charts.PLAIN,
    )
    means = go.Scatter(
        x=[line.mean for line in lines],
        y=list(places),
        mode="markers",
        name="mean",
        marker={
            "symbol": "line-ns",
            "size": 14,
            "line": {"width": 3, "color": charts.color(1)},
        },
        customdata=[
            charts.lines(line.method, f"mean {line.mean:.2f} %") for line in lines
        ],
        hovertemplate=charts.PLAIN,
    )
    return _by_method([dots, means], lines, "test error (%)")


def _differences(lines: Sequence[Line]) -> go.Figure:
    known = [line for line in lines if line.difference is not None]
    reach = [line.interval or (line.difference, line.difference) for line in known]
    middle = [line.difference or 0.0 for line in known]
    bars = go.Scatter(
        x=middle,
        y=list(range(len(known))),
        mode="markers",
        marker={"color": charts.color(3), "size": 8},
        error_x={
            "array": [
                (high or 0) - m for (_, high), m in zip(reach, middle, strict=True)
            ],
            "arrayminus": [
                m - (low or 0) for (low, _), m in zip(reach, middle, strict=True)
            ],
            "thickness": 2,
            "color": charts.color(3),
        },
        customdata=[charts.lines(*line.cells()[:6]) for line in known],
        hovertemplate=charts.PLAIN,
    )
    return _by_method([bars], known, "percentage points")


def _by_method(traces: list[go.Scatter], lines: Sequence[Line], what: str) -> go.Figure:
    """Return traces over the numbers of methods; long names are cut."""
    names = [line.method for line in lines]
    short = [n if len(n) <= LONGEST else f"{n[: LONGEST - 1]}…" for n in names]
    axis = {
        "tickvals": list(range(len(names))),
        "ticktext": list(map(charts.escaped, short)),
        "tickfont": {"size": 10},
        "range": [len(names) - 0.5, -0.5],
        "zeroline": False,
    }
    return charts.figure(traces, xaxis={"title": {"text": what}}, yaxis=axis)
