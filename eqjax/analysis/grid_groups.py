"""The symmetry test for groups that act exactly on a grid.

A group moves every entry of a kernel to another, or turns it, exactly, so that all that
is drawn at random follows from inner products <g_b, u . g_c> of the gradients of two
blocks, one of them moved (`randomization`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eqjax.analysis.findings import Findings, notes_on
from eqjax.analysis.finer_angles import (
    TurnedBlocks,
    turned_samples,
    turns_of,
    without_common_part,
)
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
from eqjax.analysis.randomization import (
    Products,
    closed_test,
    gram_products,
    lattice_within,
)
from eqjax.fields.action import transform
from eqjax.fields.interpolation import interpolated
from eqjax.fields.irreps import IrrepsFiber, turned
from eqjax.groups.axes import preserving_subgroup
from eqjax.groups.closed import exact_ambient
from eqjax.groups.group import Group


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
    exact = whole.exact_subgroup
    if exact != whole and not _turnable(blocks[0], ambient, move_targets):
        notes.append(
            f"elements of {whole.name} that pixels follow approximately are tested on "
            "images with labels alone, not on fields, nor with targets that move"
        )
        whole = exact
    lattice = lattice_within(whole, groups)
    size = len(blocks[0][0])
    turns = None if exact == whole else turns_of(whole)
    turn = _turn_of(irreps)
    count = 1 + (0 if turns is None else len(turns.images))
    products: list[Products] = []
    gains: list[dict[Group, Gain]] = []
    for part in in_memory(layers, count * len(blocks), memory):
        gradients = block_gradients(variables, part, blocks, **settings)
        turned = [
            block_gradients(
                variables, part, turned_samples(blocks, matrix, turn), **settings
            )
            for matrix in (() if turns is None else turns.images)
        ]
        for i, (each, own) in enumerate(zip(part, gradients, strict=True)):
            gains.append(layer_gains(each, own, size, lattice))
            gram = _gram(each, own, exact, whiten)
            found: Products = functools.partial(
                gram_products, gram=gram, whole=exact, memory=memory // 4
            )
            if turns is not None:
                nearly = np.stack([gradient[i] for gradient in turned])
                seen = _seen(nearly, each, whole, whiten)
                table = each.table(whole)
                coarse = TurnedBlocks(seen, table, whole, turns, memory // 4)
                found = functools.partial(_either, exact, found, coarse.products)
            products.append(found)
            notes += notes_on(each, own)
        del gradients, turned
    together, alone = closed_test(products, len(blocks), lattice, draws, rng)
    return Findings(whole, together, alone, gains, notes)


def _either(
    exact: Group, sharp: Products, turned: Products, group: Group, moved: np.ndarray
) -> np.ndarray:
    """Return the products of a group, by images as they are where it is exact."""
    return (sharp if group <= exact else turned)(group, moved)


def _turnable(block: tuple[np.ndarray, Any], ambient: Group, move: Move) -> bool:
    """Tell whether samples are images with labels that stay as they are."""
    x, y = block
    moved = move(y, ambient.elements[-1])
    same = jax.tree.map(lambda a, b: np.array_equal(a, b), y, moved)
    return np.ndim(x) == ambient.dimension + 2 and all(jax.tree.leaves(same))


def _turn_of(irreps: Any) -> Callable[[Any, np.ndarray], np.ndarray]:
    """Return what moves images by any matrix of the plane."""

    def turn(x: Any, matrix: np.ndarray) -> np.ndarray:
        moved = interpolated(jnp.asarray(x), matrix)
        if irreps is not None:
            moved = turned(moved, IrrepsFiber(str(irreps)), matrix)
        return np.asarray(moved)

    return turn


def _seen(
    gradients: np.ndarray, each: ProbedLayer, whole: Group, whiten: bool
) -> np.ndarray:
    """Return (..., entries, channels) gradients as the test looks at them."""
    table = each.table(whole)
    left = without_common_part(gradients, table, whole.order)
    if whiten:
        left = left * whitening(left.reshape(-1, *left.shape[-2:]), table)
    return left


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
            f"{largest.name} holds elements that pixels follow approximately: groups "
            f"beyond {exact.name} are tested on interpolated images, where gradients "
            f"are {100 * max(coarse):.0f} % from those that the elements move"
        )
    if largest.order == 1:
        notes.append("the network is tied to no group, so that there is none to test")
    return largest, notes


def _gram(
    each: ProbedLayer, gradients: np.ndarray, whole: Group, whiten: bool
) -> np.ndarray:
    """Return (order, blocks, blocks): <g_b, u . g_c>, less what the group leaves.

    The part that all elements leave as it is stays the same however blocks are moved;
    without it, differences are not those of large numbers.
    """
    blocks = len(gradients)
    table = each.table(whole)
    left = _seen(gradients, each, whole, whiten)
    flat = left.reshape(blocks, -1)
    return np.stack(
        [
            flat @ moved_by(left, table, i).reshape(blocks, -1).T
            for i in range(whole.order)
        ]
    )
