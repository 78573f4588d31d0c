"""The seconds of every generation of a search, or piece of a training."""

from __future__ import annotations

import statistics

import plotly.graph_objects as go

from eqjax_experiments.reports import charts
from eqjax_experiments.reports.page import Chart, Part, Section, Table, Text
from eqjax_experiments.reports.record import Record, Training

NO_TIMES = "There are none of generations or passes over the training images."


def times(record: Record) -> Section:
    """Return the seconds of every generation, or of every piece of a training."""
    timed = [training for training in record.trainings if training.timing]
    if not timed:
        return Section("Times", missing=NO_TIMES)
    parts: list[Part] = [
        Text(
            "The first generation or piece, and the first after a run was continued, "
            "includes compiling; the first generation of a search also trains longer "
            "than the others. A piece is a pass over the training images, or what is "
            "left of one. The time of validation is part of both."
        )
    ]
    rows = [_time_row(training) for training in timed]
    head = ("training", "in all", "first", "median of the others", "per step or child")
    parts.append(Table(head, rows))
    parts += [_time_chart(training) for training in timed]
    return Section("Times", parts)


def work(training: Training) -> list[tuple[str, int]]:
    """Return what was done in the time of every record: a unit, and how many."""
    if training.generations:
        return [("child", len(r["children"])) for r in training.generations]
    ends = [record["step"] for record in training.pieces]
    starts = [0, *ends[:-1]]
    return [("step", end - start) for start, end in zip(starts, ends, strict=True)]


def _time_row(training: Training) -> list[str]:
    seconds = [row["seconds"] for row in training.timing]
    later = seconds[1:]
    done = work(training)[1 : len(seconds)]
    each = ""
    if later and sum(n for _, n in done):
        one = sum(later) / sum(n for _, n in done)
        unit = done[0][0]
        told = {
            "step": f"{1000 * one:,.1f} ms per step",
            "child": f"{one:,.2f} s per child",
        }
        each = told[unit]
    return [
        training.title,
        f"{sum(seconds):,.1f} s",
        f"{seconds[0]:,.1f} s",
        f"{statistics.median(later):,.1f} s" if later else "there is one",
        each or "not known without a second one",
    ]


def _time_chart(training: Training) -> Chart:
    key = "generation" if "generation" in training.timing[0] else "step"
    at = [row[key] for row in training.timing]
    seconds = [row["seconds"] for row in training.timing]
    bars = go.Bar(
        x=[str(number) for number in at],
        y=seconds,
        marker={"color": [charts.color(1), *[charts.color(0)] * (len(at) - 1)]},
        hovertemplate=f"{key} %{{x}}: %{{y:.2f}} s<extra></extra>",
    )
    title = {"text": key if key == "generation" else "after step"}
    drawn = charts.figure(
        [bars],
        xaxis={"title": title, "type": "category"},
        yaxis={"title": {"text": "seconds"}},
    )
    label = (
        f"Seconds of {training.title} by {key}; the first, in orange, with compiling"
    )
    return Chart(drawn, label, height=280)
