"""Plain convolutions and norms as layers with a group: the nearest, and what is left.

Real channels of a plain network become a fiber and channels. Which of them belong
together is a choice that the plain network does not make:

| layout | weights | real channels |
|---|---|---|
| "HWIO" | (*taps, in, out), as in JAX | elements outermost, as eqjax merges them |
| "OIHW" | (out, in, *taps), as in PyTorch | the same |
| "escnn" | (out, in, *taps), exported by escnn | fields outermost, elements inside |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax.constraints.base import Constraint, Tied
from eqjax.constraints.collections import PARAMS
from eqjax.exchange.channels import (
    fields_last,
    full_arrays_of,
    matched_order,
    real_arrays,
)
from eqjax.fields.fiber import Fiber, regular, trivial
from eqjax.groups.checks import check_choice, check_group
from eqjax.groups.group import Group
from eqjax.layers.conv import GroupConv, LiftingConv
from eqjax.layers.convolving import Basis
from eqjax.ops.windows import Padding
from eqjax.training.checks import check_variables

Layout = Literal["HWIO", "OIHW", "escnn"]


class PlainConv(NamedTuple):
    """The weights and settings of a plain convolution, those of `flax.linen.Conv`.

    Attributes:
      kernel: (*taps, in / feature_group_count, out), of real channels.
      bias: (out,), or None.
      strides: per spatial axis.
      padding: a string or (low, high) per axis.
      kernel_dilation: per spatial axis.
      feature_group_count: into how many parts the channels are split.
    """

    kernel: Any
    bias: Any = None
    strides: Any = 1
    padding: Any = "SAME"
    kernel_dilation: Any = 1
    feature_group_count: int = 1


@dataclasses.dataclass(frozen=True)
class NearestLayer:
    """A layer with a group, as near to a plain one as its constraint allows.

    Attributes:
      layer: the layer.
      variables: of the layer.
      remainder: the plain weights minus those of the layer, by the names kernel and
        bias, in float64; in the layout "HWIO" with fiber elements outermost, whatever
        layout was given.
      order: (out,) the real channel of the plain convolution that stands at each place.
    """

    layer: GroupConv
    variables: dict[str, Any]
    remainder: dict[str, np.ndarray]
    order: np.ndarray

    @property
    def relative_remainder(self) -> float:
        """Norm of the remainder over that of the plain kernel."""
        left = self.remainder["kernel"]
        own = np.asarray(to_conv(self.layer, self.variables).kernel, np.float64)
        size = np.linalg.norm(left + own)
        return float(np.linalg.norm(left) / size) if size else 0.0


def to_conv(layer: GroupConv, variables: Mapping[str, Any]) -> PlainConv:
    """Return the plain convolution that computes what a layer does.

    Args:
      layer: a convolution of eqjax, of any constraint.
      variables: of the layer itself.

    Returns:
      Weights and settings for `jax.lax` or `flax.linen.Conv`, on real channels with
      fiber elements outermost: real channel = element * channels + channel, within each
      part that `feature_group_count` splits the channels into. Of a
      `GroupConvTranspose`, those of `flax.linen.ConvTranspose`; of an `InvariantHead`,
      those that follow the mean over space.

    Raises:
      TypeError: the layer is no convolution; `eq.export` takes whole models.

    >>> import eqjax as eq
    >>> layer = eq.LiftingConv(2, 3, group=eq.dihedral(4))
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    >>> to_conv(layer, variables).kernel.shape
    (3, 3, 3, 16)
    """
    if not isinstance(layer, GroupConv):
        raise TypeError(
            f"to_conv takes a convolution of eqjax, got {type(layer).__name__}; "
            "eq.export takes whole models, norms and all"
        )
    check_variables("variables", variables)
    arrays = real_arrays(layer, layer.read(own_variables(variables)))
    return PlainConv(
        arrays["kernel"],
        arrays.get("bias"),
        layer.strides,
        layer.padding,
        layer.kernel_dilation,
        layer.feature_group_count,
    )


def from_conv(
    kernel: Any,
    *,
    group: Group,
    bias: Any = None,
    variables: Mapping[str, Any] | None = None,
    layout: Layout = "HWIO",
    lifting: bool = False,
    fiber_in: Fiber | None = None,
    fiber_out: Fiber | None = None,
    constraint: Constraint = Tied(),  # noqa: B008
    order: Literal["as given", "matched"] | np.ndarray = "as given",
    input_order: np.ndarray | None = None,
    strides: int | Sequence[int] | None = None,
    padding: Padding | None = None,
    kernel_dilation: int | Sequence[int] | None = None,
    feature_group_count: int | None = None,
    basis: Basis = None,
) -> NearestLayer:
    """Return the layer of a group that is nearest to a plain convolution.

    Nearest is the mean over the orbits of the group, in the norm of the kernel. The
    plain weights are those of the layer plus the remainder, to rounding in float64.
    With a constraint that keeps a free part, such as `eq.ResidualPathway()`, the layer
    is the plain convolution itself, in float32, and the remainder is next to nothing.

    Args:
      kernel: an array; a `flax.linen.Conv`, with its `variables`; or a
        `flax.nnx.Conv`. Of a layer, strides, padding, dilation, feature groups and bias
        are taken over.
      group: H, a subgroup of the ambient group that fibers are over.
      bias: (out,), with an array.
      variables: of the linen layer.
      layout: of arrays; see the table of this module.
      lifting: the input is an image; the result is a `LiftingConv`.
      fiber_in: of the input; regular if None.
      fiber_out: of the output; regular if None.
      constraint: of the layer.
      order: which real output channels become which elements and channels: as they are
        given, or "matched", a search for the order with a small remainder (assignments
        in turns with orbit means, which ends in a local minimum); or the order itself,
        (out,). What reads the channels next is to be given the same `input_order`.
      input_order: (in,) of the real input channels.
      strides: of the layer; those of the convolution, or 1, if None.
      padding: the same; or "SAME".
      kernel_dilation: the same; or 1.
      feature_group_count: the same; or 1.
      basis: of the layer, see `eq.GroupConv`. With circular harmonics it has the mean,
        over the group, of the coefficients that are nearest to the kernel.

    Raises:
      ValueError: real channels that the fiber does not divide, with the nearest that it
        does; or an unknown layout or order.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> kernel = np.random.default_rng(0).normal(size=(3, 3, 16, 24))
    >>> near = from_conv(kernel, group=D4)
    >>> near.layer.features, near.variables["params"]["kernel"].shape
    (3, (72, 2, 3))
    >>> plain = np.asarray(to_conv(near.layer, near.variables).kernel, np.float64)
    >>> bool(np.abs(plain + near.remainder["kernel"] - kernel).max() < 1e-10)
    True
    """
    check_choice("layout", layout, get_args(Layout))
    check_group("group", group)
    plain = _plain(kernel, bias, variables, layout)
    asked: dict[str, Any] = {
        "strides": strides,
        "padding": padding,
        "kernel_dilation": kernel_dilation,
        "feature_group_count": feature_group_count,
    }
    given = {
        name: getattr(plain, name) if value is None else value
        for name, value in asked.items()
    }
    weights = np.asarray(plain.kernel)
    if not np.isfinite(weights).all():
        raise ValueError("kernel must be finite, got some that is not a number")
    if weights.ndim != group.dimension + 2:
        raise ValueError(
            f"a kernel for {group!r} has {group.dimension} axes of taps, in and out, "
            f"got shape {weights.shape}"
        )
    *taps, real_in, real_out = weights.shape
    if lifting:
        fiber_in = trivial(group)
    sources = fiber_in or regular(group)
    targets = fiber_out or regular(group)
    split = int(given["feature_group_count"])
    _check_divides("input", real_in, sources)
    _check_divides("output", real_out, targets)
    make: Any = LiftingConv if lifting else GroupConv
    layer = make(
        real_out // targets.size,
        tuple(taps),
        group=group,
        use_bias=plain.bias is not None,
        constraint=constraint,
        param_dtype=jax.dtypes.canonicalize_dtype(weights.dtype),
        fiber_in=None if lifting else fiber_in,
        fiber_out=fiber_out,
        basis=basis,
        **given,
    )
    if input_order is not None:
        weights = weights[..., _permutation(input_order, real_in, "input_order"), :]
    fields_first = layout == "escnn"
    if fields_first:
        weights = weights[..., fields_last(real_in, sources.size), :]
        weights = weights[..., fields_last(real_out, targets.size)]
    if isinstance(order, str):
        chosen = np.arange(real_out)
        if order == "matched":
            chosen = matched_order(layer, weights)
        elif order != "as given":
            raise ValueError(
                f"order must be 'as given', 'matched' or an array, got {order!r}"
            )
    else:
        chosen = _permutation(order, real_out, "order")
    real = {"kernel": weights[..., chosen]}
    if fields_first:
        chosen = fields_last(real_out, targets.size)[chosen]
    if plain.bias is not None:
        offset = np.asarray(plain.bias)
        if offset.shape != (real_out,):
            raise ValueError(f"bias must have shape ({real_out},), got {offset.shape}")
        real["bias"] = offset[chosen]
    full = full_arrays_of(layer, {n: jnp.asarray(a) for n, a in real.items()}, split)
    found: dict[str, dict[str, Any]] = {}
    for (kind, name), value in layer.write(full).items():
        found.setdefault(kind, {})[name] = value
    own = to_conv(layer, found)
    remainder = {
        name: np.asarray(array, np.float64) - np.asarray(getattr(own, name), np.float64)
        for name, array in real.items()
    }
    return NearestLayer(layer, found, remainder, chosen)


def own_variables(variables: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Return a layer's variables by collection and name."""
    return {
        (kind, name): value
        for kind, named in nn.meta.unbox(dict(variables)).items()
        for name, value in named.items()
        if not isinstance(value, Mapping)
    }


