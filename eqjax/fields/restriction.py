"""Regular fields over a group, read as regular fields over a subgroup."""

from __future__ import annotations

import jax
import numpy as np

from eqjax.groups.group import Group


def restrict(x: jax.Array, *, group: Group) -> jax.Array:
    """Read a regular field over an ambient group as one over a subgroup alone.

    The numbers stay what they are: there are fewer fiber elements with more channels.
    Within one ambient group nothing need be restricted, a layer tied to a subgroup
    reads the field as it is; this is for layers behind that know the subgroup alone, as
    where a network goes from angles that pixels approximate to right angles.

    Args:
      x: (batch, *space, |ambient|, channels).
      group: the subgroup H.

    Returns:
      (batch, *space, |H|, channels |ambient| / |H|), a regular field over
      `group.alone`.

    Raises:
      ValueError: x is no regular field over the ambient group.

    >>> import jax.numpy as jnp
    >>> import eqjax as eq
    >>> C4 = eq.dihedral(8).subgroup("C4")
    >>> restrict(jnp.ones((2, 9, 9, 16, 3)), group=C4).shape
    (2, 9, 9, 4, 12)
    """
    ambient = group.ambient
    if x.ndim != group.dimension + 3 or x.shape[-2] != ambient.order:
        raise ValueError(
            f"expected a regular field (batch, {group.dimension} spatial axes, "
            f"{ambient.order}, channels) over {ambient!r}, got shape {x.shape}"
        )
    members = ambient.product[list(group.elements)]  # (|H|, |G|): h g
    first = np.unique(members.min(0))  # one element of every coset H g
    read = x[..., members[:, first], :]
    return read.reshape(*x.shape[:-2], group.order, len(first) * x.shape[-1])
