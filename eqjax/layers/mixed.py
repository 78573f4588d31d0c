"""Shorthands for layers whose constraint is a mixture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from eqjax.constraints.mixture import Mixture
from eqjax.groups.group import Group
from eqjax.layers.conv import GroupConv, InvariantHead, LiftingConv


def MixedGroupConv(*arguments: Any, groups: Sequence[Group], **settings: Any):
    """Return a `GroupConv` that mixes several groups.

    A function, for short: the layer is a `GroupConv` with a `Mixture` as constraint.

    Args:
      *arguments: those of `GroupConv`: features, kernel_size, and so on.
      groups: the candidates.
      **settings: attributes of `GroupConv` and of `Mixture`.
    """
    return _mixed(GroupConv, arguments, groups, settings)


def MixedLiftingConv(*arguments: Any, groups: Sequence[Group], **settings: Any):
    """Return a `LiftingConv` that mixes several groups; see `MixedGroupConv`."""
    return _mixed(LiftingConv, arguments, groups, settings)


def MixedInvariantHead(*arguments: Any, groups: Sequence[Group], **settings: Any):
    """Return an `InvariantHead` that mixes several groups; see `MixedGroupConv`."""
    return _mixed(InvariantHead, arguments, groups, settings)


def _mixed(
    layer: type[GroupConv],
    arguments: tuple,
    groups: Sequence[Group],
    settings: dict[str, Any],
) -> GroupConv:
    own = {field.name for field in dataclasses.fields(Mixture)} & settings.keys()
    mixture = Mixture(tuple(groups), **{name: settings.pop(name) for name in own})
    settings.setdefault("group", mixture.groups[0].join(*mixture.groups[1:]))
    return layer(*arguments, constraint=mixture, **settings)
