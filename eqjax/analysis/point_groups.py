"""Exact tests of invariance under closed subgroups of O(3), at points.

As `eqjax.analysis.randomization`, where the groups are finite: the gradient of every
block of samples is moved by an element of its own, here one that is drawn uniformly
from a group which may be infinite, and the part of the mean that invariance under a
group S forbids, |m - P_S m|^2, is compared with that of the gradients as they are. P_S
is the projection onto the maps that commute with S, which a basis of them gives.

The tests are closed over the groups that have a name. Where the data have such a
group, or one of those given, it is rejected with probability at most the level, with
all of its subgroups together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from eqjax.analysis.findings import Findings, notes_on
from eqjax.analysis.gains import Gain, gain_of
from eqjax.analysis.gradients import (
    Move,
    ProbedLayer,
    block_gradients,
    tolerance_of,
    whitening,
)
from eqjax.analysis.randomization import TIE, Outcome, closed, result
from eqjax.fields.irreps import IrrepsFiber, representations, turned
from eqjax.groups.closed import ClosedGroup

AT_ONCE = 10  # draws, whose matrices are held together


def at_points(layers: Sequence[ProbedLayer]) -> bool:
    """Tell whether all layers are tied to closed groups and have no taps."""
    return all(
        isinstance(each.layer.group, ClosedGroup) and not each.taps for each in layers
    )


def _own(each: ProbedLayer) -> ClosedGroup:
    found: Any = each.layer.constraint.symmetry(each.layer.group)
    return found


def find_at_points(
    variables: Mapping[str, Any],
    layers: Sequence[ProbedLayer],
    blocks: Sequence[tuple[np.ndarray, Any]],
    *,
    groups: Sequence[ClosedGroup] | None,
    irreps: Any,
    move_targets: Move,
    draws: int,
    whiten: bool,
    memory: int,
    rng: np.random.Generator,
    settings: Mapping[str, Any],
) -> Findings:
    """Test the named closed subgroups of O(3), as `find_on_grid` does finite groups.

    All gradients are held in memory: those of maps at points are small.
    """
    del memory
    if irreps is None:
        raise ValueError(
            "layers over closed groups turn irreps; say by irreps_in how the last axis "
            "of x transforms, such as '1o' for positions"
        )
    fiber = IrrepsFiber(str(irreps))
    whole, notes = commuting_group(
        variables, layers, blocks[0], fiber, move_targets, **settings
    )
    for group in groups or ():
        if not isinstance(group, ClosedGroup) or not group <= whole:
            raise ValueError(f"groups must be subgroups of {whole!r}, got {group!r}")
    wanted = whole.subgroups if groups is None else {*groups, whole.smallest}
    lattice = [H for H in whole.subgroups if H in wanted]
    size = len(blocks[0][0])
    found = block_gradients(variables, layers, blocks, **settings)
    gains = []
    for number, (each, own) in enumerate(zip(layers, found, strict=True)):
        gains.append(closed_gains(each, own, size, lattice))
        notes += notes_on(each, own)
        if whiten:
            found[number] = own * whitening(own, each.table(whole))
    together, alone = point_test(layers, found, lattice, draws, rng)
    return Findings(whole, together, alone, gains, notes)


def commuting_group(
    variables: Any,
    layers: Sequence[ProbedLayer],
    sample: tuple[np.ndarray, Any],
    fiber: IrrepsFiber,
    move_targets: Move,
    **settings: Any,
) -> tuple[ClosedGroup, list[str]]:
    """Return the largest named group that all layers and the loss commute with.

    With a note where that is less than what the layers are tied to.
    """
    tolerance = tolerance_of(layers)
    tied = _own(layers[0]).meet(*(_own(each) for each in layers[1:]))
    x, y = sample

    def gradients(matrix: np.ndarray) -> list[np.ndarray]:
        moved = np.asarray(turned(jnp.asarray(x), fiber, matrix))
        block = (moved, move_targets(y, matrix))
        return block_gradients(variables, layers, [block], **settings)

    reference = gradients(np.eye(3))

    def commutes(matrix: np.ndarray) -> bool:
        for each, before, after in zip(
            layers, reference, gradients(matrix), strict=True
        ):
            size = np.linalg.norm(before)
            error = np.linalg.norm(after[..., 0] - _moved(each, before, matrix[None]))
            if size and error > tolerance * size:
                return False
        return True

    known: dict[bytes, bool] = {}

    def kept(matrix: np.ndarray) -> bool:
        key = matrix.tobytes()
        if key not in known:
            known[key] = commutes(matrix)
        return known[key]

    largest = tied.keeping(kept)
    if largest == tied:
        return tied, []
    return largest, [
        f"the network or the loss does not keep {tied.name}, so that only subgroups of "
        f"{largest.name} can be tested; eq.equivariance_error measures by how much"
    ]


def _moved(
    each: ProbedLayer, gradients: np.ndarray, matrices: np.ndarray
) -> np.ndarray:
    """Return (count, entries), the gradients of as many blocks, each moved."""
    fiber_in, fiber_out = each.layer.fibers
    own = gradients.reshape(-1, fiber_in.size, fiber_out.size)
    found = np.einsum(
        "bij,bjk,blk->bil",
        representations(fiber_in.irreps, matrices).astype(np.float32),
        own,
        representations(fiber_out.irreps, matrices).astype(np.float32),
        optimize=True,
    )
    return found.reshape(len(own), -1)


def point_test(
    layers: Sequence[ProbedLayer],
    gradients: Sequence[np.ndarray],
    groups: Sequence[ClosedGroup],
    draws: int,
    rng: np.random.Generator,
) -> tuple[dict[ClosedGroup, Outcome], list[dict[ClosedGroup, Outcome]]]:
    """Test every group, with all layers together and with each alone.

    Args:
      layers: without taps.
      gradients: per layer (blocks, entries, 1).
      groups: to test, largest first.
      draws: how many times the gradients are moved at random.
      rng: of the draws.

    Returns:
      As `randomization.closed_test`.
    """
    projections = [[_projection(each, S) for S in groups] for each in layers]
    together: dict[ClosedGroup, Outcome] = {}
    alone: list[dict[ClosedGroup, Outcome]] = [{} for _ in layers]
    for group in groups:
        lower = [i for i, S in enumerate(groups) if group >= S]
        inside = [i for i in lower if groups[i].order > 1 or group.order == 1]
        inside.sort(key=lambda i: groups[i] != group)  # itself first
        moved = _means_of_moved(layers, gradients, group, draws, rng)
        means = [
            np.concatenate([own[..., 0].mean(0)[None], drawn])
            for own, drawn in zip(gradients, moved, strict=True)
        ]
        values = np.stack(
            [
                np.stack([_forbidden(mean, own[i]) for i in inside])
                for mean, own in zip(means, projections, strict=True)
            ]
        )
        together[group] = result(values)
        for layer, results in enumerate(alone):
            results[group] = result(values[layer : layer + 1])
    return closed(together), [closed(results) for results in alone]


def _means_of_moved(
    layers: Sequence[ProbedLayer],
    gradients: Sequence[np.ndarray],
    group: ClosedGroup,
    draws: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Return per layer (draws, entries): the mean, every block moved at random.

    All layers are moved by the same elements.
    """
    blocks = len(gradients[0])
    pairs = list(zip(layers, gradients, strict=True))
    if not math.isinf(group.order):
        chosen = rng.integers(len(group.matrices), size=(draws, blocks))
        found = [np.zeros((draws, own.shape[1]), np.float32) for own in gradients]
        for number, matrix in enumerate(group.matrices):
            share = (chosen == number).astype(np.float32) / blocks
            alike = np.broadcast_to(matrix, (blocks, 3, 3))
            for total, (each, own) in zip(found, pairs, strict=True):
                total += share @ _moved(each, own, alike)
        return found
    means: list[list[np.ndarray]] = [[] for _ in layers]
    for begin in range(0, draws, AT_ONCE):
        count = min(AT_ONCE, draws - begin)
        elements = group.sample(rng, count * blocks)
        for own_means, (each, own) in zip(means, pairs, strict=True):
            moved = _moved(each, np.tile(own, (count, 1, 1)), elements)
            own_means.append(moved.reshape(count, blocks, -1).mean(1))
    return [np.concatenate(own) for own in means]


