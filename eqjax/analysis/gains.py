"""What a relaxation of one layer is predicted to gain, from the gradient by its kernel.

A layer tied to H has a gradient of which training has used the part P_H. Relaxed to S
it may also use (P_S - P_H) of it. With curvature by the Fisher information, taken as
equal in all of these directions, the loss can fall by |(P_S - P_H) E g|^2 / (2 f),
where f is the variance of a sample's gradient per direction. The square is estimated
without bias: from products of different blocks alone, so that noise promises nothing.

The same first-order measure says where networks are best grown (GradMax: Evci et al.
2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eqjax.analysis.gradients import ProbedLayer, moved_by
from eqjax.groups.group import Group


class Gain(NamedTuple):
    """What a relaxation brings and costs.

    Attributes:
      nats: predicted decrease of the loss; not above zero where there is nothing but
        noise; NaN where one block alone was seen.
      parameters: how many the kernel has more.
    """

    nats: float
    parameters: int


def layer_gains(
    each: ProbedLayer,
    gradients: np.ndarray,
    block_size: int,
    groups: Sequence[Group],
) -> dict[Group, Gain]:
    """Return what relaxing a layer to each of some groups promises.

    Args:
      each: the layer, in its group H.
      gradients: (blocks, entries, channels), means over the samples of a block.
      block_size: samples of a block.
      groups: to go to; those that are no proper subgroups of H bring nothing.

    Returns:
      The gain by group.
    """
    blocks, own = len(gradients), each.own_group
    table = each.table(own)
    mean = gradients.mean(0)
    of_mean, of_blocks = {}, {}  # <m, u . m>, and the mean of <g_b, u . g_b>
    for i, u in enumerate(own.elements):
        of_mean[u] = float(np.vdot(mean, moved_by(mean, table, i)))
        of_blocks[u] = float(np.vdot(gradients, moved_by(gradients, table, i))) / blocks

    def allowed(squares: dict[int, float], S: Group) -> float:
        """Return |(P_S - P_H) g|^2."""
        inside = [squares[u] for u in S.elements]
        return float(np.mean(inside) - np.mean(list(squares.values())))

    found = {}
    for S in groups:
        if not own > S or blocks == 1:
            found[S] = Gain(np.nan if own > S else 0.0, 0)
            continue
        seen, single = allowed(of_mean, S), allowed(of_blocks, S)
        directions = (each.table(S).num_orbits - table.num_orbits) * each.channels
        found[S] = gain_of(seen, single, directions, blocks, block_size)
    return found


def gain_of(
    seen: float, single: float, directions: int, blocks: int, block_size: int
) -> Gain:
    """Return the gain from squared norms of the part of gradients that is new.

    Args:
      seen: of the mean gradient.
      single: of the gradient of a block, on average.
      directions: that the part has.
      blocks: how many.
      block_size: samples of a block.
    """
    signal = (blocks * seen - single) / (blocks - 1)
    variance = block_size * max(single - signal, 0.0) / max(directions, 1)
    return Gain(signal / (2 * variance) if variance > 0 else 0.0, directions)
