"""Gradients by the full kernels of a model's layers, for many blocks of samples.

The full kernel of a layer is no parameter; it is made of some. So zeros are added to
it, from a collection `probes`, and the loss is differentiated by these: whatever the
constraint of the layer, no model is built anew.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from eqjax.constraints.collections import PROBES
from eqjax.groups.closed import Symmetry, exact_part
from eqjax.groups.group import Group
from eqjax.kernels.orbits import OrbitTable
from eqjax.kernels.tied import Table
from eqjax.layers.base import TiedModule
from eqjax.morphism.matching import Path, TiedModel, flat_variables, show
from eqjax.training.checks import check_labels
from eqjax.training.losses import LossFn, count_classes, measure

BLOCKS = 200  # of samples, where there are enough of them


@dataclasses.dataclass(frozen=True)
class ProbedLayer:
    """A layer with a kernel.

    Attributes:
      path: of the layer.
      layer: the module, unbound.
      shape: of its full kernel, (*taps, fiber_in, fiber_out, c_in, c_out).
    """

    path: Path
    layer: TiedModule
    shape: tuple[int, ...]

    @property
    def own_group(self) -> Group:
        """The group that the layer commutes with, whatever its parameters.

        Of closed groups, the symmetries of the cube or the square that they hold.
        """
        group = self.layer.constraint.symmetry(self.layer.group)
        return group if isinstance(group, Group) else exact_part(group)

    @property
    def taps(self) -> tuple[int, ...]:
        """Taps per spatial axis; none of a map at every point."""
        return getattr(self.layer, "taps", self.shape[:-4])

    @property
    def size(self) -> int:
        """How many numbers a gradient has."""
        return int(np.prod(self.shape))

    def table(self, group: Symmetry) -> Table:
        """Return which kernels commute with a group."""
        return self.layer.ties_of(group)["kernel"].table

    def orbits(self, group: Group) -> OrbitTable:
        """Return the same, where they are orbits; raise ValueError if not."""
        return self.layer.ties_of(group)["kernel"].orbits

    @property
    def channels(self) -> int:
        """How many numbers an entry has."""
        return self.shape[-2] * self.shape[-1]

    def gradient(self, found: np.ndarray) -> np.ndarray:
        """Return a gradient as (entries, channels)."""
        return found.reshape(-1, self.channels)


def probed_layers(
    found: TiedModel, variables: Mapping[str, Any]
) -> tuple[ProbedLayer, ...]:
    """Return the layers of a model that have a kernel, in the order of their calls.

    Raises:
      ValueError: there is none, or one is stacked by `nn.scan` or `nn.vmap`.
    """
    flat = flat_variables(variables)
    layers = []
    for path, layer in found.layers.items():
        if "kernel" not in layer.tables:
            continue
        if found.stacked_axes(path):
            raise ValueError(
                f"{show(path)} is stacked by nn.scan or nn.vmap, and one kernel of "
                "many has no gradient of its own; write the layers out"
            )
        kernel = jax.eval_shape(
            lambda own, layer=layer: layer.read(own)["kernel"], found.own(path, flat)
        )
        layers.append(ProbedLayer(path, layer, kernel.shape))
    if not layers:
        raise ValueError(
            "the model has no layer of eqjax with a kernel, such as eq.GroupConv, so "
            "that no group is tied to it; eq.relax and eq.EquivariantCNN say how"
        )
    return tuple(layers)


def check_classes(variables, model, x, y, loss_fn, call_kwargs) -> None:
    """Raise ValueError where a label is not one of the model's classes."""
    outputs = jax.eval_shape(
        lambda v, x: model.apply(v, x, **(call_kwargs or {})), variables, x[:1]
    )
    if (classes := count_classes(loss_fn, outputs)) is not None:
        check_labels(y, len(x), classes)


