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
import numpy as np

from eqjax.analysis.evidence import GroupEvidence, LayerEvidence, SymmetryTest
from eqjax.analysis.gains import Gain
from eqjax.analysis.gradients import (
    check_classes,
    default_block_size,
    probed_layers,
    shuffled_blocks,
)
from eqjax.analysis.grid_groups import find_on_grid
from eqjax.analysis.point_groups import at_points, find_at_points
from eqjax.analysis.randomization import Outcome
from eqjax.fields.keys import host_generator
from eqjax.morphism.matching import tied_model
from eqjax.training.checks import check_samples
from eqjax.training.losses import LossFn, cross_entropy

MoveTargets = Callable[[Any, int], Any]  # (targets, element) -> those moved


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
    check_level(level, draws)
    if block_size is not None and block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    check_samples(x, y)
    inputs = jax.ShapeDtypeStruct((1, *np.shape(x)[1:]), np.asarray(x[:1]).dtype)
    traced = tied_model(model, inputs, call_kwargs)
    layers = probed_layers(traced, variables)
    rng = host_generator(key)
    check_classes(variables, model, x, y, loss_fn, call_kwargs)
    move_targets = checked_motion(move_targets, x, y)

    settings: dict[str, Any] = {
        "model": model,
        "loss_fn": loss_fn,
        "call_kwargs": call_kwargs,
    }
    size = default_block_size(len(x)) if block_size is None else block_size
    blocks = shuffled_blocks(x, y, size, rng)
    find = find_at_points if at_points(layers) else find_on_grid
    found = find(
        variables,
        layers,
        blocks,
        groups=groups,
        irreps=irreps_in,
        move_targets=move_targets,
        draws=draws,
        whiten=whiten,
        memory=memory,
        rng=rng,
        settings=settings,
    )
    notes = list(found.notes)
    if len(blocks) == 1:
        notes.append("one block of samples cannot tell; give more, or smaller blocks")
    lattice = list(found.together)
    return SymmetryTest(
        group=found.group,
        network=_rows(found.together, level, _summed(found.gains, lattice)),
        layers=LayerEvidence(
            (each.path, _rows(results, level, own))
            for each, results, own in zip(layers, found.alone, found.gains, strict=True)
        ),
        level=level,
        blocks=len(blocks),
        block_size=size,
        notes=tuple(notes),
    )


def check_level(level: float, draws: int) -> None:
    """Raise ValueError unless p values of so many draws can reach a level."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    least = int(np.ceil(1 / level)) - 1
    if draws < least:
        raise ValueError(
            f"draws must be at least {least} for p values down to the level {level:g}, "
            f"got {draws}"
        )


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