def _projection(each: ProbedLayer, group: ClosedGroup) -> np.ndarray:
    """Return (entries, directions), orthonormal columns: what commutes with a group."""
    table: Any = each.table(group)
    basis = table.spread(np.diag(table.size**-0.5))
    entries = math.prod(table.shape)
    return basis.reshape(entries, table.num_orbits).astype(np.float32)


def _forbidden(means: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the squared norms of what is left; what rounding leaves of 0 is 0."""
    whole = np.sum(means.astype(np.float64) ** 2, 1)
    left = whole - np.sum((means @ basis).astype(np.float64) ** 2, 1)
    return np.where(left > TIE * whole, left, 0)


def closed_gains(
    each: ProbedLayer,
    gradients: np.ndarray,
    block_size: int,
    groups: Sequence[ClosedGroup],
) -> dict[ClosedGroup, Gain]:
    """Return what relaxing a layer to each group promises, as `layer_gains` does."""
    own = _own(each)
    blocks = len(gradients)
    flat = gradients.reshape(blocks, -1)
    both = np.concatenate([flat, flat.mean(0)[None]])

    def squares(group: ClosedGroup) -> tuple[float, float]:
        inside = np.sum((both @ _projection(each, group)) ** 2, 1)
        return float(inside[-1]), float(inside[:-1].mean())

    before = squares(own)
    found = {}
    for S in groups:
        if not own > S or blocks == 1:
            found[S] = Gain(np.nan if own > S else 0.0, 0)
            continue
        seen, single = (a - b for a, b in zip(squares(S), before, strict=True))
        directions = each.table(S).num_orbits - each.table(own).num_orbits
        found[S] = gain_of(seen, single, directions, blocks, block_size)
    return found
