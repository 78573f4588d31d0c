"""The group of every mixed layer by what held-out samples lose without a candidate.

The weight of a candidate does not tell how much the network needs it. Measured by
perturbation (Wang et al. 2021, DARTS-PT), one layer after another is decided: the loss
on held-out samples without the candidate minus the loss with it, over the same samples.

Groups nest, and the kernels of a small group hold those of all larger ones. So what is
taken out of the layer's full kernel K is not the candidate's own kernel but the part of
K that its group allows and no larger candidate does: (P_H - Q_H) K, with P_H the
average over the orbits of H, and Q_H the orthogonal projection on all that the larger
candidates allow together; with a single one, G, it is (P_H - P_G) K.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from eqjax.constraints.mixture import Mixture
from eqjax.groups.group import Group
from eqjax.groups.text import Echoed, Rows
from eqjax.kernels.tied import Table
from eqjax.layers.base import TiedModule
from eqjax.morphism.carrying import under_stacked_axes
from eqjax.morphism.discretization import Rebuild
from eqjax.morphism.matching import Path, flat_variables, show, tied_model
from eqjax.morphism.variables import morph
from eqjax.ops.precision import accurate, norm
from eqjax.training.evaluation import mean_and_error, predict
from eqjax.training.losses import LossFn, cross_entropy, measure

Model = TypeVar("Model", bound=nn.Module)
FineTune = Callable[[dict[str, Any], Any, chex.PRNGKey], Mapping[str, Any]]
Order = Literal["random", "output", "input"]
By = Literal["removal", "fine-tuning"]
ROUNDING = 16  # units in the last place: a part this small is none


@dataclasses.dataclass(frozen=True)
class Removal:
    """What held-out samples lose without a part of a kernel.

    Attributes:
      share: norm of the part over the norm of the layer's full arrays.
      cost: mean over the samples of the loss without it minus the loss with it; where
        networks were fine-tuned, minus the loss of the candidate with the least.
      standard_error: of that mean.
      needed: the cost is above the margin, or is not a number; never where there is no
        such part.
    """

    share: float
    cost: float
    standard_error: float
    needed: bool


@dataclasses.dataclass(frozen=True)
class DecidedLayer:
    """The group of a layer, and why.

    Attributes:
      path: of the layer in the model.
      group: the one that it has now.
      removals: by the name of every candidate: of the part that it adds, without one
        that contains all others; or, fine-tuned, of all that it does not allow.
    """

    path: Path
    group: Group
    removals: Mapping[str, Removal]


@dataclasses.dataclass(frozen=True, repr=False)
class ReadOff(Echoed):
    """One entry per mixed layer, in the order of decision; prints as a table."""

    layers: tuple[DecidedLayer, ...]
    by: By = "removal"

    def parts(self) -> Sequence[str | Rows]:
        """Return a row per layer: costs, with a star where one is needed."""
        names = list(dict.fromkeys(n for each in self.layers for n in each.removals))
        word = "without" if self.by == "removal" else "tied to"
        rows = [["layer", "group", *(f"{word} {name}" for name in names)]]
        for layer in self.layers:
            shown = [_show_removal(layer.removals.get(name)) for name in names]
            rows.append([show(layer.path), layer.group.name, *shown])
        return (Rows(rows),)


def read_off(
    variables: Mapping[str, Any],
    *,
    model: Model,
    x: Any,
    y: Any,
    fine_tune: FineTune,
    key: chex.PRNGKey,
    by: By = "removal",
    order: Order = "random",
    margin: float = 1.0,
    loss_fn: LossFn = cross_entropy,
    rebuild: Callable[[Model, Mapping[Path, Group]], Model] | None = None,
) -> tuple[dict[str, Any], Model, ReadOff]:
    """Give every mixed layer the largest candidate group that held-out samples allow.

    Layer by layer: measure the removal of every candidate; take the largest candidate
    within all that are needed (where there is none, the one whose removal costs most);
    project the layer's kernel onto it, as `discretize` does; fine-tune the network,
    whose other layers are still mixed; go on with the next. With by="fine-tuning":
    project the layer's kernel onto every candidate and fine-tune each of these
    networks; go on with that of the largest candidate whose loss is within the margin
    of the least.

    Args:
      variables: of the model, concrete.
      model: called as model(x), with mixed layers.
      x: held-out samples, which the weights were not trained on.
      y: their targets.
      fine_tune: variables, the partly decided model, a key -> its variables after a
        short training. The logits of the layers that are still mixed may move or not.
      key: of the order, and folded with the number of the layer of every fine-tuning.
      by: "removal" compares at once, and fine-tunes once for every layer;
        "fine-tuning" does so once for every layer and candidate.
      order: in which layers are decided: drawn at random, from the output to the input,
        or from the input.
      margin: standard errors of the mean difference, sample by sample, above which a
        removal hurts.
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`.
      rebuild: model, a group for the paths of some layers -> the model with these tied
        and the others as they are; by default the model's own method `with_groups`.

    Returns:
      The variables of the model with all mixed layers decided, the model, and what the
      removals cost.

    Raises:
      ValueError: there is no mixed layer, there are fewer than two samples, or the
        model cannot be rebuilt layer by layer.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=(), classes=2,
    ...     constraint=eq.Mixture((D4, D4.subgroup("C1"))))
    >>> x = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype("float32")
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> plain, plain_model, report = read_off(variables, model=model, x=x,
    ...     y=np.arange(8) % 2, fine_tune=lambda variables, model, key: variables,
    ...     key=jax.random.key(0), order="output")
    >>> [show(layer.path) for layer in report.layers], plain_model.constraint
    (['head', 'conv1'], Tied())
    """
    if by not in get_args(By):
        raise ValueError(f"by must be one of {get_args(By)}, got {by!r}")
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {get_args(Order)}, got {order!r}")
    if len(x) < 2:
        raise ValueError(f"a standard error needs two samples or more, got {len(x)}")
    layers = tied_model(model, x[:1]).layers.items()
    paths = [p for p, layer in layers if isinstance(layer.constraint, Mixture)]
    if not paths:
        raise ValueError(f"{type(model).__name__} has no mixed layer to read off")
    if order == "output":
        paths.reverse()
    if order == "random":
        drawn = jax.random.permutation(key, len(paths))
        paths = [paths[i] for i in drawn.tolist()]
    rebuild = rebuild or _with_groups

    def losses(variables: Mapping[str, Any], model: nn.Module) -> np.ndarray:
        outputs = jnp.asarray(predict(variables, x, model=model))
        return np.asarray(measure(loss_fn, outputs, y).loss, np.float64)

    def tied_to(group: Group, path: Path, found: Any, model: Model):
        """Return the network with a layer tied to a group, and what moved how far."""
        target = rebuild(model, {path: group})
        _check_rebuilt(model, target, path, group, x[:1])
        moved, report = morph(found, source=model, target=target, inputs=x[:1])
        (change,) = (change for change in report.layers if change.path == path)
        return moved, target, float(change.relative_change)

    decided = []
    found = dict(variables)
    for number, path in enumerate(paths):
        own = jax.random.fold_in(key, number)
        candidates = _candidates(tied_model(model, x[:1]).layers[path])
        if by == "removal":
            removals = _removals(found, model, path, x[:1], losses, margin, rebuild)
            group = _largest_allowed(candidates, removals)
            found, model, _ = tied_to(group, path, found, model)
            found = dict(fine_tune(found, model, own))
        else:
            trained: dict[Group, tuple[Any, Model]] = {}
            shares, after = [], []
            for group in candidates:
                moved, target, share = tied_to(group, path, found, model)
                trained[group] = dict(fine_tune(moved, target, own)), target
                shares.append(share)
                after.append(losses(*trained[group]))
            removals = _beside_the_least(candidates, shares, after, margin)
            group = next(H for H in candidates if not removals[H.name].needed)
            found, model = trained[group]
        decided.append(DecidedLayer(path, group, removals))
    return found, model, ReadOff(tuple(decided), by)


def _beside_the_least(
    candidates: Sequence[Group],
    shares: Sequence[float],
    losses: Sequence[np.ndarray],
    margin: float,
) -> dict[str, Removal]:
    """Return what each candidate's network loses beside the one that loses least.

    Raises:
      ValueError: there is no network whose loss is a number.
    """
    means = [each.mean() for each in losses]
    if np.isnan(means).all():
        raise ValueError("fine-tuned with every candidate, no loss is a number")
    least = losses[int(np.nanargmin(means))]
    rounding = ROUNDING * np.finfo(np.float32).eps * (1 + np.abs(least).max())
    found = {}
    for H, share, each in zip(candidates, shares, losses, strict=True):
        cost, error = mean_and_error(each - least)
        needed = not cost <= margin * error + rounding
        found[H.name] = Removal(share, cost, error, needed)
    return found


def added_part(
    full: jax.Array, table: Table, group: Group, larger: Sequence[Group]
) -> jax.Array:
    """Return the part of a full array that a group allows and larger ones do not.

    Args:
      full: (*table.shape, *rest).
      table: the orbits of a group that contains all others here.
      group: H.
      larger: groups that contain it; none for all that H allows.

    Returns:
      An array of the same shape, zero to rounding exactly where the part of K that
      commutes with H is a sum of some that commute with the larger groups.
    """
    assert table.group is not None, "the table is data"
    weights = _combination(table.group, group, tuple(larger))
    each = jnp.asarray(weights, full.dtype).reshape(-1, *[1] * full.ndim)
    return table.transformed(each * full[None]).sum(0)


@functools.cache
def _combination(whole: Group, group: Group, larger: tuple[Group, ...]) -> np.ndarray:
    """Return c, (order of the whole,), with sum_u c(u) (u . K) the added part of K.

    Every average over a subgroup is such a combination, and so is the projection on
    the sum of what several allow, whether or not the averages commute: it is found
    once, in the regular representation, and read off at the identity.
    """
    projection = _averaging(whole, group)
    if larger:
        spanning = np.concatenate([_averaging(whole, G) for G in larger], 1)
        basis, size, _ = np.linalg.svd(spanning)
        basis = basis[:, : np.count_nonzero(size > 1e-6)]
        projection = projection - basis @ basis.T
    return projection[:, 0]


def _averaging(whole: Group, group: Group) -> np.ndarray:
    """Return the average over the elements of a group, acting on the whole one."""
    matrix = np.zeros((whole.order, whole.order))
    for element in group.elements:
        moved = whole.product[whole.elements.index(element)]
        matrix[moved, np.arange(whole.order)] += 1 / group.order
    return matrix


def _removals(
    variables: Mapping[str, Any],
    model: Model,
    path: Path,
    inputs: Any,
    losses: Callable[[Mapping[str, Any], nn.Module], np.ndarray],
    margin: float,
    rebuild: Callable[[Model, Mapping[Path, Group]], Model],
) -> dict[str, Removal]:
    """Return what it costs to remove each candidate from a layer."""
    mixed = tied_model(model, inputs).layers[path]
    candidates = _candidates(mixed)
    # The same function with the layer tied to what all candidates share, so that one
    # program serves for all kernels.
    loose = rebuild(model, {path: mixed.constraint.symmetry(mixed.group)})
    same, _ = morph(variables, source=model, target=loose, inputs=inputs)
    traced = tied_model(loose, inputs)
    layer, flat = traced.layers[path], flat_variables(same)
    own, stacked = traced.own(path, flat), traced.stacked_axes(path)
    full = under_stacked_axes(layer.read, stacked)(own)
    before = losses(unflatten_dict(flat), loose)
    found = {}
    for H in candidates:
        if all(G <= H for G in candidates):
            continue
        larger = tuple(G for G in candidates if H < G)

        def part(arrays, H=H, larger=larger):
            return {
                name: added_part(accurate(array), mixed.tables[name], H, larger)
                for name, array in arrays.items()
            }

        removed = under_stacked_axes(jax.jit(part), stacked)(full)
        size = float(norm(*full.values()))
        share = float(norm(*removed.values())) / (size or 1.0)
        if share <= ROUNDING * np.finfo(np.float32).eps:
            found[H.name] = Removal(share, 0.0, 0.0, needed=False)
            continue
        rest = {
            name: (full[name] - removed[name]).astype(full[name].dtype) for name in full
        }
        written = under_stacked_axes(layer.write, stacked)(rest)
        masked = {(kind, *path, name): v for (kind, name), v in written.items()}
        after = losses(unflatten_dict({**flat, **masked}), loose)
        cost, error = mean_and_error(after - before)
        found[H.name] = Removal(share, cost, error, not cost <= margin * error)
    return found


def _candidates(layer: TiedModule) -> tuple[Group, ...]:
    assert isinstance(layer.constraint, Mixture)
    return layer.constraint.groups


def _largest_allowed(
    candidates: Sequence[Group], removals: Mapping[str, Removal]
) -> Group:
    """Return the largest candidate whose kernels hold all needed parts."""
    needed = [H for H in candidates if H.name in removals and removals[H.name].needed]
    for candidate in candidates:
        if all(candidate <= H for H in needed):
            return candidate
    return max(needed, key=lambda H: np.nan_to_num(removals[H.name].cost, nan=np.inf))


def _with_groups(model: Any, groups: Mapping[Path, Group]) -> Any:
    own: Rebuild | None = getattr(model, "with_groups", None)
    if own is None:
        raise ValueError(
            f"{type(model).__name__} has no method with_groups; pass rebuild=, a "
            "function of the model and the groups of some layers"
        )
    try:
        return own(groups)
    except KeyError as error:
        raise ValueError(
            f"{type(model).__name__}.with_groups asks for the group of {error}; to "
            "decide one layer at a time, it must leave those as they are that it is "
            "given no group for"
        ) from error


def _check_rebuilt(
    model: nn.Module, target: nn.Module, path: Path, group: Group, inputs: Any
) -> None:
    """Raise unless one layer has the group and all others are as before."""
    before, after = (tied_model(m, inputs).layers for m in (model, target))
    for other, layer in before.items():
        mixed = isinstance(layer.constraint, Mixture)
        if mixed and other != path and after[other].constraint != layer.constraint:
            raise ValueError(
                f"rebuilt for the group of {show(path)}, {show(other)} is no longer "
                "mixed; layers without a group must be left as they are"
            )
    if after[path].group != group or isinstance(after[path].constraint, Mixture):
        raise ValueError(
            f"rebuilt for {show(path)} in {group!r}, that layer is "
            f"{after[path].constraint!r} in {after[path].group!r}"
        )


def _show_removal(removal: Removal | None) -> str:
    if removal is None:
        return ""
    star = "*" * removal.needed
    return f"{removal.cost:+.2g} ± {removal.standard_error:.1g}{star}"
