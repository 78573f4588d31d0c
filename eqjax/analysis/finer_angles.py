"""The symmetry test of elements that pixels do not follow exactly.

For a rotation by 45 degrees the gradient at the moved images is not the moved gradient:
sampling and interpolation leave a part of it between them, always in the same
direction, which a test of many samples would take for a broken symmetry. So images are
moved, and the same is done to all of them: each is turned by half of the finest angle
besides, r, so that whatever the element u, an image is interpolated once, between the
pixels, by r u. Under invariance all r u x have one distribution, and the draws of
blocks moved at random hold what interpolation does as the data themselves do.

Elements that move pixels onto pixels need no images of their own: with e one of these,
r u x = e r w x, and the gradient there is that at r w x, moved by e. There are as many
images r w x as cosets of the exact elements: two for D8, four for D16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from eqjax.groups.angles import planar
from eqjax.groups.group import Group
from eqjax.groups.matrices import is_exact, key
from eqjax.kernels.tied import Table


@dataclasses.dataclass(frozen=True)
class Turns:
    """How every element, after half of the finest turn, is an exact one after others.

    Attributes:
      images: (classes, 2, 2), the matrices r w that images are moved by.
      exact: (order,) the position of e among the elements, for every element.
      image: (order,) the number of r w.
    """

    images: np.ndarray
    exact: np.ndarray
    image: np.ndarray


def turns_of(whole: Group) -> Turns:
    """Return the images that a group of the plane needs, each element's among them.

    >>> from eqjax.groups import cyclic, dihedral
    >>> [len(turns_of(G).images) for G in (dihedral(8), dihedral(16), cyclic(3))]
    [2, 4, 3]
    """
    finest = sum(np.linalg.det(matrix) > 0 for matrix in whole.matrices)
    half = planar(Fraction(1, 2 * int(finest)))
    images: list[np.ndarray] = []
    found: dict[bytes, tuple[int, int]] = {}
    places = []
    for matrix in whole.matrices:
        target = half @ matrix
        if key(target) not in found:
            for position, exact in enumerate(whole.matrices):
                if is_exact(exact):
                    found[key(exact @ target)] = position, len(images)
            images.append(target)
        places.append(found[key(target)])
    exact, image = np.array(places).T
    return Turns(np.stack(images), exact, image)


@dataclasses.dataclass(frozen=True, eq=False)
class TurnedBlocks:
    """The gradients of a layer at turned images.

    Attributes:
      gradients: (images, blocks, entries, channels).
      table: how the whole group moves them.
      whole: the group.
      turns: which image each element needs.
      memory: bytes that a step may take.
    """

    gradients: np.ndarray
    table: Table
    whole: Group
    turns: Turns
    memory: int

    def products(self, group: Group, moved: np.ndarray) -> np.ndarray:
        """Return (1 + draws, order): <m, w . m> of the moved means, for every w.

        Args:
          group: that blocks are moved by, a subgroup of the whole.
          moved: (1 + draws, blocks), positions among its elements.
        """
        place = np.array([self.whole.elements.index(u) for u in group.elements])
        size = self.gradients[0, 0].nbytes
        step = max(1, self.memory // (4 * size))
        parts = np.split(moved, range(step, len(moved), step))
        return np.concatenate([self._products(place, place[part]) for part in parts])

    def _products(self, place: np.ndarray, elements: np.ndarray) -> np.ndarray:
        count, blocks = elements.shape
        flat = self.gradients.reshape(-1, *self.gradients.shape[2:])
        vectors = flat.reshape(len(flat), -1)
        exact = self.turns.exact[elements]
        vector = self.turns.image[elements] * blocks + np.arange(blocks)
        means = np.zeros((count, *flat.shape[1:]), np.float32)
        for position in np.unique(exact):
            draws, own = np.nonzero(exact == position)
            chosen = np.zeros((count, len(flat)), np.float32)
            chosen[draws, vector[draws, own]] = 1 / blocks
            part = (chosen @ vectors).reshape(means.shape)
            means += self.table.moved(part, int(position))
        rows = means.reshape(count, -1)
        found = np.zeros((count, len(place)))
        for number, w in enumerate(place):
            moved = self.table.moved(means, int(w)).reshape(count, -1)
            found[:, number] = np.einsum("dn,dn->d", rows, moved)
        return found


def without_common_part(gradients: np.ndarray, table: Table, order: int) -> np.ndarray:
    """Return (..., entries, channels) less what all elements leave as it is."""
    mean = sum(table.moved(gradients, i) for i in range(order)) / order
    return np.asarray(gradients - mean, np.float32)


def turned_samples(
    blocks: Sequence[tuple[np.ndarray, Any]],
    matrix: np.ndarray,
    move: Callable[[Any, np.ndarray], np.ndarray],
) -> list[tuple[np.ndarray, Any]]:
    """Return blocks of samples and labels, all samples moved by one matrix."""
    return [(move(x, matrix), y) for x, y in blocks]
