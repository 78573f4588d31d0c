"""Convolutions and linear maps of irreps of O(3) or O(2), tied to any subgroup.

The arrays are those of e3nn-jax, whose gates, norms and activations stand between the
layers as they are: they commute with all of O(3). What is relaxed are the maps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from eqjax import kernels
from eqjax.fields.irreps import IrrepsFiber
from eqjax.groups.checks import check_array
from eqjax.groups.closed import Symmetry
from eqjax.kernels.tied import Initializer, Parametrization
from eqjax.layers.convolving import Basis, Convolving
from eqjax.ops.convolution import convolve
from eqjax.ops.windows import Padding


class OnIrreps(Convolving):
    """What layers share that read and write components of irreps."""

    morphable: ClassVar[frozenset[str]] = Convolving.morphable | {
        "precision",
        "kernel_init",
    }

    def __post_init__(self) -> None:
        """Keep irreps as text, which compares, hashes and is saved."""
        object.__setattr__(self, "irreps_in", str(self.irreps_in))
        object.__setattr__(self, "irreps_out", str(self.irreps_out))
        super().__post_init__()

    @property
    def fibers(self) -> tuple[IrrepsFiber, IrrepsFiber]:
        """The components that are read, and those that are written."""
        return IrrepsFiber(self.irreps_in), IrrepsFiber(self.irreps_out)

    def _components(self, x: Any, axes: int | None) -> jax.Array:
        """Return the components of an input, as one array."""
        fiber = self.fibers[0]
        if hasattr(x, "irreps"):
            if str(x.irreps) != fiber.irreps:
                raise ValueError(
                    f"{type(self).__name__} reads {fiber.irreps}, got an IrrepsArray "
                    f"of {x.irreps}; x.rechunk({fiber.irreps!r}) splits it alike"
                )
            x = x.array
        check_array("x", x)
        if (
            x.ndim == 0
            or (axes is not None and x.ndim != axes + 2)
            or x.shape[-1] != fiber.size
        ):
            points = "..." if axes is None else f"batch, {axes} spatial axes"
            raise ValueError(
                f"{type(self).__name__} takes ({points}, {fiber.size}) for irreps "
                f"{fiber.irreps}, got {x.shape}"
            )
        return x

    def _as_given(self, y: jax.Array, x: Any) -> Any:
        """Return an output in the form of the input."""
        if not hasattr(x, "irreps"):
            return y
        import e3nn_jax

        return e3nn_jax.IrrepsArray(self.fibers[1].irreps, y)


class IrrepsConv(OnIrreps):
    """Convolve a field of irreps on voxels or pixels, commuting with a subgroup.

    K(u y) = rho_in(u) K(y) rho_out(u)^-1 for every u of `group`, with K(y) the matrix
    from components to components at a tap y. The parameter holds coordinates in an
    orthonormal basis of these kernels (`eqjax.kernels.intertwiners`; Weiler et al. 2018
    for O(3) itself), so that `eq.morph` relaxes O(3) > Oh > ... > C1 without changing
    what the layer computes. Takes (batch, *space, irreps_in.dim), returns (batch,
    *space_out, irreps_out.dim), as arrays or as `e3nn_jax.IrrepsArray`.

    `GroupConv` with an `IrrepsFiber` is the same layer with channels; it also goes
    between regular fields and irreps.

    Attributes:
      irreps_out: what it writes, such as "8x0e + 4x1o", or an `e3nn_jax.Irreps`.
      kernel_size: taps per spatial axis, or one integer for all axes.
      strides: as all that follow to `bias_init`, see `GroupConv`.
      padding: see `GroupConv`.
      kernel_dilation: see `GroupConv`.
      use_bias: add a bias to the components that the group keeps.
      dtype: see `GroupConv`.
      param_dtype: see `GroupConv`.
      precision: see `GroupConv`.
      kernel_init: initializer of the full kernel, (*taps, irreps_in.dim,
        irreps_out.dim).
      bias_init: initializer of the full bias, (irreps_out.dim, 1).
      group: a `Group` that acts exactly on the taps, such as
        `eq.full_octahedral().subgroup("D4h", 0)`, or a closed subgroup of O(3), such as
        `eq.orthogonal()`. One of infinite order has kernels of harmonics and radial
        functions, sampled on the taps: it commutes exactly with the symmetries of the
        cube that it holds, and nearly with its other elements.
      irreps_in: what it reads.
      rings: of a group of infinite order, how many Gaussian radial functions there are,
        evenly from the centre to the nearest border; one per distance if None, which is
        all that the taps allow.
      parametrization: "tied" or "orthonormal", see `eqjax.kernels`.
      constraint: how kernel and bias arise from the parameters.
      basis: in the plane, see `GroupConv`; closed subgroups of O(2) have harmonics.

    >>> import eqjax as eq
    >>> layer = IrrepsConv("4x0e + 2x1o", 3, group=eq.orthogonal(), irreps_in="1o")
    >>> x = jnp.ones((1, 6, 6, 6, 3))
    >>> y, _ = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    >>> y.shape
    (1, 6, 6, 6, 10)
    >>> layer = IrrepsConv("4x0e + 2x1", 5, group=eq.orthogonal(2), irreps_in="1")
    >>> flow = jnp.ones((1, 9, 9, 2))
    >>> jax.eval_shape(layer.init_with_output, jax.random.key(0), flow)[0].shape
    (1, 9, 9, 8)
    """

    irreps_out: Any
    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "SAME"
    kernel_dilation: int | Sequence[int] = 1
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: lax.PrecisionLike = None
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    group: Symmetry = dataclasses.field(kw_only=True)
    irreps_in: Any = dataclasses.field(kw_only=True)
    rings: int | None = dataclasses.field(default=None, kw_only=True)  # type: ignore[misc]
    parametrization: Parametrization = dataclasses.field(default="tied", kw_only=True)
    basis: Basis = dataclasses.field(default=None, kw_only=True)  # type: ignore[misc]

    feature_group_count: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Convolve (batch, *space, irreps_in.dim)."""
        components = self._components(x, self.group.dimension)
        kernel, bias, components = self._parameters(components, 1, 1)
        y = convolve(
            components,
            kernels.convolution_layout(kernel),
            circular=self.padding == "CIRCULAR",
            feature_group_count=1,
            precision=self.precision,
            **self._window_settings(components.shape[1:-1]),
        )
        return self._as_given(y if bias is None else y + bias[:, 0], x)


