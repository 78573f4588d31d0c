"""Which symmetry the data have, seen from every layer of one trained network.

Let K be the full kernel of a layer and g_b the gradient of the loss of a block of
samples by K. In a network whose layers commute with a group, the gradient at moved
samples is the moved gradient. So data that are invariant under S have a mean gradient
that S leaves as it is, and the part that S forbids, (1 - P_S) of the mean gradient, is
what relaxing the layer below S would gain at first order: a score test, whose null
distribution `randomization` has exactly.

What it cannot see: that the features of a layer have a symmetry which the data as a
whole have not. Sharing weights may then help although the group is rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax.analysis.evidence import GroupEvidence, LayerEvidence, SymmetryTest
from eqjax.analysis.gains import Gain, layer_gains
from eqjax.analysis.gradients import (
    Move,
    ProbedLayer,
    block_gradients,
    check_classes,
    commuting_elements,
    default_block_size,
    in_memory,
    moved_by,
    probed_layers,
    shuffled_blocks,
)
from eqjax.analysis.motions import Motions
from eqjax.analysis.point_groups import (
    at_points,
    closed_gains,
    commuting_group,
    point_test,
)
from eqjax.analysis.randomization import Outcome, closed_test, lattice_of
from eqjax.fields.action import transform
from eqjax.fields.irreps import IrrepsFiber, turned
from eqjax.groups.axes import preserving_subgroup
from eqjax.groups.closed import ClosedGroup, exact_ambient
from eqjax.groups.group import Group, difference
from eqjax.kernels.tied import Table
from eqjax.morphism.matching import show, tied_model
from eqjax.training.checks import check_samples
from eqjax.training.losses import LossFn, cross_entropy

MoveTargets = Callable[[Any, int], Any]  # (targets, element) -> those moved
TOLERANCE = 0.05  # of a gradient moved by an element that the network commutes with
HALF_TOLERANCE = 0.2  # where a layer computes in half precision


def symmetry_test(
    variables: Mapping[str, Any],
    *,
    model: nn.Module,
    x: Any,
    y: Any,
    key: chex.PRNGKey,
    loss_fn: LossFn = cross_entropy,
    groups: Sequence[Any] | None = None,
    level: float = 0.05,
    draws: int = 999,
    block_size: int | None = None,
    whiten: bool = True,
    memory: int = 2**30,
    move_targets: MoveTargets | None = None,
    irreps_in: Any = None,
    call_kwargs: Mapping[str, Any] | None = None,
) -> SymmetryTest:
    """Test which groups the data are invariant under, from one trained network.

    For every subgroup of what the network is tied to (of a network of `IrrepsLinear`
    over closed subgroups of O(3), every one with a name): does the distribution of
    samples stay the same when its elements move them? The p values are exact at any
    number of samples, for images that the network was trained on, too, provided that
    neither its initial weights nor the order of its training depend on how they are
    oriented. No other network is trained; the cost is one backward pass over the
    samples.

    Args:
      variables: of the model, trained for a few hundred steps at the least: what an
        untrained network cannot see yet, its test cannot either.
      model: any linen model with eqjax layers, called as model(x); it should be tied to
        a group that contains the true one.
      x: (samples, *space, channels), images; or fields.
      y: (samples,), labels; or what the loss takes.
      key: of the order of samples and of the draws.
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`.
      groups: those to test; all subgroups that can be tested if None. Their joins are
        tested with them. The trivial group has a row, too: no data contradict it.
      level: probability that a true group is rejected, with all its subgroups.
      draws: how often the samples are moved at random; p is at least 1 / (1 + draws).
      block_size: samples that are moved together; if None, as many as make 200 blocks.
      whiten: divide the gradient's entries by their root mean square over blocks and
        orbits.
      memory: bytes for gradients at a time. Where those of all layers need more, the
        samples are gone through several times.
      move_targets: (y, u) -> the targets of samples moved by the element u, such as
        `lambda y, u: eq.transform(y[..., None], u, group=D4)[..., 0]` for masks (n,
        height, width); if None, the same, as for labels. At points u is the matrix.
      irreps_in: of O(3), such as "1o" for vectors, that the last axis of x transforms
        by: (samples, *space, irreps.dim), or points, (samples, points, irreps.dim).
      call_kwargs: keyword arguments of the model's call, such as {"train": False}.

    Returns:
      The evidence by layer and group, p values, and the groups that are not rejected.

    Raises:
      ValueError: the model has no layer of eqjax; a gradient is not finite; samples or
        settings do not fit; targets are maps of the pixels, without `move_targets`.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=(), kernel_size=3, classes=2)
    >>> x = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype(np.float32)
    >>> y = np.arange(40) % 2
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> report = symmetry_test(
    ...     variables, model=model, x=x, y=y, key=jax.random.key(1), draws=19)
    >>> report.network["C4"].rejected, len(report.network), report.blocks
    (False, 10, 40)
    """
    _check_settings(level, draws, block_size)
    check_samples(x, y)
    inputs = jax.ShapeDtypeStruct((1, *np.shape(x)[1:]), np.asarray(x[:1]).dtype)
    found = tied_model(model, inputs, call_kwargs)
    layers = probed_layers(found, variables)
    rng = np.random.default_rng(np.ravel(jax.random.key_data(key)).tolist())
    check_classes(variables, model, x, y, loss_fn, call_kwargs)
    move_targets = checked_motion(move_targets, x, y)

    settings: dict[str, Any] = {
        "model": model,
        "loss_fn": loss_fn,
        "call_kwargs": call_kwargs,
    }
    ambient = exact_ambient(layers[0].layer.group)
    if at_points(layers):
        return _test_at_points(
            variables,
            layers,
            (x, y),
            irreps_in,
            groups,
            level,
            draws,
            block_size,
            whiten,
            move_targets,
            rng,
            settings,
        )
    motions = Motions(ambient, [each.layer for each in layers])
    move_x = _motion_of(motions, irreps_in)
    size = default_block_size(len(x)) if block_size is None else block_size
    blocks = shuffled_blocks(x, y, size, rng)
    whole, notes = _testable(
        variables, layers, motions, blocks[0], (move_x, move_targets), settings
    )
    lattice = _lattice(whole, groups)

    grams: list[np.ndarray] = []
    gains: list[dict[Group, Gain]] = []
    for part in in_memory(layers, len(blocks), memory):
        gradients = block_gradients(variables, part, blocks, **settings)
        for each, own in zip(part, gradients, strict=True):
            gains.append(layer_gains(each, own, size, lattice))
            grams.append(_gram(each, own, whole, whiten))
            if not own.any():
                notes.append(
                    f"{show(each.path)} has no gradient and says nothing; lifted "
                    "modules pass the collection 'probes' on"
                )
        del gradients
    if len(blocks) == 1:
        notes.append("one block of samples cannot tell; give more, or smaller blocks")
    together, alone = closed_test(grams, whole, lattice, draws, rng, memory // 4)
    return SymmetryTest(
        group=whole,
        network=_rows(together, level, _summed(gains, lattice)),
        layers=LayerEvidence(
            (each.path, _rows(results, level, own))
            for each, results, own in zip(layers, alone, gains, strict=True)
        ),
        level=level,
        blocks=len(blocks),
        block_size=size,
        notes=tuple(notes),
    )


def _check_settings(level: float, draws: int, block_size: int | None) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    least = int(np.ceil(1 / level)) - 1
    if draws < least:
        raise ValueError(
            f"draws must be at least {least} for p values down to the level {level:g}, "
            f"got {draws}"
        )
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")


def checked_motion(move_targets: MoveTargets | None, x: Any, y: Any) -> MoveTargets:
    """Return how targets move with their samples; if None, they stay as they are.

    Raises:
      ValueError: None, and targets are of the shape of the samples in space: they are
        maps of the pixels, and would be left behind.
    """
    if move_targets is not None:
        return move_targets
    space = np.shape(x)[1:-1]
    for leaf in jax.tree.leaves(y):
        if np.shape(leaf)[1 : 1 + len(space)] == space:
            raise ValueError(
                f"targets of shape {np.shape(leaf)} have a value for every place of "
                f"samples of {space}, and would stay where they are when samples move; "
                "pass move_targets=, for class numbers (n, height, width) lambda y, u: "
                "eq.transform(y[..., None], u, group=G)[..., 0], or lambda y, u: y if "
                "they are to stay"
            )
    return lambda y, u: y


def _test_at_points(
    variables: Mapping[str, Any],
    layers: Sequence[ProbedLayer],
    samples: tuple[Any, Any],
    irreps: Any,
    groups: Sequence[ClosedGroup] | None,
    level: float,
    draws: int,
    block_size: int | None,
    whiten: bool,
    move_targets: MoveTargets,
    rng: np.random.Generator,
    settings: Mapping[str, Any],
) -> SymmetryTest:
    """Test the closed subgroups of O(3) that have a name."""
    x, y = samples
    if irreps is None:
        raise ValueError(
            "layers over closed groups turn irreps; say by irreps_in how the last axis "
            "of x transforms, such as '1o' for positions"
        )
    size = default_block_size(len(x)) if block_size is None else block_size
    blocks = shuffled_blocks(x, y, size, rng)
    fiber = IrrepsFiber(str(irreps))
    whole = commuting_group(
        variables, layers, blocks[0], fiber, move_targets, TOLERANCE, **settings
    )
    for group in groups or ():
        if not isinstance(group, ClosedGroup) or not group <= whole:
            raise ValueError(f"groups must be subgroups of {whole!r}, got {group!r}")
    wanted = whole.subgroups if groups is None else {*groups, whole.smallest}
    lattice = [H for H in whole.subgroups if H in wanted]
    found = block_gradients(variables, layers, blocks, **settings)
    gains = [
        closed_gains(each, own, size, lattice)
        for each, own in zip(layers, found, strict=True)
    ]
    if whiten:
        found = [
            own * _whitening(own, each.table(whole))
            for each, own in zip(layers, found, strict=True)
        ]
    together, alone = point_test(layers, found, lattice, draws, rng)
    return SymmetryTest(
        group=whole,
        network=_rows(together, level, _summed(gains, lattice)),
        layers=LayerEvidence(
            (each.path, _rows(results, level, own))
            for each, results, own in zip(layers, alone, gains, strict=True)
        ),
        level=level,
        blocks=len(blocks),
        block_size=size,
    )


def _motion_of(motions: Motions, irreps: Any) -> Move:
    """Return how samples move, where their channels may turn as well."""
    if irreps is None:
        return lambda x, u: np.asarray(motions.moved(x, u))
    fiber = IrrepsFiber(str(irreps))
    ambient = motions.ambient

    def moved(x: Any, u: int) -> np.ndarray:
        if np.ndim(x) == ambient.dimension + 2:
            x = transform(x, u, group=ambient)
        return np.asarray(turned(jnp.asarray(x), fiber, ambient.matrices[u]))

    return moved


def _testable(
    variables: Mapping[str, Any],
    layers: Sequence[ProbedLayer],
    motions: Motions,
    block: tuple[np.ndarray, Any],
    moves: tuple[Move, MoveTargets],
    settings: Mapping[str, Any],
) -> tuple[Group, list[str]]:
    """Return the largest group that the network is tied to and the test can use."""
    space = block[0].shape[1:-1]
    tied = layers[0].own_group.meet(*(each.own_group for each in layers[1:]))
    fitting = motions.ambient.generated_by(motions.keeping_shapes([block[0]]))
    whole = tied.meet(
        fitting,
        *(preserving_subgroup(tied, each.taps) for each in layers if each.taps),
    )
    notes = []
    if whole != tied:
        notes.append(
            f"{tied.name} does not map images of {space} or the taps to "
            f"themselves; tested are the subgroups of {whole.name}"
        )
    commuting = commuting_elements(
        variables,
        layers,
        whole,
        block,
        *moves,
        HALF_TOLERANCE if any(map(_is_half, layers)) else TOLERANCE,
        **settings,
    )
    kept = [H for H in whole.subgroups if set(H.elements) <= set(commuting)]
    largest = max(kept, key=lambda H: H.order)
    if largest != whole:
        notes.append(
            f"the loss does not keep {whole.name}, so that only the subgroups of "
            f"{largest.name} can be tested; eq.symmetry finds the layer that breaks it"
        )
    if largest.order == 1:
        notes.append("the network is tied to no group, so that there is none to test")
    return largest, notes


def _is_half(each: ProbedLayer) -> bool:
    kinds = (each.layer.dtype, each.layer.param_dtype)
    return any(kind is not None and jnp.finfo(kind).bits < 32 for kind in kinds)


def _lattice(whole: Group, groups: Sequence[Group] | None) -> tuple[Group, ...]:
    """Return the groups to test, with their joins."""
    if groups is None:
        return whole.subgroups
    for group in groups:
        if group.ambient != whole.ambient or not group <= whole:
            raise ValueError(
                f"groups must be subgroups of {whole!r}, which the network is tied to, "
                f"got {group!r}{difference(group.ambient, whole.ambient)}"
            )
    return lattice_of(groups or (whole.smallest,))


def _gram(
    each: ProbedLayer, gradients: np.ndarray, whole: Group, whiten: bool
) -> np.ndarray:
    """Return (order, blocks, blocks): <g_b, u . g_c>, less what the group leaves.

    The part that all elements leave as it is stays the same however blocks are moved;
    without it, differences are not those of large numbers.
    """
    blocks = len(gradients)
    table = each.table(whole)
    mean = sum(moved_by(gradients, table, i) for i in range(whole.order)) / whole.order
    left = gradients - mean
    if whiten:
        left = left * _whitening(left, table)
    flat = left.reshape(blocks, -1)
    return np.stack(
        [
            flat @ moved_by(left, table, i).reshape(blocks, -1).T
            for i in range(whole.order)
        ]
    )


def _whitening(gradients: np.ndarray, table: Table) -> np.ndarray:
    """Return (entries, channels): one over the root mean square of an orbit's entries.

    It is the same however blocks are moved, so that the test stays exact.
    """
    squares = np.mean(gradients**2, 0)
    cells = np.asarray(table.cells)
    size = np.bincount(cells)
    sums = np.zeros((len(size), squares.shape[-1]), np.float32)
    np.add.at(sums, cells, squares)
    means = (sums / size[:, None])[cells].astype(np.float32)
    return 1 / np.sqrt(means + means.mean() + np.finfo(np.float32).tiny)


def _summed(
    gains: Sequence[Mapping[Any, Gain]], lattice: Sequence[Any]
) -> dict[Any, Gain]:
    """Return the gain of relaxing all layers to a group."""
    return {
        H: Gain(
            sum(own[H].nats for own in gains), sum(own[H].parameters for own in gains)
        )
        for H in lattice
    }


def _rows(
    results: Mapping[Any, Outcome], level: float, gains: Mapping[Any, Gain]
) -> dict[str, GroupEvidence]:
    return {
        group.name: GroupEvidence(
            group=group,
            statistic=outcome.statistic,
            evidence=outcome.evidence,
            p=outcome.p,
            adjusted=outcome.adjusted,
            rejected=outcome.adjusted <= level,
            gain=gains[group].nats,
            added_parameters=gains[group].parameters,
        )
        for group, outcome in results.items()
    }
