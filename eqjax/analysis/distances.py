"""How far every layer's kernel is from commuting with each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from eqjax.groups.axes import preserving_subgroup
from eqjax.groups.checks import check_group
from eqjax.groups.group import Group
from eqjax.kernels.tied import distance
from eqjax.morphism.matching import flat_variables, tied_model
from eqjax.morphism.report import LayerTable


def distances(
    variables: Mapping[str, Any],
    *,
    model: nn.Module,
    inputs: Any,
    groups: Sequence[Group] | None = None,
    call_kwargs: Mapping[str, Any] | None = None,
) -> LayerTable:
    """Return how far every layer's kernel is from commuting with each group.

    |K - P K| / |K| with P the Reynolds projection onto the kernels that commute; 0 for
    a kernel that does. K is what the layer convolves with, whatever its constraint.

    Args:
      variables: of the model.
      model: any linen model with convolutions of eqjax.
      inputs: an input of the model, or a tuple of call arguments; shapes are enough.
      groups: the groups to measure to; if None, all subgroups of the ambient group
        that map the taps to themselves.
      call_kwargs: keyword arguments of the model's call.

    Returns:
      By path of the layer and name of the group; layers stacked by `nn.scan` have one
      number each. Prints as a table.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=())
    >>> x = jax.ShapeDtypeStruct((2, 8, 8, 1), float)
    >>> variables = jax.jit(model.init)(jax.random.key(0), jax.numpy.ones(x.shape))
    >>> distances(variables, model=model, inputs=x, groups=D4.subgroups[:2])
    layer  D4  C4
    conv1  0   0
    head   0   0
    """
    for group in groups or ():
        check_group("groups", group, closed=True)
    found = tied_model(model, inputs, call_kwargs)
    flat = flat_variables(variables)
    ledger = LayerTable()
    for path, layer in found.layers.items():
        if "kernel" not in layer.tables:
            continue
        ambient = layer.group.ambient
        possible = preserving_subgroup(ambient, layer.taps)
        fitting = tuple(H for H in ambient.subgroups if possible >= H)
        chosen = fitting if groups is None else groups
        tables = {H.name: layer.ties_of(H)["kernel"].table for H in chosen}

        def measure(variables, layer=layer, tables=tables):
            kernel = layer.read(variables)["kernel"]
            return {name: distance(kernel, table) for name, table in tables.items()}

        for _ in range(found.stacked_axes(path)):
            measure = jax.vmap(measure)
        ledger[path] = measure(found.own(path, flat))
    return ledger
