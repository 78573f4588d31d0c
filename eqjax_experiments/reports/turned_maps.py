"""What the layers of a network make of an image and of its turned copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from eqjax.analysis.motions import Motions
from eqjax.morphism.matching import tied_model
from eqjax.saving import Saved

MOST_TURNS = 16  # elements that the image is turned by
LOGITS = "logits"


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

    unordered = outputs(network.variables, images)
    made = {name: unordered[name] for name in (*names.values(), LOGITS)}
    expected = {
        name: np.concatenate([motions.moved(each[:1], u) for u in turns])
        for name, each in made.items()
    }
    found = {name: np.asarray(each[1:]) for name, each in made.items()}
    return Turned(turns, np.asarray(images), expected, found, motions)
