"""Images whose channels transform with the group: vectors, tensors, pseudoscalars.

An optical flow, a velocity field or a diffusion tensor is a field whose values
transform under a representation rho of O(3): (u . f)(p) = rho(u) f(u^-1 p). Reading
them in the frame of every group element gives scalars per fiber element,

    lift(f)(p, a) = rho(a)^-1 f(p),

on which u acts as on any regular field.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from eqjax.groups.group import Group


def lift_irreps(x: jax.Array, irreps: str, *, group: Group) -> jax.Array:
    """Turn an image with values in irreps of O(3) into a regular field.

    Args:
      x: (batch, *space, irreps.dim), channels laid out as e3nn-jax has them; "1o" is a
        vector with components in array axis order.
      irreps: such as "1o" for a vector or "0e + 1o + 2e".
      group: a subgroup of the ambient group that acts on a volume.

    Returns:
      (batch, *space, |ambient|, irreps.dim).

    Raises:
      ValueError: the group does not act on a volume, or the channels do not fit.
    """
    if group.dimension != 3:
        raise ValueError(f"irreps of O(3) need a group of a volume, got {group!r}")
    frames = _frames(group.ambient, irreps)
    if x.ndim != 5 or x.shape[-1] != frames.shape[-1]:
        raise ValueError(
            f"expected (batch, 3 spatial axes, {frames.shape[-1]}) for irreps "
            f"{irreps!r}, got shape {x.shape}"
        )
    return jnp.einsum("...j,uij->...ui", x, jnp.asarray(frames, x.dtype))


@functools.cache
def _frames(ambient: Group, irreps: str) -> np.ndarray:
    """Return (|ambient|, dim, dim), rho(u)^-1 for every element u."""
    import e3nn_jax  # takes seconds to import

    rho = e3nn_jax.Irreps(irreps)
    with jax.ensure_compile_time_eval():
        matrices = [
            np.asarray(rho.D_from_matrix(jnp.asarray(m, float)))
            for m in ambient.matrices
        ]
    return np.stack(matrices)[ambient.inverse]
