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
from eqjax.constraints.collections import BATCH_STATS, PARAMS
from eqjax.exchange.plain import real_arrays, split_of
from eqjax.fields.fiber import Fiber, regular, trivial
from eqjax.groups.group import Group
from eqjax.layers.base import TiedModule
from eqjax.layers.conv import GroupConv, LiftingConv, split_fiber
from eqjax.layers.norms import BatchNorm
from eqjax.ops.windows import Padding

Layout = Literal["HWIO", "OIHW", "escnn"]
TIED = 1e-4  # relative remainder below which a kernel of escnn counts as tied


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
    if layout not in get_args(Layout):
        raise ValueError(f"layout must be one of {get_args(Layout)}, got {layout!r}")
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
        real["bias"] = np.asarray(plain.bias)[chosen]
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


def from_escnn(
    weight: Any,
    *,
    group: Group,
    bias: Any = None,
    lifting: bool = False,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
) -> tuple[GroupConv, dict[str, Any]]:
    """Return the layer that computes what an exported convolution of escnn does.

    Takes `R2Conv.export()` between regular fields over the whole of D4, C4, D2, C2 or
    D1, or from an image: escnn and eqjax number their elements alike. The D1 of escnn
    flips axis 1, the columns, as `eq.dihedral(1)` does.

    Args:
      weight: (out, in, *taps), fields outermost and group elements inside.
      group: the group of the fields, an ambient one.
      bias: (out,), or None.
      lifting: the input is an image (trivial fields).
      strides: of the layer.
      padding: of the layer; escnn's padding=2 is 2 here.
      kernel_dilation: of the layer.

    Returns:
      The layer and its variables.

    Raises:
      ValueError: the weights do not commute with the group: its elements are numbered
        otherwise, or the fields are not regular.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> weight = np.ones((16, 1, 3, 3), np.float32)  # in your case, exported
    >>> layer, variables = from_escnn(weight, group=D4, lifting=True)
    >>> layer.features
    2
    """
    near = from_conv(
        weight,
        group=group,
        bias=bias,
        layout="escnn",
        lifting=lifting,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
    )
    if near.relative_remainder > TIED:
        raise ValueError(
            f"{100 * near.relative_remainder:.2g} % of the weights do not commute with "
            f"{group!r}; are the fields regular ones of this very group, and is this "
            "the exported convolution? from_conv(..., layout='escnn') takes the nearest"
        )
    return near.layer, near.variables


def from_escnn_norm(
    *,
    mean: Any,
    var: Any,
    scale: Any,
    bias: Any,
    group: Group,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    use_running_average: bool | None = None,
) -> tuple[BatchNorm, dict[str, Any]]:
    """Return the layer that computes what an exported batch norm of escnn does.

    Args:
      mean: (fields elements,) running mean of `InnerBatchNorm.export()`; or (fields,).
      var: running variance, the same.
      scale: its weight, the same.
      bias: its bias, the same.
      group: the group of the fields, an ambient one.
      epsilon: added to the variance; escnn has 1e-5.
      momentum: of the running statistics; one minus that of escnn.
      use_running_average: of the layer.

    Raises:
      ValueError: elements of one field have different numbers.

    >>> import eqjax as eq
    >>> ones = np.ones(16, np.float32)
    >>> layer, variables = from_escnn_norm(
    ...     mean=ones, var=ones, scale=ones, bias=ones, group=eq.dihedral(4))
    >>> variables["batch_stats"]["statistics"]["mean"].shape
    (2,)
    """
    layer = BatchNorm(
        use_running_average=use_running_average,
        momentum=momentum,
        epsilon=epsilon,
        group=group,
    )
    size = group.ambient.order

    def per_field(name: str, values: Any) -> np.ndarray:
        given = np.asarray(values)
        fields = given.reshape(-1, size) if given.size % size == 0 else given[:, None]
        if np.ptp(fields, axis=1).max() > TIED * max(1.0, np.abs(given).max()):
            raise ValueError(
                f"{name} has different numbers for the {size} elements of a field"
            )
        return fields[:, 0]

    numbers = {"scale": scale, "bias": bias, "mean": mean, "var": var}
    found = {name: jnp.asarray(per_field(name, v)) for name, v in numbers.items()}
    full = {
        name: jnp.broadcast_to(found[name], (size, *found[name].shape))
        for name in ("scale", "bias")
    }
    params = {name: value for (_, name), value in layer.write(full).items()}
    statistics = {name: found[name] for name in ("mean", "var")}
    return layer, {PARAMS: params, BATCH_STATS: {"statistics": statistics}}


