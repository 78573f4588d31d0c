"""Nonlinearities for fields of irreps: scalars by a function, the rest by gates."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from eqjax.fields.irreps import IrrepsFiber

Function = Callable[[jax.Array], jax.Array]


def gate(
    x: jax.Array,
    irreps: str,
    *,
    even: Function = jax.nn.silu,
    odd: Function = jnp.tanh,
    gates: Function = jax.nn.sigmoid,
    axis: int = -1,
) -> jax.Array:
    """Apply functions to scalars, and multiply vectors and tensors by scalars.

    A function of the components of a vector would not turn with it; its product with a
    scalar does (Weiler et al. 2018). The last even scalars are the gates, one for each
    vector or tensor, in their order. For e3nn-jax's own arrays there is
    `e3nn_jax.gate`; this one is for fields of a plane, too.

    Args:
      x: components of irreps along an axis, as layers return them.
      irreps: of x, such as "16x0e + 4x0e + 4x1" for 16 scalars, and 4 vectors with
        their gates; what is returned are `gated(irreps)`.
      even: of scalars that are no gates.
      odd: an odd function, of scalars that change sign under reflections.
      gates: of the gates.
      axis: of the components.

    Raises:
      ValueError: there are fewer even scalars than vectors and tensors.

    >>> x = jnp.ones((1, 6, 6, 3 + 2 * 2))
    >>> gate(x, "3x0e + 2x1").shape, gated("3x0e + 2x1")
    ((1, 6, 6, 5), '1x0e+2x1')
    """
    fiber = IrrepsFiber(irreps)
    if x.shape[axis] != fiber.size:
        raise ValueError(
            f"expected {fiber.size} components of {fiber.irreps} along axis {axis}, "
            f"got shape {x.shape}"
        )
    x = jnp.moveaxis(x, axis, -1)
    kept, controls, rest = [], [], []
    free = _free_scalars(fiber)
    begin = 0
    for copies, irrep, size in fiber.blocks:
        part = x[..., begin : begin + copies * size]
        begin += copies * size
        if irrep == "0e":
            own = min(free, copies)
            free -= own
            kept.append(even(part[..., :own]))
            controls.append(part[..., own:])
        elif irrep == "0o":
            kept.append(odd(part))
        else:
            kept.append(part.reshape(*part.shape[:-1], copies, size))
            rest.append(len(kept) - 1)
    control = gates(jnp.concatenate(controls, -1)) if controls else None
    begin = 0
    for place in rest:
        copies = kept[place].shape[-2]
        assert control is not None
        scaled = kept[place] * control[..., begin : begin + copies, None]
        kept[place] = scaled.reshape(*scaled.shape[:-2], -1)
        begin += copies
    return jnp.moveaxis(jnp.concatenate(kept, -1), -1, axis)


def gated(irreps: str) -> str:
    """Return the irreps that `gate` leaves: all but the gates.

    >>> gated("16x0e + 4x0e + 4x1")
    '16x0e+4x1'
    """
    fiber = IrrepsFiber(irreps)
    free = _free_scalars(fiber)
    found = []
    for copies, irrep, _ in fiber.blocks:
        own = copies
        if irrep == "0e":
            own = min(free, copies)
            free -= own
        if own:
            found.append(f"{own}x{irrep}")
    return "+".join(found)


def _free_scalars(fiber: IrrepsFiber) -> int:
    """Return how many even scalars are no gates."""
    scalars = sum(copies for copies, irrep, _ in fiber.blocks if irrep == "0e")
    needed = sum(copies for copies, _, size in fiber.blocks if size > 1)
    if scalars < needed:
        raise ValueError(
            f"{fiber.irreps} have {needed} vectors and tensors, which need as many "
            f"even scalars (0e) for gates, and {scalars} of these"
        )
    return scalars - needed