class IrrepsLinear(OnIrreps):
    """Map irreps of O(3) to others at every point, commuting with a subgroup.

    In the place of `e3nn_jax.flax.Linear`, whose maps are those that commute with O(3):
    W rho_in(u) = rho_out(u) W for the elements u of `group` alone. A tensor product
    relaxed to a group is `e3nn_jax.tensor_product`, which loses nothing, followed by
    this. Takes and returns (..., irreps.dim), as arrays or `e3nn_jax.IrrepsArray`.

    Attributes:
      irreps_out: what it writes.
      use_bias: add a bias to the components that the group keeps.
      dtype: of the computation; inferred from inputs and parameters if None.
      param_dtype: of the parameters.
      precision: of the product.
      kernel_init: initializer of the full matrix, (irreps_in.dim, irreps_out.dim).
      bias_init: initializer of the full bias, (irreps_out.dim, 1).
      group: a closed subgroup of O(3), such as `eq.orthogonal().subgroup("C∞v")`, or a
        `Group` that acts on a volume.
      irreps_in: what it reads.
      parametrization: "tied" or "orthonormal", see `eqjax.kernels`.
      constraint: how matrix and bias arise from the parameters.

    >>> import eqjax as eq
    >>> kind = {"irreps_in": "1o", "use_bias": False}
    >>> def count(group):
    ...     layer = IrrepsLinear("1o", group=group, **kind)
    ...     return layer.init(jax.random.key(0), jnp.ones(3))["params"]["kernel"].size
    >>> O3 = eq.orthogonal()
    >>> [count(O3.subgroup(name)) for name in ("O(3)", "C∞v", "C∞", "C1")]
    [1, 2, 3, 9]
    """

    irreps_out: Any
    use_bias: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: lax.PrecisionLike = None
    kernel_init: Initializer = nn.initializers.lecun_normal()
    bias_init: Initializer = nn.initializers.zeros_init()
    group: Symmetry = dataclasses.field(kw_only=True)
    irreps_in: Any = dataclasses.field(kw_only=True)
    parametrization: Parametrization = dataclasses.field(default="tied", kw_only=True)

    taps: ClassVar[tuple[int, ...]] = ()

    def check_identity(self) -> None:
        """Raise ValueError unless it reads what it writes."""
        fiber_in, fiber_out = self.fibers
        if fiber_in != fiber_out:
            raise ValueError(
                f"the identity needs equal irreps, got {fiber_in.irreps} and "
                f"{fiber_out.irreps}"
            )

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Map (..., irreps_in.dim) to (..., irreps_out.dim)."""
        components = self._components(x, None)
        kernel, bias, components = self._parameters(components, 1, 1)
        matrix = kernels.convolution_layout(kernel)
        y = jnp.dot(components, matrix, precision=self.precision)
        return self._as_given(y if bias is None else y + bias[:, 0], x)