def own_variables(variables: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """Return a layer's variables by collection and name."""
    return {
        (kind, name): value
        for kind, named in nn.meta.unbox(dict(variables)).items()
        for name, value in named.items()
        if not isinstance(value, Mapping)
    }


def full_arrays_of(
    layer: TiedModule, real: Mapping[str, jax.Array], split: int | None = None
) -> dict[str, jax.Array]:
    """Undo `real_arrays`: full arrays of a layer from those of a plain one.

    Args:
      layer: a convolution or a norm.
      real: kernels (*taps, in / feature groups, out) and vectors (fiber channels,).
      split: into how many parts channels are split; that of the layer if None.
    """
    split = split_of(layer) if split is None else split
    found = {}
    for name, array in real.items():
        *taps_and_fibers, target = layer.ties_of(layer.group)[name].table.shape
        if name != "kernel":
            found[name] = split_fiber(array, target, split)
            continue
        *taps, source = taps_and_fibers
        real_in, real_out = array.shape[-2:]
        wide = split_fiber(array, target, split)  # (*taps, in, fiber_out, c_out)
        wide = wide.reshape(
            *taps, source, real_in // source, target, real_out // target
        )
        found[name] = wide.swapaxes(-3, -2)
    return found


def fields_last(real: int, fiber: int) -> np.ndarray:
    """Return the places, fields outermost, of channels with elements outermost."""
    return np.arange(real).reshape(real // fiber, fiber).T.reshape(-1)


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


def matched_order(
    layer: GroupConv, weights: np.ndarray, rounds: int = 20
) -> np.ndarray:
    """Return an order of the real output channels with a small remainder.

    Args:
      layer: without feature groups, which would keep channels apart.
      weights: (*taps, in, out).
      rounds: at most so many assignments.

    Returns:
      (out,): the channel that goes to each place.
    """
    from scipy.optimize import linear_sum_assignment

    if layer.feature_group_count != 1:
        raise ValueError("channels in feature groups are not matched; use 'as given'")
    real_out = weights.shape[-1]
    fiber = layer.fibers[1]
    table = layer.ties_of(layer.group)["kernel"].table
    channels = real_out // fiber.size
    flat = np.asarray(weights, np.float64).reshape(-1, real_out)
    squares = (flat**2).sum(0)

    def averaged(real: np.ndarray, over: float) -> np.ndarray:
        """Return the sum of what each element makes of a kernel, (entries, out)."""
        full = full_arrays_of(layer, {"kernel": jnp.asarray(real)})["kernel"]
        each = jnp.broadcast_to(full, (len(table.sources), *full.shape))
        moved = table.transformed(each).sum(0) / over
        back = real_arrays(layer, {"kernel": moved})["kernel"]
        return np.asarray(back, np.float64).reshape(-1, real_out)

    def wanted(order: np.ndarray) -> np.ndarray:
        """Return the orbit mean of the kernel in an order."""
        return averaged(weights[..., order], len(table.sources))

    def assigned(target: np.ndarray) -> np.ndarray:
        """Return the channel of each place whose kernels are nearest together."""
        distance = squares[:, None] + (target**2).sum(0) - 2 * flat.T @ target
        return linear_sum_assignment(distance.T)[1]

    # Begin with the channels that are given first as the first element's, and let each
    # other place have what is nearest to the moved channel of its orbit.
    orbits = fiber.action[list(layer.group.elements)].min(0)
    alone = np.zeros_like(weights, np.float64)
    for orbit in np.unique(orbits):
        first = np.flatnonzero(orbits == orbit)[0] * channels
        alone[..., first : first + channels] = weights[..., first : first + channels]
    order = assigned(averaged(alone, 1))
    best = np.arange(real_out)
    left = _left(flat, best, wanted(best))
    for _ in range(rounds):
        target = wanted(order)
        now = _left(flat, order, target)
        if now >= left:
            break
        best, left = order, now
        order = assigned(target)
    return best


def _left(flat: np.ndarray, order: np.ndarray, target: np.ndarray) -> float:
    return float(((flat[:, order] - target) ** 2).sum())
