"""From a trained mixture to one group per layer, and what that changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax.constraints.base import Tied
from eqjax.constraints.collections import MIXTURE
from eqjax.constraints.mixture import Mixture
from eqjax.groups.group import Group
from eqjax.layers.base import TiedModule
from eqjax.morphism.matching import Path, flat_variables, show, tied_model
from eqjax.morphism.report import LayerTable, MorphReport
from eqjax.morphism.sharing import sharing_distances
from eqjax.morphism.variables import morph
from eqjax.training.checks import check_variables

Model = TypeVar("Model", bound=nn.Module)
Rebuild = Callable[[Mapping[Path, Group]], Model]


def mixtures(
    variables: Mapping[str, Any],
    *,
    model: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
) -> LayerTable:
    """Return the weight z of every candidate, by layer and name, in layer order.

    Layers stacked by `nn.scan` or `nn.vmap` have an array of weights per candidate.

    Args:
      variables: at least the collection `mixture`.
      model: any linen model with mixed layers.
      inputs: an input of the model, or a tuple of call arguments; shapes are enough.
      call_kwargs: keyword arguments of the model's call.

    Raises:
      ValueError: the logits are those of other layers or candidates.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=(),
    ...     constraint=eq.Mixture((D4, D4.subgroup("C1"))))
    >>> x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.ones(x.shape))
    >>> mixtures(variables, model=model, inputs=x)
    layer  D4   C1
    conv1  0.5  0.5
    head   0.5  0.5
    """
    check_variables("variables", variables)
    logits = flat_variables(variables.get(MIXTURE, {}))
    traced = tied_model(model, inputs, call_kwargs)
    found = LayerTable()
    for path, layer in traced.layers.items():
        if not isinstance(layer.constraint, Mixture):
            for own in [p for p in logits if p[:-1] == path]:
                del logits[own]  # of another constraint
            continue
        names = layer.constraint.names
        if (*path, "logits") not in logits:
            raise ValueError(f"the variables have no logits of layer {show(path)}")
        own = logits.pop((*path, "logits"))
        if np.ndim(own) != 1 + traced.stacked_axes(path) or np.shape(own)[-1] != len(
            names
        ):
            raise ValueError(
                f"logits of layer {show(path)} have shape {np.shape(own)}, expected "
                f"({len(names)},) for the candidates {', '.join(names)}"
            )
        weights = jnp.moveaxis(layer.constraint.weights(own), -1, 0)
        found[path] = dict(zip(names, weights, strict=True))
    for path in logits:
        raise ValueError(f"the model has no mixed layer {show(path[:-1])}")
    return found


def collapse(
    variables: Mapping[str, Any],
    *,
    model: Model,
    inputs: Any,
    rebuild: Rebuild[Model] | None = None,
    call_kwargs: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Model, MorphReport]:
    """Make every layer one plain layer that computes the same.

    Its group is the largest that the layer is sure to commute with: for a mixture, what
    the candidates of a weight above zero have in common.

    Args:
      variables: of the model, concrete.
      model: an `EquivariantCNN`, a single layer, or any linen model with `rebuild`.
      inputs: as in `mixtures`.
      rebuild: a group for the path of every tied layer -> the plain model; by default
        the model's own method `with_groups`, which returns a `self.clone(...)`.
      call_kwargs: as in `mixtures`.

    Returns:
      The variables of the plain model, the model, and a report of what changed.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=(),
    ...     constraint=eq.Mixture((D4, D4.subgroup("C1"))))
    >>> x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.ones(x.shape))
    >>> plain, plain_model, report = collapse(variables, model=model, inputs=x)
    >>> str(plain_model.architecture)
    'C1 C1'
    """

    def shared(candidates: Sequence[Group], weights: Sequence[jax.Array]) -> Group:
        used = [H for H, z in zip(candidates, weights, strict=True) if np.any(z > 0)]
        return used[0].meet(*used[1:])

    return _simplified(variables, model, inputs, rebuild, call_kwargs, shared)


def discretize(
    variables: Mapping[str, Any],
    *,
    model: Model,
    inputs: Any,
    rebuild: Rebuild[Model] | None = None,
    call_kwargs: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Model, MorphReport]:
    """Give every mixed layer the one candidate group of the largest weight.

    The other candidates' kernels are projected onto it. A layer of learned sharing gets
    the subgroup of the nearest orbits (`sharing_distances`), of equally near ones the
    largest. The report tells how far each layer's kernel moved. Layers of other
    constraints become plain as in `collapse`. Arguments and results are those of
    `collapse`; the first of equal weights wins.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=(),
    ...     constraint=eq.Mixture((D4, D4.subgroup("C1"))))
    >>> x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.ones(x.shape))
    >>> plain, plain_model, report = discretize(variables, model=model, inputs=x)
    >>> str(plain_model.architecture)
    'D4 D4'
    """

    def heaviest(candidates: Sequence[Group], weights: Sequence[jax.Array]) -> Group:
        return candidates[int(np.argmax([np.mean(z) for z in weights]))]

    kind: dict[str, Any] = {"inputs": inputs, "call_kwargs": call_kwargs}
    near = {
        path: min(row, key=row.__getitem__)
        for path, row in sharing_distances(variables, model=model, **kind).items()
    }
    return _simplified(variables, model, inputs, rebuild, call_kwargs, heaviest, near)


def _simplified(
    variables: Mapping[str, Any],
    model: Model,
    inputs: Any,
    rebuild: Rebuild[Model] | None,
    call_kwargs: Mapping[str, Any] | None,
    choose: Callable[[Sequence[Group], Sequence[jax.Array]], Group],
    nearest: Mapping[Path, str] | None = None,
) -> tuple[dict[str, Any], Model, MorphReport]:
    """Carry the variables to the plain model, mixed layers in the groups chosen."""
    weights = mixtures(variables, model=model, inputs=inputs, call_kwargs=call_kwargs)
    groups = {}
    for path, layer in tied_model(model, inputs, call_kwargs).layers.items():
        groups[path] = layer.constraint.symmetry(layer.group)
        if isinstance(layer.constraint, Mixture):
            candidates = layer.constraint.groups
            own = [weights[path][H.name] for H in candidates]
            groups[path] = choose(candidates, own)
        elif nearest and path in nearest:
            groups[path] = layer.group.ambient.subgroup(nearest[path])
    target = _rebuilt(model, groups, rebuild)
    plain, report = morph(
        variables, source=model, target=target, inputs=inputs, call_kwargs=call_kwargs
    )
    return plain, target, report


def _rebuilt(
    model: Model, groups: Mapping[Path, Group], rebuild: Rebuild[Model] | None
) -> Model:
    if rebuild is not None:
        return rebuild(groups)
    if isinstance(model, TiedModule):
        return model.clone(group=groups[()], constraint=Tied())
    own = getattr(model, "with_groups", None)
    if own is None:
        raise ValueError(
            f"{type(model).__name__} has no method with_groups; pass rebuild=, a "
            "function from the group of every layer's path to the plain model"
        )
    return own(groups)
