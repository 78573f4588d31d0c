"""What the layers of a network make of an image and of its turned copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from flax.traverse_util import flatten_dict

from eqjax.analysis.motions import Motions
from eqjax.morphism.matching import tied_model
from eqjax.saving import Saved
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.reports import charts
from eqjax_experiments.reports.kernels import MOST_ELEMENTS, element_names
from eqjax_experiments.reports.page import Beside, Chart, Choice, Part, Section, Text

MOST_TURNS = 16  # elements that the image is turned by
ACROSS = 4  # elements of a fiber, beside each other
LOGITS = "logits"
SMALLEST = 1e-9  # error that is told from none


@dataclasses.dataclass(frozen=True)
class Turned:
    """The maps of an image, turned, and the maps of the turned image.

    Attributes:
      turns: numbers of the elements that the image was turned by, in the ambient group.
      images: the image, and after it its copies by every element.
      expected: by layer, the map of the image turned by every element.
      found: by layer, the maps of the turned images.
      motions: what moves them.
    """

    turns: tuple[int, ...]
    images: np.ndarray
    expected: Mapping[str, np.ndarray]
    found: Mapping[str, np.ndarray]
    motions: Motions

    def errors(self) -> dict[str, list[float]]:
        """Return by layer, for every turn, |found - expected| / |expected|."""
        table = {}
        for name, expected in self.expected.items():
            axes = tuple(range(1, expected.ndim))
            size = np.sqrt((np.abs(expected) ** 2).sum(axes))
            apart = np.sqrt((np.abs(self.found[name] - expected) ** 2).sum(axes))
            size = np.where(size == 0, 1, size)
            table[name] = [float(a / s) for a, s in zip(apart, size, strict=True)]
        return table


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
    for missing in (network, dataset):
        if isinstance(missing, str):
            return Section(title, [Text(missing)])
    assert isinstance(network, Saved)
    assert isinstance(dataset, Dataset)
    if dataset.image_shape != network.preprocessing.shape:
        return Section(
            title,
            [
                Text(
                    f"The network reads images of shape {network.preprocessing.shape}, "
                    f"and those of the data have {dataset.image_shape}."
                )
            ],
        )
    image = np.asarray(dataset.validation.images[:1])
    turned = turn(network, image)
    if turned is None:
        return Section(
            title, [Text("No element of the group keeps the image's shape.")]
        )
    label = dataset.class_names[int(dataset.validation.labels[0])]
    parts = _parts(turned, label)
    if dataset.source != source:
        now = (
            f"The run was begun with the data {source}; now they are {dataset.source}."
        )
        parts.insert(0, Text(now))
    return Section(title, parts)


def turn(network: Saved, image: np.ndarray) -> Turned | None:
    """Return what the layers of a network make of an image and its turned copies.

    Args:
      network: with layers over one ambient group.
      image: (1, *space, channels).

    Returns:
      None where no element but the identity keeps the shape of the image.
    """
    layers = {
        path: layer
        for path, layer in tied_model(network.model, image).layers.items()
        if "kernel" in layer.tables
    }
    ambient = next(iter(layers.values())).group.ambient
    motions = Motions(ambient, list(layers.values()))
    kept = motions.keeping_shapes([image])
    turns = tuple(u for u in kept if u != ambient.smallest.elements[0])[:MOST_TURNS]
    if not turns:
        return None
    images = jnp.concatenate([image, *(motions.moved(image, u) for u in turns)])
    names = {path: "/".join(path) for path in layers}

    @jax.jit
    def outputs(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
        logits, state = network.model.apply(
            variables,
            images,
            mutable=["intermediates"],
            capture_intermediates=lambda module, method: (
                method == "__call__" and module.path in names
            ),
        )
        found = flatten_dict(state["intermediates"])
        own = {name: found[(*path, "__call__")][-1] for path, name in names.items()}
        return {**own, LOGITS: logits}

    made = outputs(network.variables, images)
    expected = {
        name: np.concatenate([motions.moved(each[:1], u) for u in turns])
        for name, each in made.items()
    }
    found = {name: np.asarray(each[1:]) for name, each in made.items()}
    return Turned(turns, np.asarray(images), expected, found, motions)


def _parts(turned: Turned, label: str) -> list[Part]:
    ambient = turned.motions.ambient
    names = dict(
        zip(ambient.elements, element_names(ambient, ambient.order), strict=True)
    )
    long = dict(zip(ambient.elements, ambient.element_names, strict=True))
    shown = _shown_turn(turned, long)
    u = turned.turns[shown]
    errors = turned.errors()
    columns = [names[u] for u in turned.turns]
    text = [
        [f"{e:.1e}" if e >= SMALLEST else "0" for e in row] for row in errors.values()
    ]
    values = np.log10(np.maximum(np.array(list(errors.values()), float), SMALLEST))
    table = charts.matrix(values, columns, list(errors), text, zmin=-8, zmax=0)
    exact = dict(zip(ambient.elements, ambient.exact, strict=True))
    told = (
        f"A validation image of the class {label}, and its copy under a {long[u]}. An "
        "equivariant layer makes of the turned image the turned map, in which the "
        "elements of the group are exchanged, too. The difference is what the layers "
        "up to there have given up."
    )
    if not all(exact[v] for v in turned.turns):
        told += (
            " Some turns do not move pixels onto pixels; the image is read between "
            "pixels there, and a difference remains in any network."
        )
    d = ambient.dimension
    if d == 3:
        told += " Of volumes the middle slice is drawn."
    images = [
        charts.tiles([[_flat(image, d) for image in turned.images[[0, shown + 1]]]])
    ]
    options: dict[str, Sequence[Part]] = {}
    for name, expected in turned.expected.items():
        if expected.ndim == d + 3:
            options[name] = _maps(
                expected[shown], turned.found[name][shown], d, long[u]
            )
    parts: list[Part] = [
        Text(told),
        Beside(
            [
                Chart(
                    _picture(images[0], _flat(turned.images[0], d).shape, "Gray"),
                    f"The image, and its copy under a {long[u]}",
                    ratio=round(max(0.5, images[0].shape[1] / images[0].shape[0]), 3)
                    if d > 1
                    else 6.0,
                    width=420,
                ),
                Chart(
                    table,
                    "Difference over the size of the map, by layer and turn",
                    height=130 + 30 * max(2, len(errors)),
                ),
            ]
        ),
    ]
    if options:
        parts.append(Choice("Layer", options))
    return parts


def _shown_turn(turned: Turned, names: Mapping[int, str]) -> int:
    """Return the place of the turn that is drawn: by 90° where there is one."""
    quarter = [i for i, u in enumerate(turned.turns) if "by 90°" in names[u]]
    return quarter[0] if quarter else 0


def _flat(image: np.ndarray, d: int) -> np.ndarray:
    """Return an image (*space, channels) as (height, width), its channels' mean."""
    found = image.mean(-1)
    if d == 3:
        found = found[len(found) // 2]
    return np.atleast_2d(found).astype(np.float32)


def _maps(expected: np.ndarray, found: np.ndarray, d: int, name: str) -> list[Part]:
    """Return the maps (*space, fiber, channels) of a layer, for one channel."""
    channels = tuple(range(expected.ndim - 1))
    channel = int(np.argmax(np.nan_to_num(expected.std(channels))))
    fiber = min(expected.shape[-2], MOST_ELEMENTS)
    told = f"Channel {channel + 1} of {expected.shape[-1]}"
    if fiber < expected.shape[-2]:
        told += f", the first {fiber} of {expected.shape[-2]} elements of the group"
    drawn: list[Part] = []
    top = float(np.nanmax(np.abs(expected[..., channel]), initial=0.0)) or 1.0
    for label, values in (
        (f"Map of the image, then the {name}", expected),
        ("Map of the turned image", found),
        ("Difference, in the same colours", found - expected),
    ):
        own = [_flat(values[..., i, [channel]], d) for i in range(fiber)]
        rows = [own[i : i + ACROSS] for i in range(0, fiber, ACROSS)]
        whole = charts.tiles(rows)
        picture = _picture(whole, own[0].shape, "RdBu", top)
        ratio = round(max(0.5, min(whole.shape[1] / whole.shape[0], 6.0)), 3)
        drawn.append(Chart(picture, label, ratio=ratio, width=520))
    return [Text(f"{told}. Every tile is one element of the group."), Beside(drawn)]


def _picture(
    whole: np.ndarray, tile: tuple[int, ...], colors: str, top: float | None = None
) -> go.Figure:
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
    layout = charts.tile_layout(tile, whole.shape)
    return charts.figure([heat], **{**layout, "margin": dict.fromkeys("lrtb", 4)})
