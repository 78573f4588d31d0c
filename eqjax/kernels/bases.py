"""How bases of the kernels that commute with a group are found.

For finite groups by the stabilizer of one tap of every orbit, for those of infinite
order by functions of space that are sampled on the taps: see
`eqjax.kernels.intertwiners`, which lays them out as a table.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eqjax.fields.fiber import Fiber
from eqjax.fields.irreps import IrrepsFiber, representations
from eqjax.groups.closed import ClosedGroup, Symmetry, finite_matrices
from eqjax.kernels.orbits import tap_offsets, tap_permutations

Representation = Fiber | IrrepsFiber
Kind = str | Fiber  # an irrep, or a set that is permuted

_KEPT = 1e-6  # length of what is left of a unit vector that a basis does not hold yet
_FIXED = 1e-9  # |(u - 1) v|^2 of unit vectors that all generators keep


def bases(
    group: Symmetry,
    kernel_size: tuple[int, ...],
    kinds: tuple[Kind, ...],
    rings: int | None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return orthonormal bases of the arrays over taps and kinds that commute.

    Args:
      group: a group of signed permutations, or a closed subgroup of O(3).
      kernel_size: taps per axis; () for none.
      kinds: an irrep, or a set that is permuted, for every fiber.
      rings: as in `intertwiner_table`.

    Returns:
      Numbers of the taps (n,) that a basis is about, and the basis, (n * product of
      the sizes of the kinds, coordinates), for each set of taps.
    """
    if isinstance(group, ClosedGroup) and finite_matrices(group) is None:
        return _sampled(group, kernel_size, kinds, rings)
    return _by_orbits(group, kernel_size, kinds)


def blocks(
    fibers: tuple[Representation, ...],
) -> Iterator[tuple[tuple[Kind, ...], tuple[np.ndarray, ...]]]:
    """Yield what the fibers are made of, one kind of each, and where that is.

    The places are an open mesh: copies of each fiber, then components of each.
    """
    parts = []
    for axis, fiber in enumerate(fibers):
        begin = 0
        own = []
        for copies, kind, size in _kinds(fiber):
            shape = [1] * (2 * len(fibers))
            shape[axis], shape[len(fibers) + axis] = copies, size
            place = np.arange(begin, begin + copies * size).reshape(shape)
            own.append((kind, place))
            begin += copies * size
        parts.append(own)
    for chosen in itertools.product(*parts):
        kinds, places = zip(*chosen, strict=True)
        yield kinds, places


def _kinds(fiber: Representation) -> tuple[tuple[int, Kind, int], ...]:
    if isinstance(fiber, IrrepsFiber):
        return fiber.blocks
    return ((1, fiber, fiber.size),)


def sizes(kinds: tuple[Kind, ...]) -> tuple[int, ...]:
    """Return how many components every kind has."""
    return tuple(_as_fiber(kind).size for kind in kinds)


def _as_fiber(kind: Kind) -> Representation:
    return IrrepsFiber(kind) if isinstance(kind, str) else kind


def matrices_of(fiber: Representation, elements: np.ndarray) -> np.ndarray:
    """Return (count, size, size), what elements do to columns over a fiber."""
    if isinstance(fiber, IrrepsFiber):
        return representations(fiber.irreps, elements)
    same = (fiber.ambient.matrices == elements[:, None]).all((2, 3))
    return np.eye(fiber.size)[fiber.action[same.argmax(1)]].transpose(0, 2, 1)


def _products(kinds: tuple[Kind, ...], matrices: np.ndarray) -> np.ndarray:
    """Return (count, n, n): the Kronecker product over the kinds, per matrix."""
    own = [matrices_of(_as_fiber(kind), matrices) for kind in kinds]
    return np.stack(
        [functools.reduce(np.kron, each) for each in zip(*own, strict=True)]
    )


