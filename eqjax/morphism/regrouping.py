"""Other groups for some layers of any model, chosen by path from outside.

A linen module builds its layers in code that nobody outside can change. `Regrouped`
runs that code and puts the chosen groups in at the moment a layer is bound to its path,
before it declares a parameter.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from eqjax.groups.group import Group
from eqjax.layers.base import TiedModule
from eqjax.morphism.matching import Path, show, tied_model
from eqjax.morphism.report import MorphReport
from eqjax.morphism.variables import morph


@dataclasses.dataclass(frozen=True)
class Code:
    """A model as a value: Flax would bind a module under a name of its own."""

    model: nn.Module


class Regrouped(nn.Module):
    """A model some of whose layers have another group than its code gives them.

    Called as the model is, with variables nested as the model's are; it may be trained,
    compiled, measured and relaxed again, as any linen module.

    Attributes:
      code: the model, any linen module that holds eqjax layers.
      groups: pairs of a layer's path and its group.
    """

    code: Code
    groups: tuple[tuple[Path, Group], ...]

    def setup(self):
        """Bind the model where this module is, without a level of its own."""
        bound = self.code.model.clone(parent=self.scope)
        object.__setattr__(self, "_bound", bound)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        chosen = {(*self.path, *path): group for path, group in self.groups}

        def regroup(call, args, kwargs, context):
            layer = context.module
            if isinstance(layer, TiedModule) and layer.scope is not None:
                # Bound layers are copies, made for one call of the model.
                group = chosen.get(layer.path, layer.group)
                object.__setattr__(layer, "group", group)
            return call(*args, **kwargs)

        with nn.intercept_methods(regroup):
            return self._bound(*args, **kwargs)


def relax(
    variables: Mapping[str, Any],
    *,
    model: nn.Module,
    groups: Mapping[str | Path, Group],
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Regrouped, MorphReport]:
    """Relax some layers of any model, named by their paths, and keep its function.

    The model's code need not know: it may fix the group of every layer. To carry the
    optimizer along, pass both models to `morph_optimizer`.

    Args:
      variables: of the model, as from `model.init`.
      model: any linen model that holds eqjax layers anywhere inside.
      groups: the new group of every layer to relax, a subgroup of the one that it has,
        by path, such as {"stage2/short": C4}.
      inputs: an input of the model, or a tuple of call arguments; shapes are enough.
      call_kwargs: keyword arguments of the model's call, such as {"train": False}.

    Returns:
      The variables, the model that they belong to, and a report of what changed. The
      model is called as the old one, and is relaxed again in the same way.

    Raises:
      ValueError: there is no such layer, the message names the nearest; or the group
        is not a subgroup of the layer's.

    >>> import jax, jax.numpy as jnp
    >>> from eqjax.groups import dihedral
    >>> from eqjax.layers import GroupConv, InvariantHead
    >>> D4 = dihedral(4)
    >>> model = nn.Sequential([GroupConv(2, 3, group=D4), InvariantHead(3, group=D4)])
    >>> x = jnp.ones((1, 4, 4, 8, 1))
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> C4 = {"layers_1": D4.subgroup("C4")}
    >>> relaxed, new, report = relax(variables, model=model, groups=C4, inputs=x)
    >>> [(change.source, change.target) for change in report.layers]
    [(Group(D4), Group(D4)), (Group(D4), Group(C4 < D4))]

    The new model computes what the old one did: `new.apply(relaxed, x)`.
    """
    layers = tied_model(model, inputs, call_kwargs).layers
    if not isinstance(groups, Mapping):
        raise TypeError(
            'groups must be a dict of a Group for each path, such as {"conv2": C4}, '
            f"got {groups!r}"
        )
    chosen = {as_path(key): group for key, group in groups.items()}
    for path, group in chosen.items():
        _check(path, group, layers)
    before = dict(model.groups) if isinstance(model, Regrouped) else {}
    code = model.code if isinstance(model, Regrouped) else Code(model)
    target = Regrouped(code, tuple((before | chosen).items()))
    relaxed, report = morph(
        variables, source=model, target=target, inputs=inputs, call_kwargs=call_kwargs
    )
    return relaxed, target, report


def as_path(key: str | Path) -> Path:
    """Return a layer's path, given as it is or by its name with slashes."""
    if isinstance(key, str):
        key = tuple(filter(None, key.split("/")))
    return tuple(map(str, key))


def _check(path: Path, group: Group, layers: Mapping[Path, TiedModule]) -> None:
    if path not in layers:
        known = [show(p) for p in layers]
        near = difflib.get_close_matches(show(path), known, 1, 0)
        raise ValueError(
            f"the model has no layer with a group at {show(path)!r}; "
            f"nearest: {', '.join(near) or 'none'}; all: {', '.join(known)}"
        )
    layer = layers[path].clone(group=group)  # which refuses what does not fit it
    if not group <= layers[path].group:
        raise ValueError(
            f"{show(path)} is relaxed to a subgroup of its {layers[path].group!r}, got "
            f"{layer.group!r}; to go to a larger group, use eq.morph"
        )
