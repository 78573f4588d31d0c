"""Real channels as fiber elements and channels: both ways, and which goes where."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from eqjax import kernels
from eqjax.fields.fiber import Fiber
from eqjax.layers import norms
from eqjax.layers.base import TiedModule
from eqjax.layers.conv import GroupConv, merge_fiber, split_fiber


def split_of(layer: TiedModule) -> int:
    """Return into how many parts channels are split before fibers are merged."""
    if isinstance(layer, norms.GroupNorm):
        return layer.num_groups
    return getattr(layer, "feature_group_count", 1)


def real_arrays(
    layer: TiedModule, full: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Return full arrays as a plain layer has them.

    Args:
      layer: a convolution or a norm.
      full: by name, as from `layer.read`: a kernel (*taps, fiber_in, fiber_out, c_in,
        c_out), and a bias, scale or offset (fiber, channels).

    Returns:
      By the same names, a kernel (*taps, fiber_in c_in, fiber_out c_out) and vectors
      (fiber channels,), in the order of real channels that the plain layer works in.
    """
    split = split_of(layer)
    found = {}
    for name, array in full.items():
        if name == "kernel":
            assert isinstance(layer, GroupConv)
            found[name] = kernels.convolution_layout(layer.sampled(array), split)
        else:
            found[name] = merge_fiber(array, split)
    return found


def full_arrays_of(
    layer: TiedModule, real: Mapping[str, jax.Array], split: int | None = None
) -> dict[str, jax.Array]:
    """Undo `real_arrays`: full arrays of a layer from those of a plain one.

    Args:
      layer: a convolution or a norm.
      real: kernels (*taps, in / feature groups, out) and vectors (fiber channels,).
      split: into how many parts channels are split; that of the layer if None.
    """
    split = split_of(layer) if split is None else split
    found = {}
    for name, array in real.items():
        shape = layer.ties_of(layer.group)[name].table.shape
        target = shape[-1]
        if name != "kernel":
            found[name] = split_fiber(array, target, split)
            continue
        assert isinstance(layer, GroupConv)
        source = shape[-2]
        *taps, real_in, real_out = array.shape
        wide = split_fiber(array, target, split)  # (*taps, in, fiber_out, c_out)
        wide = wide.reshape(
            *taps, source, real_in // source, target, real_out // target
        )
        found[name] = layer.fitted(wide.swapaxes(-3, -2))
    return found


def fields_last(real: int, fiber: int) -> np.ndarray:
    """Return the places, fields outermost, of channels with elements outermost."""
    return np.arange(real).reshape(real // fiber, fiber).T.reshape(-1)


def matched_order(
    layer: GroupConv, weights: np.ndarray, rounds: int = 20
) -> np.ndarray:
    """Return an order of the real output channels with a small remainder.

    Args:
      layer: without feature groups, which would keep channels apart.
      weights: (*taps, in, out).
      rounds: at most so many assignments.

    Returns:
      (out,): the channel that goes to each place.
    """
    from scipy.optimize import linear_sum_assignment

    if layer.feature_group_count != 1:
        raise ValueError("channels in feature groups are not matched; use 'as given'")
    real_out = weights.shape[-1]
    fiber = layer.fibers[1]
    if not isinstance(fiber, Fiber):
        raise ValueError("channels are matched over fibers that the group permutes")
    table = layer.ties_of(layer.group)["kernel"].numbered
    elements = layer.group.order
    channels = real_out // fiber.size
    flat = np.asarray(weights, np.float64).reshape(-1, real_out)
    squares = (flat**2).sum(0)

    def averaged(real: np.ndarray, over: float) -> np.ndarray:
        """Return the sum of what each element makes of a kernel, (entries, out)."""
        full = full_arrays_of(layer, {"kernel": jnp.asarray(real)})["kernel"]
        each = jnp.broadcast_to(full, (elements, *full.shape))
        moved = table.transformed(each).sum(0) / over
        back = real_arrays(layer, {"kernel": moved})["kernel"]
        return np.asarray(back, np.float64).reshape(-1, real_out)

    def wanted(order: np.ndarray) -> np.ndarray:
        """Return the orbit mean of the kernel in an order."""
        return averaged(weights[..., order], elements)

    def assigned(target: np.ndarray) -> np.ndarray:
        """Return the channel of each place whose kernels are nearest together."""
        distance = squares[:, None] + (target**2).sum(0) - 2 * flat.T @ target
        return linear_sum_assignment(distance.T)[1]

    # Begin with the channels that are given first as the first element's, and let each
    # other place have what is nearest to the moved channel of its orbit.
    orbits = fiber.action[list(layer.group.elements)].min(0)
    alone = np.zeros_like(weights, np.float64)
    for orbit in np.unique(orbits):
        first = np.flatnonzero(orbits == orbit)[0] * channels
        alone[..., first : first + channels] = weights[..., first : first + channels]
    order = assigned(averaged(alone, 1))
    best = np.arange(real_out)
    left = _left(flat, best, wanted(best))
    for _ in range(rounds):
        target = wanted(order)
        now = _left(flat, order, target)
        if now >= left:
            break
        best, left = order, now
        order = assigned(target)
    return best


def _left(flat: np.ndarray, order: np.ndarray, target: np.ndarray) -> float:
    return float(((flat[:, order] - target) ** 2).sum())
