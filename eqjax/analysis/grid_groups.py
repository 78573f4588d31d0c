"""The symmetry test for groups that act exactly on a grid.

A group moves every entry of a kernel to another, or turns it, exactly, so that all that
is drawn at random follows from inner products <g_b, u . g_c> of the gradients of two
blocks, one of them moved (`randomization`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from eqjax.analysis.findings import Findings, notes_on
from eqjax.analysis.gains import Gain, layer_gains
from eqjax.analysis.gradients import (
    Move,
    ProbedLayer,
    block_gradients,
    commuting_elements,
    in_memory,
    moved_by,
    tolerance_of,
    whitening,
)
from eqjax.analysis.motions import Motions
from eqjax.analysis.randomization import closed_test, lattice_of
from eqjax.fields.action import transform
from eqjax.fields.irreps import IrrepsFiber, turned
from eqjax.groups.axes import preserving_subgroup
from eqjax.groups.closed import exact_ambient
from eqjax.groups.group import Group, difference


def find_on_grid(
    variables: Mapping[str, Any],
    layers: Sequence[ProbedLayer],
    blocks: Sequence[tuple[np.ndarray, Any]],
    *,
    groups: Sequence[Group] | None,
    irreps: Any,
    move_targets: Move,
    draws: int,
    whiten: bool,
    memory: int,
    rng: np.random.Generator,
    settings: Mapping[str, Any],
) -> Findings:
    """Test the subgroups of what the network is tied to; arguments of `symmetry_test`.

    Args:
      variables: of the model.
      layers: with a kernel.
      blocks: of samples and targets.
      groups: those to test, or None for all.
      irreps: that the channels of samples transform by, or None.
      move_targets: (y, u) -> u . y.
      draws: how often blocks are moved at random.
      whiten: divide gradients by their root mean square.
      memory: bytes for gradients at a time.
      rng: of the draws.
      settings: of `block_gradients`.
    """
    ambient = exact_ambient(layers[0].layer.group)
    motions = Motions(ambient, [each.layer for each in layers])
    moves = _motion_of(motions, irreps), move_targets
    whole, notes = _testable(variables, layers, motions, blocks[0], moves, settings)
    lattice = _lattice(whole, groups)
    size = len(blocks[0][0])
    grams: list[np.ndarray] = []
    gains: list[dict[Group, Gain]] = []
    for part in in_memory(layers, len(blocks), memory):
        gradients = block_gradients(variables, part, blocks, **settings)
        for each, own in zip(part, gradients, strict=True):
            gains.append(layer_gains(each, own, size, lattice))
            grams.append(_gram(each, own, whole, whiten))
            notes += notes_on(each, own)
        del gradients
    together, alone = closed_test(grams, whole, lattice, draws, rng, memory // 4)
    return Findings(whole, together, alone, gains, notes)


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
    moves: tuple[Move, Move],
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
        tolerance_of(layers),
        **settings,
    )
    kept = [H for H in whole.subgroups if set(H.elements) <= set(commuting)]
    largest = max(kept, key=lambda H: H.order)
    exact = largest.exact_subgroup
    if largest != whole:
        notes.append(
            f"the loss does not keep {whole.name}, so that only the subgroups of "
            f"{largest.name} can be tested; eq.symmetry finds the layer that breaks it"
        )
    coarse = [commuting[u] for u in largest.elements if u not in exact]
    if coarse:
        notes.append(
            f"{largest.name} holds elements that pixels follow approximately, which "
            f"move gradients with an error of up to {100 * max(coarse):.0f} %: what is "
            f"said of groups that are not within {exact.name} is approximate, too"
        )
    if largest.order == 1:
        notes.append("the network is tied to no group, so that there is none to test")
    return largest, notes


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
        left = left * whitening(left, table)
    flat = left.reshape(blocks, -1)
    return np.stack(
        [
            flat @ moved_by(left, table, i).reshape(blocks, -1).T
            for i in range(whole.order)
        ]
    )
