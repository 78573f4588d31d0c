"""What eqjax does with linen models, done with NNX models.

Each is seen as a linen one (`views`), so that everything is what the packages above
compute. No model that is passed in is altered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from eqjax import analysis, exchange, layers, morphism
from eqjax.analysis.evidence import SymmetryTest
from eqjax.analysis.held_out import HeldOutTest
from eqjax.constraints.base import Tied
from eqjax.constraints.collections import BATCH_STATS, PARAMS
from eqjax.exchange import plain as plain_layers
from eqjax.exchange.exporting import deviation
from eqjax.groups.group import Group
from eqjax.morphism.matching import Path, show
from eqjax.morphism.regrouping import as_path
from eqjax.morphism.report import LayerTable, MorphReport
from eqjax.nnx.base import Penalty, TiedLayer
from eqjax.nnx.conv import GroupConv, LiftingConv
from eqjax.nnx.norms import BatchNorm
from eqjax.nnx.views import (
    LinenView,
    Model,
    linen_view,
    tied_layers,
    variables_of,
    with_variables,
)


def penalty(model: nnx.Module) -> jax.Array:
    """Return the sum of what the layers' constraints ask to be added to the loss.

    Of the last call of each layer: call the model first, and this in the same loss.
    """
    found = [v[...] for _, v in nnx.iter_graph(model) if isinstance(v, Penalty)]
    return sum(found, jnp.zeros(()))


def morph(
    model: Model,
    *,
    groups: Mapping[str | Path, Group] | None = None,
    target: Model | None = None,
) -> tuple[Model, MorphReport]:
    """Carry a model to other groups, as `eqjax.morph` does; see there.

    Args:
      model: with layers of `eqjax.nnx`.
      groups: the new group of some layers, by path, such as {"stage2/short": C4}; or
      target: a model of the same kind, built with other groups or constraints.

    Returns:
      The new model, and a report of what changed per layer.

    Raises:
      ValueError: there is no such layer, or the models differ otherwise.

    >>> import eqjax as eq
    >>> from eqjax.nnx import InvariantHead
    >>> D4 = eq.dihedral(4)
    >>> head = InvariantHead(2, 3, group=D4, rngs=nnx.Rngs(0))
    >>> relaxed, report = morph(head, groups={"": D4.subgroup("C4")})
    >>> head.kernel.shape, relaxed.kernel.shape
    ((1, 2, 3), (2, 2, 3))
    """
    if (groups is None) == (target is None):
        raise ValueError("pass either groups= or target=")
    if groups is not None:
        target = _regrouped(model, {as_path(k): H for k, H in groups.items()})
    assert target is not None
    moved, report = morphism.morph(
        variables_of(model),
        source=linen_view(model),
        target=linen_view(target),
        inputs=(),
    )
    return with_variables(target, moved), report


def morph_optimizer(
    optimizer: nnx.Optimizer, *, source: nnx.Module, target: nnx.Module, **settings: Any
) -> nnx.Optimizer:
    """Carry an optimizer along with `morph`, as `eqjax.morph_optimizer` does.

    Args:
      optimizer: of the parameters (`wrt=nnx.Param`) of the source.
      source: the model that was morphed.
      target: what it was morphed to.
      **settings: as of `eqjax.morph_optimizer`, such as restart=True.

    Returns:
      An optimizer of the target; its steps go on being counted.
    """
    moved = morphism.morph_optimizer(
        _named(nnx.as_pure(optimizer.opt_state)),
        source=linen_view(source),
        target=linen_view(target),
        inputs=(),
        **settings,
    )
    new = nnx.Optimizer(target, optimizer.tx, wrt=optimizer.wrt)
    filled = _filled(nnx.as_pure(new.opt_state), moved)
    nnx.update(new.opt_state, nnx.state(filled))
    new.step[...] = optimizer.step[...]
    return new


def from_conv(
    conv: nnx.Conv, *, group: Group, rngs: nnx.Rngs, **settings: Any
) -> tuple[GroupConv, exchange.NearestLayer]:
    """Return the layer that is nearest to a plain convolution; see `eqjax.from_conv`.

    Args:
      conv: trained, say.
      group: of the layer.
      rngs: as of all modules; what is drawn is replaced.
      **settings: as of `eqjax.from_conv`, such as lifting=True or a constraint.

    Returns:
      The layer, and what `eqjax.from_conv` returns, the remainder among it.
    """
    near = exchange.from_conv(conv, group=group, **settings)
    lifting = isinstance(near.layer, layers.LiftingConv)
    make = LiftingConv if lifting else GroupConv
    fiber = 1 if lifting else near.layer.fibers[0].size
    width = int(conv.kernel.shape[-2]) * near.layer.feature_group_count // fiber
    known = ("parent", "name", "features", "kernel_size", "group")
    fields = {
        f.name: getattr(near.layer, f.name)
        for f in dataclasses.fields(near.layer)
        if f.init and f.name not in known
    }
    made = make(
        width,
        near.layer.features,
        near.layer.kernel_size,
        group=group,
        rngs=rngs,
        **fields,
    )
    made.take(near.layer, near.variables)
    return made, near


def to_plain(model: Model, x: Any, *, tolerance: float = 1e-5) -> Model:
    """Return the model with plain layers of Flax in the place of those with a group.

    Kernels are those of plain convolutions, (*taps, in, out) over real channels, as
    `eqjax.export` makes them of linen models. For `jax.export` and the like.

    Args:
      model: in the mode that it is used in: call `model.eval()` before.
      x: inputs that both are compared on.
      tolerance: largest deviation of an output, relative to the largest, or to 1.

    Raises:
      ValueError: the outputs differ; or layers are stacked, as by `nnx.vmap`.
    """
    copy = nnx.clone(model)
    stacked = linen_view(model).tied_model().stacked
    for path, layer in tied_layers(copy).items():
        if any(axes for at, axes in stacked.items() if at[1:-1] == path):
            raise ValueError(f"{show(path)} is stacked; unstack it before")
        shape = jax.ShapeDtypeStruct(layer.shape, jnp.float32)
        keywords = {"use_running_average": True} if isinstance(layer, BatchNorm) else {}
        plain, network = plain_layers.to_plain(
            layer.variables(), model=layer.linen, inputs=shape, call_kwargs=keywords
        )
        layer.take(network, plain)
    worst = deviation(copy(x), model(x), tolerance)
    if not worst <= 1:
        raise ValueError(
            f"with plain layers the outputs are {worst * tolerance:.1e} from those of "
            f"the model, more than {tolerance:.0e}"
        )
    return copy


def collapse(model: Model) -> tuple[Model, MorphReport]:
    """Make every layer one plain layer that computes the same; see `eqjax.collapse`."""
    return _simplified(model, morphism.collapse)


def discretize(model: Model) -> tuple[Model, MorphReport]:
    """Give mixed layers their group of largest weight; see `eqjax.discretize`."""
    return _simplified(model, morphism.discretize)


def mixtures(model: nnx.Module) -> LayerTable:
    """Return the weight of every candidate of mixed layers; see `eqjax.mixtures`."""
    return morphism.mixtures(variables_of(model), model=linen_view(model), inputs=())


def distances(model: nnx.Module, **settings: Any) -> LayerTable:
    """Return how far kernels are from commuting with groups; see `eqjax.distances`."""
    return analysis.distances(
        variables_of(model), model=linen_view(model), inputs=(), **settings
    )


def symmetry_test(
    model: nnx.Module, *, x: Any, y: Any, key: jax.Array, **settings: Any
) -> SymmetryTest:
    """Test which symmetry the data have; see `eqjax.symmetry_test`.

    Args:
      model: with norms and dropout as for prediction: call `model.eval()` before.
      x: samples.
      y: their targets.
      key: of the draws.
      **settings: as of `eqjax.symmetry_test`.
    """
    return analysis.symmetry_test(
        variables_of(model), model=linen_view(model), x=x, y=y, key=key, **settings
    )


def held_out_test(
    model: nnx.Module, *, x: Any, y: Any, group: Group, key: jax.Array, **settings: Any
) -> HeldOutTest:
    """Test the same from the losses of held-out samples; see `eqjax.held_out_test`.

    Args:
      model: with norms and dropout as for prediction: call `model.eval()` before.
      x: samples that it has not seen.
      y: their targets.
      group: the largest to test.
      key: of the draws.
      **settings: as of `eqjax.held_out_test`.
    """
    return analysis.held_out_test(
        variables_of(model),
        model=linen_view(model),
        x=x,
        y=y,
        group=group,
        key=key,
        **settings,
    )


def _regrouped(
    model: Model, groups: Mapping[Path, Group], *, plain: bool = False
) -> Model:
    """Return a copy whose layers have other groups, and variables of their shapes."""
    copy = nnx.clone(model)
    tied = tied_layers(copy)
    for path, group in groups.items():
        if path not in tied:
            raise ValueError(
                f"the model has no layer with a group at {show(path)!r}; there are "
                + ", ".join(map(show, tied))
            )
        layer = tied[path]
        settings: dict[str, Any] = {"group": group}
        if plain:
            settings["constraint"] = Tied()
        linen = layer.linen.clone(**settings)
        layer.take(linen, _zeros(layer, linen))
    return copy


def _zeros(layer: TiedLayer, linen: nn.Module) -> dict[str, Any]:
    """Return variables of the shapes of another layer in the place of one."""
    own = layer.variables()
    shapes = {n: jnp.shape(v) for n, v in own[PARAMS].items()} if PARAMS in own else {}
    found: dict[str, Any] = {}
    ties = layer.linen.ties
    for name, tie in linen.ties.items():
        like = next(n for n in ties if ties[n].maps == tie.maps and _base(n, name))
        stacked = len(shapes[like]) - (3 if tie.maps else 2)
        shape = list(shapes[like])
        shape[stacked] = tie.table.num_orbits
        found[name] = jnp.zeros(shape, own[PARAMS][like].dtype)
    params = {PARAMS: found} if found else {}
    kept = {BATCH_STATS: own[BATCH_STATS]} if BATCH_STATS in own else {}
    if linen.constraint == layer.linen.constraint:
        kept = {kind: value for kind, value in own.items() if kind != PARAMS}
    return {**params, **kept}


def _base(a: str, b: str) -> bool:
    """Tell whether two parameters are parts of the same full array."""
    return a.split("_")[0] == b.split("_")[0]


def _simplified(model: Model, how: Callable[..., Any]) -> tuple[Model, MorphReport]:
    def rebuild(groups: Mapping[Path, Group]) -> LinenView:
        return linen_view(_regrouped(model, groups, plain=True))

    moved, view, report = how(
        variables_of(model), model=linen_view(model), inputs=(), rebuild=rebuild
    )
    return with_variables(view.box.held, moved), report


def _named(tree: Any) -> Any:
    """Return a tree whose states are dicts with strings for keys, as linen has them."""
    if isinstance(tree, nnx.State):
        tree = nnx.to_pure_dict(tree)
    if isinstance(tree, dict):
        return {str(key): _named(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(_named, tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map(_named, tree))
    return tree


def _filled(tree: Any, named: Any) -> Any:
    """Undo `_named`: return a tree with the arrays of a named one."""
    if isinstance(tree, nnx.State):
        pairs = tree.raw_mapping.items()
        return nnx.State({key: _filled(value, named[str(key)]) for key, value in pairs})
    if isinstance(tree, dict):
        return {key: _filled(value, named[str(key)]) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        values = [_filled(own, other) for own, other in zip(tree, named, strict=True)]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    return named
