"""Feature maps of an image and of its turned copy, beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from eqjax.saving import Saved
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.reports import charts
from eqjax_experiments.reports.kernels import MOST_ELEMENTS, in_rows
from eqjax_experiments.reports.page import (
    Beside,
    Chart,
    Choice,
    Part,
    Section,
    Table,
    Text,
)
from eqjax_experiments.reports.turned_maps import Turned, turn

SMALLEST = 1e-9  # difference that is told from none
STRIP = 12  # times as wide as high, a sequence is drawn
WHAT = (
    "An equivariant layer makes of the turned image the turned map, in which the "
    "elements of the group are exchanged, too. The difference is what the layers up to "
    "there have given up."
)
INEXACT = (
    "Some turns do not move pixels onto pixels; the image is read between pixels then, "
    "and a difference remains in any network."
)


def feature_maps(
    network: Saved | str, dataset: Dataset | str, source: str = ""
) -> Section:
    """Return feature maps of a validation image and of its turned copy.

    Args:
      network: the best network of a run, or a sentence on why there is none.
      dataset: the data, or a sentence on why they cannot be loaded.
      source: what the data were called when the run began.
    """
    title = "Feature maps under a turn"
    if isinstance(network, str):
        return Section(title, missing=network)
    if isinstance(dataset, str):
        return Section(title, missing=dataset)
    reads = network.preprocessing.shape
    if dataset.image_shape != reads:
        other = f"images of shape {dataset.image_shape}, and the network reads {reads}."
        return Section(title, missing=f"The data have {other}")
    turned = turn(network, np.asarray(dataset.validation.images[:1]))
    if turned is None:
        why = "No element of the group but the identity keeps the shape of the images."
        return Section(title, missing=why)
    label = dataset.class_names[int(dataset.validation.labels[0])]
    parts = _parts(turned, label)
    if dataset.source != source:
        before = f"The run was begun with the data {source}"
        parts.insert(0, Text(f"{before}; now they are {dataset.source}."))
    return Section(title, parts)


def _parts(turned: Turned, label: str) -> list[Part]:
    ambient = turned.motions.ambient
    names = dict(zip(ambient.elements, ambient.element_names, strict=True))
    exact = dict(zip(ambient.elements, ambient.exact, strict=True))
    quarter = [i for i, u in enumerate(turned.turns) if "by 90°" in names[u]]
    shown = quarter[0] if quarter else 0
    name, d = names[turned.turns[shown]], ambient.dimension
    told = [
        f"A validation image of the class {label}, and its copy under a {name}.",
        WHAT,
        *([] if all(exact[u] for u in turned.turns) else [INEXACT]),
        *(["Of volumes the middle slice is drawn."] if d == 3 else []),
    ]
    pair = [flat(image, d) for image in turned.images[[0, shown + 1]]]
    images = _picture([pair], f"The image, and its copy under a {name}", "Gray")
    errors = turned.errors()
    rows = [
        [names[u], *(_shown(own[i]) for own in errors.values())]
        for i, u in enumerate(turned.turns)
    ]
    options: dict[str, Sequence[Part]] = {
        layer: _maps(expected[shown], turned.found[layer][shown], d, name)
        for layer, expected in turned.expected.items()
        if expected.ndim == d + 3
    }
    parts: list[Part] = [
        Text(" ".join(told)),
        images,
        Text("The difference over the size of the map, by turn and layer:"),
        Table(("turn", *errors), rows),
    ]
    return [*parts, Choice("Layer", options)] if options else parts


def _shown(error: float) -> str:
    if error < SMALLEST:
        return "0"
    return f"{error:.2f}" if error >= 0.01 else f"{error:.0e}"


def flat(image: np.ndarray, d: int) -> np.ndarray:
    """Return an image (*space, channels) as (height, width): its channels' mean.

    Of a volume the middle slice, and of a sequence a strip.

    Args:
      image: with d axes of space.
      d: how many.
    """
    found = image.mean(-1).astype(np.float32)
    if d == 3:
        return found[len(found) // 2]
    if d == 1:
        return np.tile(found, (max(1, len(found) // STRIP), 1))
    return found


def _maps(expected: np.ndarray, found: np.ndarray, d: int, name: str) -> list[Part]:
    """Return the maps (*space, fiber, channels) of a layer, for one channel."""
    spread = expected.std(tuple(range(expected.ndim - 1)))
    channel = int(np.argmax(np.nan_to_num(spread)))
    fiber = min(expected.shape[-2], MOST_ELEMENTS)
    told = f"Channel {channel + 1} of {expected.shape[-1]}"
    if fiber < expected.shape[-2]:
        told += f", the first {fiber} of {expected.shape[-2]} elements of the group"
    top = float(np.max(np.nan_to_num(np.abs(expected[..., channel])))) or 1.0
    drawn: list[Part] = [
        _picture(
            in_rows([flat(values[..., i, [channel]], d) for i in range(fiber)]),
            label,
            "RdBu",
            top,
        )
        for label, values in (
            (f"Map of the image, then the {name}", expected),
            ("Map of the turned image", found),
            ("Difference, in the same colours", found - expected),
        )
    ]
    return [Text(f"{told}. Every tile is one element of the group."), Beside(drawn)]


def _picture(
    pictures: Sequence[Sequence[np.ndarray]],
    label: str,
    colors: str,
    top: float | None = None,
) -> Chart:
    """Return tiles as a chart, coloured from -top to top if that is given."""
    whole = charts.tiles(pictures)
    heat = go.Heatmap(
        z=whole.astype(np.float32),
        colorscale=colors,
        reversescale=colors == "RdBu",
        zmin=None if top is None else -top,
        zmax=top,
        showscale=False,
        hovertemplate="%{z:.3g}<extra></extra>",
        hoverongaps=False,
    )
    layout = charts.tile_layout(pictures[0][0].shape, whole.shape)
    drawn = charts.figure([heat], **{**layout, "margin": dict.fromkeys("lrtb", 4)})
    ratio = round(whole.shape[1] / whole.shape[0], 3)
    return Chart(drawn, label, ratio=ratio, width=420)
