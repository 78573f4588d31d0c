"""Trained convolutions and norms of escnn, as layers that compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from eqjax.constraints.collections import BATCH_STATS, PARAMS
from eqjax.exchange.importing import from_conv
from eqjax.groups.checks import check_group
from eqjax.groups.group import Group
from eqjax.layers.conv import GroupConv
from eqjax.layers.convolving import Basis
from eqjax.layers.norms import BatchNorm
from eqjax.ops.windows import Padding

TIED = 1e-4  # relative remainder below which a kernel of escnn counts as tied


def from_escnn(
    weight: Any,
    *,
    group: Group,
    bias: Any = None,
    lifting: bool = False,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    basis: Basis = None,
) -> tuple[GroupConv, dict[str, Any]]:
    """Return the layer that computes what an exported convolution of escnn does.

    Takes `R2Conv.export()` between regular fields over the whole of any C_N or D_N, or
    from an image: escnn and eqjax number their elements alike. The D1 of escnn flips
    axis 1, the columns, as `eq.dihedral(1)` does. For angles finer than right ones the
    layer has the coefficients of the same circular harmonics; where rings or
    frequencies are not escnn's defaults, `basis` says which.

    Args:
      weight: (out, in, *taps), fields outermost and group elements inside.
      group: the group of the fields, an ambient one.
      bias: (out,), or None.
      lifting: the input is an image (trivial fields).
      strides: of the layer.
      padding: of the layer; escnn's padding=2 is 2 here.
      kernel_dilation: of the layer.
      basis: of the layer, see `eq.GroupConv`.

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
        basis=basis,
    )
    if near.relative_remainder > TIED:
        raise ValueError(
            f"{100 * near.relative_remainder:.2g} % of the weights do not commute with "
            f"{group!r}; are the fields regular ones of this very group, and is this "
            "the exported convolution? Are rings and frequencies those of its circular "
            "harmonics, basis=? from_conv(..., layout='escnn') takes the nearest"
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
    check_group("group", group)
    layer = BatchNorm(
        use_running_average=use_running_average,
        momentum=momentum,
        epsilon=epsilon,
        group=group,
    )
    size = group.ambient.order

    def per_field(name: str, values: Any) -> np.ndarray:
        given = np.asarray(values)
        if given.ndim != 1 or not given.size or given.dtype.kind not in "iuf":
            raise ValueError(
                f"{name} must be numbers, one per channel, got {values!r:.60}"
            )
        if not np.isfinite(given).all():
            raise ValueError(f"{name} must be finite, got {values!r:.60}")
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
