"""Which group a learned sharing is nearest to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from eqjax.constraints.sharing import LearnedSharing, partition_distance
from eqjax.layers.base import TiedModule
from eqjax.morphism.matching import flat_variables, tied_model
from eqjax.morphism.report import LayerTable


def sharing_distances(
    variables: Mapping[str, Any],
    *,
    model: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
) -> LayerTable:
    """Return how far the learned sharing of every layer is from each group.

    That is the distance between two partitions of the kernel's entries, by their rows
    of the learned matrix and by their orbits (`eq.partition_distance`): the smallest
    number of entries that belong elsewhere, 0 where the orbits were found. Of layers
    stacked by `nn.scan` or `nn.vmap` it is the sum.

    Args:
      variables: of the model, concrete.
      model: any linen model with layers of `constraint=eq.LearnedSharing()`.
      inputs: as in `eq.mixtures`.
      call_kwargs: as in `eq.mixtures`.

    Returns:
      A row for every such layer, a column for every subgroup of its group.

    >>> import jax, jax.numpy as jnp
    >>> import eqjax as eq
    >>> flip = eq.dihedral(4).subgroup("D1:i")
    >>> layer = eq.LiftingConv(1, 3, group=flip, constraint=eq.LearnedSharing())
    >>> x = jnp.ones((1, 6, 6, 1))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> dict(sharing_distances(variables, model=layer, inputs=x)[()])
    {'D1:i': 0, 'C1': 36}
    """
    traced = tied_model(model, inputs, call_kwargs)
    flat = flat_variables(variables)
    found = LayerTable()
    for path, layer in traced.layers.items():
        if isinstance(layer.constraint, LearnedSharing):
            found[path] = _distances(layer, layer.constraint, traced.own(path, flat))
    return found


def _distances(
    layer: TiedModule,
    constraint: LearnedSharing,
    own: Mapping[tuple[str, str], Any],
) -> dict[str, int]:
    matrices = {name: value for (_, name), value in own.items()}
    tables = {
        n: tie.orbits for n, tie in layer.ties_of(layer.group).items() if tie.maps
    }
    found = {}
    chosen = {}
    for name, table in tables.items():
        if constraint.name_of(name) not in matrices:
            raise ValueError(f"the variables lack {constraint.name_of(name)}")
        added = np.asarray(matrices[constraint.name_of(name)])
        stacked = added.reshape(-1, *added.shape[-2:])
        chosen[name] = [constraint.assignment(each, table) for each in stacked]
    for group in layer.group.ambient.subgroups:
        if group <= layer.group:
            orbits = layer.ties_of(group)
            found[group.name] = sum(
                partition_distance(labels, orbits[name].orbits.index)
                for name, each in chosen.items()
                for labels in each
            )
    return found
