"""EquiNAS_S: the test of one network says which groups the layers should have.

A network is trained with the largest group everywhere, as a probe. An exact test of its
gradients (`eqjax.symmetry_test`) names the group that the data have. That group is
given to the late layers, and the early ones keep the largest: filters of strokes and
edges are worth sharing among directions that the images as a whole do not share. Then
either a network of these groups is trained from scratch, or the probe is relaxed and
trained on. No child is trained on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from eqjax.analysis.evidence import SymmetryTest
from eqjax.analysis.held_out import HeldOutTest
from eqjax.groups.group import Group
from eqjax.models.architecture import Architecture
from eqjax.models.cnn import EquivariantCNN
from eqjax.models.stages import StagedModel
from eqjax.morphism.matching import Path
from eqjax.morphism.variables import morph
from eqjax.training.evaluation import mean_and_error, sample_losses
from eqjax.training.losses import LossFn, cross_entropy

Searched = TypeVar("Searched", EquivariantCNN, StagedModel)


class Named(NamedTuple):
    """The group that a test names.

    Attributes:
      group: the only maximal group that is not rejected; of several, the one with the
        least evidence against it.
      decided: whether it is the only one.
    """

    group: Group
    decided: bool


def named_group(report: SymmetryTest | HeldOutTest) -> Named:
    """Return the group that a test names, and whether the data decide it."""
    groups = report.maximal
    evidence = {H: report.network[H.name].evidence for H in groups if H.order > 1}
    return Named(min(groups, key=lambda H: evidence.get(H, np.inf)), len(groups) == 1)


def guided_schedule(
    architecture: Architecture, group: Group, late: float = 0.5
) -> Architecture:
    """Return an architecture whose late layers are relaxed to a group.

    Args:
      architecture: of the probe.
      group: to relax to; layers go to what they have in common with it.
      late: share of the layers, counted from the output and rounded down, but one at
        the least; 1 for all.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> probe = eq.Architecture.uniform(D4, 5)
    >>> str(guided_schedule(probe, D4.subgroup("C4")))
    'D4 D4 D4 C4 C4'
    """
    if not 0 < late <= 1:
        raise ValueError(f"late must be above 0 and at most 1, got {late}")
    early = len(architecture) - max(1, int(late * len(architecture)))
    return Architecture(
        tuple(
            H if layer < early else H.meet(group)
            for layer, H in enumerate(architecture.groups)
        )
    )


def evident_schedule(
    architecture: Architecture,
    layer_names: Sequence[str],
    evidence: Mapping[Path, Mapping[str, float]],
) -> Architecture:
    """Return an architecture of the groups with the most evidence, layer by layer.

    Args:
      architecture: of the probe.
      layer_names: one for each of its entries; the paths of an entry's layers begin
        with it, and their evidence adds up.
      evidence: by path and name of the group, as of `eqjax.laplace_evidence`.

    Returns:
      The most likely groups, each cut down to what the group before it has, so that
      symmetry that was given up does not come back.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> rows = {("conv1",): {"D4": 0.0, "C4": -3.0}, ("head",): {"D4": 0.0, "C4": 2.0}}
    >>> str(evident_schedule(eq.Architecture.uniform(D4, 2), ("conv1", "head"), rows))
    'D4 C4'
    """
    found: list[Group] = []
    for name, group in zip(layer_names, architecture.groups, strict=True):
        total: dict[str, float] = {}
        for path, row in evidence.items():
            if path[0] == name:
                for H, value in row.items():
                    total[H] = total.get(H, 0.0) + value
        best = group
        if total:
            best = group.ambient.subgroup(max(total, key=total.__getitem__))
        found.append(best.meet(*found[-1:]))
    return Architecture(tuple(found))


class Tightened(NamedTuple):
    """What a layer's projection onto a larger group did.

    Attributes:
      layer: its number.
      source: the group it had.
      target: the larger one that was tried.
      difference: mean increase of the held-out loss, in nats, over paired samples.
      standard_error: of that mean.
    """

    layer: int
    source: Group
    target: Group
    difference: float
    standard_error: float

    @property
    def accepted(self) -> bool:
        """Whether the loss rises by no more than its standard error."""
        return self.difference <= self.standard_error


def tighten(
    variables: Mapping[str, Any],
    *,
    model: Searched,
    larger: Group,
    x: Any,
    y: Any,
    loss_fn: LossFn = cross_entropy,
) -> tuple[Searched, tuple[Tightened, ...]]:
    """Project layers whose relaxed part is no larger than its noise, the way back.

    Layer by layer from the input: its kernel is projected onto a larger group, and
    keeps it where the losses of held-out samples, paired, rise by no more than one
    standard error of their mean difference. Groups never grow with depth.

    Args:
      variables: of the model.
      model: the network, trained.
      larger: the group to go back to.
      x: (samples, *space, channels), held out.
      y: (samples,), their labels.
      loss_fn: (outputs, y) -> a loss per sample.

    Returns:
      The network in the groups that are left, for `eqjax.morph` to carry the variables
      to, and what was tried.
    """
    inputs = jax.ShapeDtypeStruct((1, *np.shape(x)[1:]), np.asarray(x[:1]).dtype)
    tried: list[Tightened] = []
    kept, now = model, sample_losses(variables, x, y, model=model, loss_fn=loss_fn)
    for layer, group in enumerate(model.architecture.groups):
        before = kept.architecture.groups[layer - 1] if layer else larger
        target = before.meet(larger)
        if not group < target:
            continue
        tight = kept.clone(architecture=kept.architecture.replace(layer, target))
        moved, _ = morph(variables, source=model, target=tight, inputs=inputs)
        then = sample_losses(moved, x, y, model=tight, loss_fn=loss_fn)
        result = Tightened(layer, group, target, *mean_and_error(then - now))
        tried.append(result)
        if result.accepted:
            kept, now = tight, then
    return kept, tuple(tried)
