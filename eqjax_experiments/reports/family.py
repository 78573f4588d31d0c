"""The family tree of a search, and what every relaxation did to the loss."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from eqjax_experiments.data.splits import counted
from eqjax_experiments.reports import charts
from eqjax_experiments.reports.overview import layer_labels
from eqjax_experiments.reports.page import Chart, Part, Section, Table, Text
from eqjax_experiments.reports.printing import percent
from eqjax_experiments.reports.record import Record, Row

MOST_DRAWN = 1500  # children; of more, only the ancestors of those that live
MOST_CHANGES = 25  # kinds of relaxations that have a row


@dataclasses.dataclass(eq=False)
class Child:
    """A network that a search trained.

    Attributes:
      generation: in which.
      row: of the metrics.
      parent: that it inherits from; None in the first generation.
      copy: the child of the same parent and generation that kept its groups, so that
        both were trained as long; None if there is none.
    """

    generation: int
    row: Row
    parent: Child | None
    copy: Child | None = None

    @property
    def groups(self) -> list[str]:
        """The group of every layer."""
        return self.row["groups"]

    @property
    def loss(self) -> float | None:
        """On the validation images; None where it diverged."""
        return self.row["validation_loss"]

    @property
    def lives(self) -> bool:
        """Whether it is one of the next population."""
        return self.row["kept"] is not None

    @property
    def relaxed(self) -> bool:
        """Whether its groups differ from those of its parent."""
        return self.parent is not None and self.groups != self.parent.groups

    @property
    def effect(self) -> float | None:
        """Its loss less that of the copy of its parent; None if either is unknown."""
        copy = self.copy
        if not self.relaxed or self.loss is None or copy is None or copy.loss is None:
            return None
        return self.loss - copy.loss

    def change(self, labels: Sequence[str]) -> str:
        """Return which layers have other groups than those of the parent."""
        if not self.relaxed or self.parent is None:
            return "unchanged"
        layers: dict[str, list[str]] = {}
        pairs = zip(labels, self.parent.groups, self.groups, strict=True)
        for label, before, now in pairs:
            if before != now:
                layers.setdefault(f"{before} to {now}", []).append(label)
        return "; ".join(f"{', '.join(own)}: {how}" for how, own in layers.items())


def family(records: Sequence[Row]) -> list[Child]:
    """Return all children of a search, each with its parent."""
    everyone: list[Child] = []
    population: list[Child] = []
    for record in records:
        children = [
            Child(
                record["generation"],
                row,
                population[row["parent"]] if population else None,
            )
            for row in record["children"]
        ]
        copies = {id(c.parent): c for c in children if c.parent and not c.relaxed}
        for child in children:
            child.copy = copies.get(id(child.parent)) if child.relaxed else None
        alive = [child for child in children if child.lives]
        # Where every child diverged, the population before stays.
        population = sorted(alive, key=lambda c: c.row["kept"]) or population
        everyone += children
    return everyone


def family_tree(record: Record, layers: Sequence[str]) -> Section:
    """Return the family tree of a search, and what relaxations did to the loss.

    Args:
      record: of the run.
      layers: names of the layers with a group, where they are known.
    """
    title = "Family tree"
    everyone = family(record.main.generations)
    if not everyone:
        return Section(title, missing="Only a search by evolve records parents.")
    labels = layer_labels(layers, len(everyone[0].groups))
    shown = [child for child in everyone if child.loss is not None]
    parts: list[Part] = []
    if diverged := len(everyone) - len(shown):
        told = counted(diverged, "child", "children")
        parts.append(Text(f"{told} diverged, and cannot be drawn."))
    if len(shown) > MOST_DRAWN:
        last = everyone[-1].generation
        shown = list(_ancestors(c for c in shown if c.lives and c.generation == last))
        parts.append(
            Text(
                f"Of {len(everyone):,} children only the {len(shown):,} are drawn that "
                "the last population descends from, and that population."
            )
        )
    if shown:
        parts.append(
            Chart(
                _tree(shown, labels),
                "Every child by generation and validation loss, with a line to its "
                "parent; hover for its groups and for what changed",
                height=460,
            )
        )
    return Section(title, parts + _effects(everyone, labels))


def _ancestors(children: Iterator[Child]) -> dict[Child, None]:
    found: dict[Child, None] = {}
    for child in children:
        each: Child | None = child
        while each is not None and each not in found:
            found[each] = None
            each = each.parent
    return found


def _tree(shown: Sequence[Child], labels: Sequence[str]) -> go.Figure:
    traces: list[go.Scatter] = []
    for relaxed, name, color in (
        (False, "trained on, unchanged", charts.GREY),
        (True, "relaxed", charts.color(0)),
    ):
        x: list[float | None] = []
        y: list[float | None] = []
        for child in shown:
            parent = child.parent
            if parent is not None and child.relaxed is relaxed:
                x += [parent.generation, child.generation, None]
                y += [parent.loss, child.loss, None]
        line = {"color": color, "width": 1.5}
        traces.append(
            go.Scatter(x=x, y=y, mode="lines", name=name, line=line, hoverinfo="skip")
        )
    for lives, name, symbol in (
        (False, "dropped", "circle-open"),
        (True, "survives", "circle"),
    ):
        own = [child for child in shown if child.lives is lives]
        traces.append(
            go.Scatter(
                x=[child.generation for child in own],
                y=[child.loss for child in own],
                mode="markers",
                name=name,
                marker={
                    "symbol": symbol,
                    "size": 9,
                    "color": charts.color(1),
                    "line": {"width": 1.5, "color": charts.color(1)},
                },
                customdata=[_told(child, labels) for child in own],
                hovertemplate=charts.PLAIN,
            )
        )
    last = max(child.generation for child in shown)
    kind = charts.scale(child.loss for child in shown)
    return charts.figure(
        traces,
        xaxis={"title": {"text": "generation"}, **charts.whole(last)},
        yaxis={"title": {"text": "validation loss"}, **kind},
    )


def _told(child: Child, labels: Sequence[str]) -> str:
    parent = child.parent
    change = effect = None
    if parent is not None:
        before = "diverged" if parent.loss is None else f"{parent.loss:.4g}"
        change = f"{child.change(labels)}; loss {before} before, {child.loss:.4g} now"
    if child.effect is not None:
        effect = f"{child.effect:+.4g} against the unchanged child of its parent"
    return charts.lines(
        f"generation {child.generation}, {'survives' if child.lives else 'dropped'}",
        *(f"{label}: {g}" for label, g in zip(labels, child.groups, strict=True)),
        change or f"loss {child.loss:.4g}",
        effect,
        f"validation error {percent(child.row['validation_error'])}",
        f"{child.row['parameters']:,} parameters",
    )


def _effects(everyone: Sequence[Child], labels: Sequence[str]) -> list[Part]:
    """Return what relaxations did to the loss, by what they changed."""
    relaxed = [child for child in everyone if child.relaxed]
    if not relaxed:
        return [Text("No child has been relaxed so far.")]
    kinds: dict[str, list[Child]] = {}
    for child in relaxed:
        kinds.setdefault(child.change(labels), []).append(child)
    order = sorted(kinds.items(), key=lambda item: -len(item[1]))
    told = (
        "What a relaxation did is the loss of the relaxed child less that of the "
        "unchanged child of the same parent, which was trained as long. Below zero, "
        "the relaxation helped."
    )
    if len(order) > MOST_CHANGES:
        told += f" Shown are the {MOST_CHANGES} most frequent of {len(order)} kinds."
    parts: list[Part] = [Text(told)]
    order = order[:MOST_CHANGES]
    known = [(n, c) for n, own in reversed(order) for c in own if c.effect is not None]
    if known:
        dots = go.Scatter(
            x=[child.effect for _, child in known],
            y=[charts.escaped(name) for name, _ in known],
            mode="markers",
            marker={
                "size": 9,
                "opacity": 0.8,
                "color": [
                    charts.color(1) if c.lives else charts.GREY for _, c in known
                ],
            },
            customdata=[_told(child, labels) for _, child in known],
            hovertemplate=charts.PLAIN,
        )
        drawn = charts.figure(
            [dots],
            xaxis={"title": {"text": "change of the loss"}},
            yaxis={"type": "category"},
        )
        label = "Effect of every relaxation on the validation loss; survivors in orange"
        parts.append(Chart(drawn, label, height=110 + 26 * len(order)))
    rows = []
    for name, own in order:
        effects = [child.effect for child in own if child.effect is not None]
        mean = f"{statistics.mean(effects):+.4g}" if effects else "not known"
        alive = sum(child.lives for child in own)
        rows.append((name, f"{len(own):,}", f"{alive:,}", mean))
    head = ("relaxation", "children", "survived", "mean effect on the loss")
    return [*parts, Table(head, rows)]