def default_block_size(samples: int) -> int:
    """Return how many samples a block has, where there are to be 200 blocks."""
    return max(1, samples // BLOCKS)


def shuffled_blocks(
    x: Any, y: Any, size: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, Any]]:
    """Return samples in shuffled blocks of a size; those that are left over are not."""
    if size > len(x):
        raise ValueError(f"block_size must be at most {len(x)}, got {size}")
    order = rng.permutation(len(x))[: len(x) // size * size].reshape(-1, size)
    return [
        (np.asarray(x[part]), jax.tree.map(lambda leaf, i=part: np.asarray(leaf)[i], y))
        for part in np.sort(order, 1)
    ]


def block_gradients(
    variables: Mapping[str, Any],
    layers: Sequence[ProbedLayer],
    blocks: Sequence[tuple[Any, Any]],
    *,
    model: nn.Module,
    loss_fn: LossFn,
    call_kwargs: Mapping[str, Any] | None = None,
) -> list[np.ndarray]:
    """Return the gradients of the mean loss of every block, in evaluation mode.

    Args:
      variables: of the model.
      layers: by whose kernels to differentiate.
      blocks: pairs (x, y) of equal shapes.
      model: called as model(x).
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`.
      call_kwargs: keyword arguments of the model's call.

    Returns:
      Per layer (blocks, entries, channels), float32.

    Raises:
      ValueError: a gradient is not finite.
    """
    found = [
        np.empty((len(blocks), each.size // each.channels, each.channels), np.float32)
        for each in layers
    ]
    keywords = tuple(sorted((call_kwargs or {}).items()))
    shapes = tuple((each.path, each.shape) for each in layers)
    settings: dict[str, Any] = {"model": model, "loss_fn": loss_fn}
    for number, (x, y) in enumerate(blocks):
        gradients = _gradients(
            variables, x, y, shapes=shapes, keywords=keywords, **settings
        )
        for each, stored, gradient in zip(layers, found, gradients, strict=True):
            stored[number] = each.gradient(np.asarray(gradient))
    for each, stored in zip(layers, found, strict=True):
        finite = np.array([bool(np.isfinite(own).all()) for own in stored])
        if not finite.all():
            raise ValueError(
                f"the gradient by the kernel of {show(each.path)} is not finite in "
                f"{int((~finite).sum())} of {len(finite)} blocks, first in block "
                f"{int(np.argmin(finite))}; does the network have finite weights, and "
                "the samples finite values?"
            )
    return found


@functools.partial(jax.jit, static_argnames=("model", "loss_fn", "shapes", "keywords"))
def _gradients(variables, x, y, *, model, loss_fn, shapes, keywords) -> list[Any]:
    def loss(probes: list[jax.Array]) -> jax.Array:
        paths = [(*path, "kernel") for path, _ in shapes]
        added = unflatten_dict(dict(zip(paths, probes, strict=True)))
        outputs: Any = model.apply({**variables, PROBES: added}, x, **dict(keywords))
        return jnp.mean(measure(loss_fn, outputs, y).loss)

    return jax.grad(loss)([jnp.zeros(shape, jnp.float32) for _, shape in shapes])


def in_memory(
    layers: Sequence[ProbedLayer], blocks: int, memory: int
) -> Iterator[Sequence[ProbedLayer]]:
    """Yield the layers in groups whose gradients fit in memory, one at the least."""
    waiting: list[ProbedLayer] = []
    for each in layers:
        together = sum(other.size for other in (*waiting, each))
        if waiting and 4 * blocks * together > memory:
            yield tuple(waiting)
            waiting = []
        waiting.append(each)
    if waiting:
        yield tuple(waiting)


def moved_by(gradients: np.ndarray, table: Table, position: int) -> np.ndarray:
    """Return u . g for (..., entries, channels), u at a position of a table's group."""
    return table.moved(gradients, position)


Move = Callable[[Any, Any], Any]  # (array, element) -> the array moved
TOLERANCE = 0.05  # of a gradient moved by an element that the network commutes with
HALF_TOLERANCE = 0.2  # where a layer computes in half precision


def whitening(gradients: np.ndarray, table: Table) -> np.ndarray:
    """Return (entries, channels): one over the root mean square of an orbit's entries.

    It is the same however blocks are moved, so that the test stays exact.
    """
    squares = np.mean(gradients**2, 0)
    cells = np.asarray(table.cells)
    size = np.bincount(cells)
    sums = np.zeros((len(size), squares.shape[-1]), np.float32)
    np.add.at(sums, cells, squares)
    means = (sums / size.clip(1)[:, None])[cells].astype(np.float32)
    return 1 / np.sqrt(means + means.mean() + np.finfo(np.float32).tiny)


def tolerance_of(layers: Sequence[ProbedLayer]) -> float:
    """Return the relative error of a moved gradient that is rounding in some layers."""
    kinds = [k for each in layers for k in (each.layer.dtype, each.layer.param_dtype)]
    half = any(kind is not None and jnp.finfo(kind).bits < 32 for kind in kinds)
    return HALF_TOLERANCE if half else TOLERANCE


def commuting_elements(
    variables: Mapping[str, Any],
    layers: Sequence[ProbedLayer],
    group: Group,
    sample: tuple[Any, Any],
    move_x: Move,
    move_y: Move,
    tolerance: float,
    **settings: Any,
) -> dict[int, float]:
    """Return the elements u for which the gradient at u . x is u . (the gradient at x).

    And all that move pixels between pixels: the test of these does not rely on it.

    Args:
      variables: of the model.
      layers: with a kernel.
      group: whose elements are tried.
      sample: x and y, a few.
      move_x: (x, u) -> u . x.
      move_y: (y, u) -> u . y.
      tolerance: relative to the norm of a gradient.
      **settings: as of `block_gradients`.

    Returns:
      The relative error of each, the largest of all layers.
    """
    x, y = sample
    blocks = [(move_x(x, u), move_y(y, u)) for u in group.elements]
    found = block_gradients(variables, layers, blocks, **settings)
    errors = np.zeros(group.order)
    for each, gradients in zip(layers, found, strict=True):
        size = np.linalg.norm(gradients[0])
        if size == 0:
            continue
        for i in range(group.order):
            expected = moved_by(gradients[0], each.table(group), i)
            error = np.linalg.norm(gradients[i] - expected) / size
            errors[i] = max(errors[i], error)
    allowed = np.where(group.exact, tolerance, np.inf)
    return {
        u: float(error)
        for u, error, limit in zip(group.elements, errors, allowed, strict=True)
        if error < limit
    }