@functools.lru_cache(maxsize=256)
def _by_orbits(
    group: Symmetry, kernel_size: tuple[int, ...], kinds: tuple[Kind, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return taps of every orbit, and the basis of what commutes there."""
    matrices: Any = finite_matrices(group)
    taps = tap_permutations(matrices, kernel_size)
    acting = _products(kinds, matrices)
    found = []
    for tap in np.unique(taps.min(0)):
        orbit, carried_by = np.unique(taps[:, tap], return_index=True)
        keeping = acting[taps[:, tap] == tap]
        basis = _orthonormal(keeping.mean(0))
        everywhere = np.concatenate([acting[u] @ basis for u in carried_by])
        found.append((orbit, everywhere / len(orbit) ** 0.5))
    return found


def _sampled(
    group: ClosedGroup,
    kernel_size: tuple[int, ...],
    kinds: tuple[Kind, ...],
    rings: int | None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return all taps, and a basis of functions of space sampled there."""
    offsets = tap_offsets(kernel_size) / 2
    radius = np.linalg.norm(offsets, axis=-1)
    largest = sum(int(str(kind)[:-1]) for kind in kinds) if kernel_size else 0
    taps = np.arange(len(offsets))
    columns = []
    for degree in range(largest + 1):
        harmonic = f"{degree}{'e' if degree % 2 == 0 else 'o'}"
        acting = _products((harmonic, *kinds), group.generators)
        shape = (2 * degree + 1, math.prod(sizes(kinds)), -1)
        tensors = _fixed(acting).reshape(shape)
        values = _harmonics(harmonic, offsets)
        if degree:
            values = np.where(radius[:, None] > 0, values, 0)
        radial = _radial(radius, rings, (max(kernel_size, default=1) - 1) / 2)
        sampled = np.einsum("yr,ym,min->yirn", radial, values, tensors)
        columns.append(sampled.reshape(len(taps) * tensors.shape[1], -1))
    return [(taps, _orthonormal(np.concatenate(columns, 1)))]


def _radial(radius: np.ndarray, rings: int | None, end: float) -> np.ndarray:
    """Return (taps, functions): one for each distance, or Gaussians around rings."""
    if rings is None:
        distances = np.unique(np.round(radius, 9))
        return np.isclose(radius[:, None], distances).astype(float)
    import e3nn_jax

    with jax.enable_x64(True), jax.ensure_compile_time_eval():  # noqa: FBT003
        found = e3nn_jax.soft_one_hot_linspace(
            jnp.asarray(radius),
            start=0.0,
            end=end,
            number=rings,
            basis="gaussian",
            cutoff=False,
        )
        return np.asarray(found)


def _harmonics(irrep: str, offsets: np.ndarray) -> np.ndarray:
    """Return (taps, 2l + 1), spherical harmonics of the directions."""
    import e3nn_jax

    with jax.enable_x64(True), jax.ensure_compile_time_eval():  # noqa: FBT003
        points = e3nn_jax.IrrepsArray("1o", jnp.asarray(offsets, jnp.float64))
        found = e3nn_jax.spherical_harmonics(irrep, points, normalize=True)
        return np.asarray(found.array)


def _fixed(acting: np.ndarray) -> np.ndarray:
    """Return (n, k): a basis of the vectors that all (count, n, n) matrices keep."""
    moved = acting - np.eye(acting.shape[-1])
    square = np.einsum("uki,ukj->ij", moved, moved)
    lengths, vectors = np.linalg.eigh(square)
    kept = vectors[:, lengths < _FIXED]
    return _orthonormal(kept @ kept.T)


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of what columns span, the same on every machine.

    By Gram-Schmidt in the order of the columns, twice for accuracy: an eigenbasis would
    be whatever the machine's library makes of equal eigenvalues.
    """
    found = np.zeros((len(columns), 0))
    for column in columns.T:
        length = np.linalg.norm(column)
        if length < _KEPT:
            continue
        rest = column / length
        for _ in range(2):
            rest = rest - found @ (found.T @ rest)
        left = np.linalg.norm(rest)
        if left > _KEPT:
            found = np.column_stack([found, rest / left])
    return np.where(np.abs(found) < np.finfo(float).eps, 0, found)
