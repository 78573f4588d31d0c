"""The action of group elements on full kernels.

With a field transformed as (u . f)(p, a) = f(u^-1 p, u^-1 a), the kernel of u . K is

    (u . K)(y, h, g) = K(u^-1 y, u^-1 h, u^-1 g),

the kernel of the layer that first undoes u, then convolves with K, then does u. A
kernel is tied to a group exactly when every element of the group leaves it as it is.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Inexact

from eqjax.fields.action import element_position
from eqjax.fields.fiber import Fiber
from eqjax.groups.group import Group
from eqjax.kernels.orbits import kernel_table


def transform_kernel(
    full: Inexact[Array, "... fiber_in fiber_out c_in c_out"],
    u: int | Array,
    *,
    group: Group,
    fiber_in: Fiber,
    fiber_out: Fiber,
) -> Inexact[Array, "... fiber_in fiber_out c_in c_out"]:
    """Act on a full kernel: (u . K)(y, h, g) = K(u^-1 y, u^-1 h, u^-1 g).

    Args:
      full: (*taps, fiber_in, fiber_out, c_in, c_out).
      u: an element number in the ambient group, one of `group.elements`; it may be
        traced.
      group: the group that u belongs to; it must map the taps to themselves.
      fiber_in: the fiber that the kernel reads.
      fiber_out: the fiber that the kernel writes.

    Returns:
      An array of the shape of K.

    Raises:
      ValueError: u does not belong to the group, the shape does not fit, the group does
        not map the taps to themselves, or a fiber belongs to another ambient group.

    >>> import jax.numpy as jnp
    >>> from eqjax.fields import regular, trivial
    >>> from eqjax.groups import dihedral
    >>> D4 = dihedral(4)
    >>> fibers = {"fiber_in": trivial(D4), "fiber_out": regular(D4)}
    >>> kernel = jnp.ones((3, 3, 1, 8, 1, 2))
    >>> transform_kernel(kernel, 1, group=D4, **fibers).shape
    (3, 3, 1, 8, 1, 2)
    """
    position = element_position(group, u)
    *taps, size_in, size_out = full.shape[:-2]
    if (size_in, size_out) != (fiber_in.size, fiber_out.size):
        raise ValueError(
            f"expected a full kernel (*taps, {fiber_in.size}, {fiber_out.size}, c_in, "
            f"c_out), got shape {full.shape}"
        )
    sources = kernel_table(group, tuple(taps), fiber_in, fiber_out).sources
    source = jnp.asarray(sources)[position]
    return full.reshape(-1, *full.shape[-2:])[source].reshape(full.shape)
