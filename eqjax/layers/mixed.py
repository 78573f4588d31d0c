"""Shorthands for layers whose constraint is a mixture."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from eqjax.constraints.mixture import Mixture
from eqjax.groups.checks import several
from eqjax.groups.group import Group
from eqjax.layers.conv import GroupConv, InvariantHead, LiftingConv


def _takes_settings_of(layer: type[GroupConv]) -> Callable[[Callable], Any]:
    """Show the arguments of a layer and of its mixture, which a function passes on."""
    others = ("constraint", "parent", "groups")
    shown = {
        name: parameter
        for kind in (layer, Mixture)
        for name, parameter in inspect.signature(kind).parameters.items()
        if name not in others
    }
    shown["group"] = shown["group"].replace(default=None)
    groups = inspect.Parameter("groups", inspect.Parameter.KEYWORD_ONLY)

    def show(fn: Callable) -> Callable:
        positional = [p for n, p in shown.items() if n in _POSITIONAL]
        by_name = [p for n, p in shown.items() if n not in _POSITIONAL]
        by_name = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in by_name]
        signature = inspect.Signature([*positional, groups, *by_name])
        fn.__signature__ = signature  # type: ignore[attr-defined]
        return fn

    return show


_POSITIONAL = ("features", "kernel_size", "strides", "padding")


@_takes_settings_of(GroupConv)
def MixedGroupConv(*arguments: Any, groups: Sequence[Group], **settings: Any):
    """Return a `GroupConv` that mixes several groups.

    A function, for short: the layer is a `GroupConv` with a `Mixture` as constraint.

    Args:
      *arguments: those of `GroupConv`: features, kernel_size, and so on.
      groups: the candidates.
      **settings: attributes of `GroupConv` and of `Mixture`, as the signature shows;
        `group` is what the candidates generate if None.

    >>> from eqjax.groups import dihedral
    >>> D4 = dihedral(4)
    >>> layer = MixedGroupConv(8, 3, groups=(D4, D4.subgroup("C4")), temperature=0.5)
    >>> layer.group, layer.constraint.temperature
    (Group(D4), 0.5)
    """
    return _mixed(GroupConv, arguments, groups, settings)


@_takes_settings_of(LiftingConv)
def MixedLiftingConv(*arguments: Any, groups: Sequence[Group], **settings: Any):
    """Return a `LiftingConv` that mixes several groups; see `MixedGroupConv`.

    Args:
      *arguments: those of `LiftingConv`.
      groups: the candidates.
      **settings: attributes of `LiftingConv` and of `Mixture`.

    >>> from eqjax.groups import cyclic
    >>> C4 = cyclic(4)
    >>> MixedLiftingConv(8, 3, groups=(C4.subgroup("C2"), C4.smallest)).group
    Group(C2 < C4)
    """
    return _mixed(LiftingConv, arguments, groups, settings)


@_takes_settings_of(InvariantHead)
def MixedInvariantHead(*arguments: Any, groups: Sequence[Group], **settings: Any):
    """Return an `InvariantHead` that mixes several groups; see `MixedGroupConv`.

    Args:
      *arguments: those of `InvariantHead`.
      groups: the candidates.
      **settings: attributes of `InvariantHead` and of `Mixture`.

    >>> from eqjax.groups import cyclic
    >>> MixedInvariantHead(10, groups=cyclic(4).subgroups).features
    10
    """
    return _mixed(InvariantHead, arguments, groups, settings)


def _mixed(
    layer: type[GroupConv],
    arguments: tuple,
    groups: Sequence[Group],
    settings: dict[str, Any],
) -> GroupConv:
    own = {field.name for field in dataclasses.fields(Mixture)} & settings.keys()
    candidates = several("groups", groups, "Groups")
    mixture = Mixture(candidates, **{name: settings.pop(name) for name in own})
    if settings.get("group") is None:
        settings["group"] = mixture.groups[0].join(*mixture.groups[1:])
    return layer(*arguments, constraint=mixture, **settings)