def _plain(
    kernel: Any, bias: Any, variables: Mapping[str, Any] | None, layout: Layout
) -> PlainConv:
    """Return what was given in one form."""
    if isinstance(kernel, nn.Conv):
        params = nn.meta.unbox(dict(variables or {})).get(PARAMS, {})
        if "kernel" not in params:
            raise ValueError("a linen Conv needs variables=, as from its init")
        weights, offset = params["kernel"], params.get("bias")
    elif hasattr(kernel, "kernel") and hasattr(kernel, "kernel_size"):  # nnx.Conv
        weights = kernel.kernel[...]
        offset = None if getattr(kernel, "bias", None) is None else kernel.bias[...]
    else:
        array = np.asarray(kernel)
        if array.ndim < 3:
            raise ValueError(f"expected the kernel of a convolution, got {array.shape}")
        if layout != "HWIO":
            array = np.moveaxis(array, (1, 0), (-2, -1))
        return PlainConv(array, bias)
    if np.any(np.asarray(getattr(kernel, "input_dilation", 1) or 1) != 1):
        raise ValueError("a convolution with input_dilation has no counterpart")
    return PlainConv(
        weights,
        offset,
        1 if kernel.strides is None else kernel.strides,
        kernel.padding,
        1 if kernel.kernel_dilation is None else kernel.kernel_dilation,
        kernel.feature_group_count,
    )


def _check_divides(side: str, real: int, fiber: Fiber) -> None:
    if real % fiber.size or real < fiber.size:
        near = max(1, round(real / fiber.size)) * fiber.size
        raise ValueError(
            f"{real} real {side} channels are no multiple of the {fiber.size} elements "
            f"of the fiber; the nearest that is one is {near}"
        )


def _permutation(order: Any, size: int, what: str) -> np.ndarray:
    found = np.asarray(order)
    if found.shape != (size,) or not np.array_equal(np.sort(found), np.arange(size)):
        raise ValueError(f"{what} must be a permutation of {size} channels")
    return found
