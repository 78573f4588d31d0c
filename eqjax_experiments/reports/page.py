"""A page in HTML that needs no other file: sections of text, tables and charts.

What is put into it is text, and is escaped; nothing is taken for HTML. The policy at
its head forbids it to load anything.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jinja2
import plotly.graph_objects as go
import plotly.io
import plotly.offline

TEMPLATE, STYLE, SCRIPT = "page.html", "page.css", "page.js"


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; its first column is aligned left, as are those named.

    Attributes:
      head: of the columns.
      rows: the text of their cells.
      left: numbers of the columns that are text.
    """

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[int] = (0,)


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
      figure: of plotly.
      label: what it shows, read out to those who do not see it, and above it.
      height: in pixels.
      ratio: width over height of what is drawn, in place of the height.
      width: in pixels, at most; as wide as the page if None.
    """

    kind: ClassVar[str] = "chart"
    figure: go.Figure
    label: str
    height: int = 360
    ratio: float | None = None
    width: int | None = None

    @property
    def data(self) -> str:
        """The figure in JSON, in which plotly leaves no tag as it is."""
        return plotly.io.to_json(self.figure, validate=False)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several parts, chosen from a list."""

    kind: ClassVar[str] = "choice"
    label: str
    options: Mapping[str, Sequence[Part]]


@dataclasses.dataclass(frozen=True)
class Folded:
    """Parts that are unfolded when they are asked for."""

    kind: ClassVar[str] = "folded"
    label: str
    parts: Sequence[Part]


@dataclasses.dataclass(frozen=True)
class Beside:
    """Parts beside each other, where there is room."""

    kind: ClassVar[str] = "beside"
    parts: Sequence[Part]


Part = Text | Table | Chart | Choice | Folded | Beside


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page with a title.

    Attributes:
      title: of the section.
      parts: in their order.
      missing: why there are none, where there are none.
    """

    title: str
    parts: Sequence[Part] = ()
    missing: str = ""

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return self.title.lower().replace(" ", "-")


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page.

    Args:
      title: of the page.
      lead: a sentence or two below it.
      sections: in their order; those that miss are listed at the end.
    """
    there = [section for section in sections if not section.missing]
    gone = [(each.title, each.missing) for each in sections if each.missing]
    if gone:
        table = Table(("", ""), gone, left=(0, 1))
        there.append(Section("Not in this run", [table]))
    files = importlib.resources.files("eqjax_experiments.reports")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    return environment.from_string((files / TEMPLATE).read_text()).render(
        title=title,
        lead=lead,
        sections=there,
        style=(files / STYLE).read_text(),
        script=(files / SCRIPT).read_text(),
        plotly=plotly.offline.get_plotlyjs(),
    )
