"""Every element of a group applied to whatever passes between layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eqjax.fields.action import transform
from eqjax.fields.fiber import Fiber, regular, trivial
from eqjax.groups.group import Group
from eqjax.layers.base import TiedModule


class Motions:
    """The action of an ambient group on arrays that are told apart by their shapes."""

    def __init__(self, ambient: Group, layers: Sequence[TiedModule] = ()):
        self.ambient = ambient
        self.fibers = {f.size: f for layer in layers for f in _fibers(layer, ambient)}
        for fiber in (trivial(ambient), regular(ambient)):  # these come first
            self.fibers[fiber.size] = fiber

    def all(self, tree: Any) -> Any:
        """Return arrays with a leading axis of elements.

        An element that changes the shape of an array leaves it alone here; see
        `keeping_shapes`.
        """
        return jax.tree.map(self._stacked, tree)

    def keeping_shapes(self, arrays: Sequence[Any]) -> tuple[int, ...]:
        """Return the elements that map the grid of every array to itself."""
        d = self.ambient.dimension
        grids = [np.shape(x)[1 : d + 1] for x in arrays if self._has_space(x)]

        def keeps(matrix: np.ndarray) -> bool:
            mixed = list(zip(*np.nonzero(np.abs(matrix) > 1e-9), strict=True))
            return all(grid[i] == grid[j] for grid in grids for i, j in mixed)

        return self.ambient.keeping(keeps).elements

    def _has_space(self, x: Any) -> bool:
        d = self.ambient.dimension
        return np.ndim(x) in (d + 2, d + 3)

    def _stacked(self, x: Any) -> jax.Array:
        kept = self.keeping_shapes([x])
        return jnp.stack(
            [self.moved(x, u) if u in kept else x for u in self.ambient.elements]
        )

    def moved(self, x: Any, u: int) -> jax.Array:
        """Return an array moved by an element that keeps its shape."""
        d, fiber = self.ambient.dimension, None
        if np.ndim(x) > 2:
            fiber = self.fibers.get(x.shape[-2])
        if not self._has_space(x):
            if np.ndim(x) == 3 and fiber is not None:  # (batch, fiber, channels)
                return x[:, fiber.action[self.ambient.inverse[u]]]
            return jnp.asarray(x)
        if np.ndim(x) == d + 3 and fiber is None:  # not a fiber: as if of an image
            merged = x.reshape(*x.shape[: d + 1], -1)
            return transform(merged, u, group=self.ambient).reshape(x.shape)
        kind = {"fiber": fiber} if np.ndim(x) == d + 3 else {}
        return transform(x, u, group=self.ambient, **kind)


def _fibers(layer: TiedModule, ambient: Group) -> list[Fiber]:
    own = getattr(layer, "fibers", ()) or (getattr(layer, "fiber", None),)
    return [f for f in own if isinstance(f, Fiber) and f.ambient == ambient]
