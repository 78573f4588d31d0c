"""What layers share that convolve: taps, ties, windows, parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import jax
from flax.linen.dtypes import promote_dtype

from eqjax import kernels
from eqjax.groups.axes import check_preserved
from eqjax.groups.closed import Symmetry, exact_part
from eqjax.kernels.bases import Representation
from eqjax.kernels.harmonics import CircularHarmonics
from eqjax.kernels.tied import Tie
from eqjax.layers.base import TiedModule
from eqjax.ops.windows import Window, per_axis, resolve_padding, sizes

Basis = CircularHarmonics | Literal["pixels"] | None


class Convolving(TiedModule):
    """A module with a full kernel K(y, h, g) over taps, and a bias if wanted.

    A subclass has the fields of `GroupConv` that are read here, and says what its
    fibers are.
    """

    rings: ClassVar[int | None] = None  # see `IrrepsConv`
    basis: ClassVar[Any] = None  # see `GroupConv`

    def __post_init__(self) -> None:
        """Reject fibers that are none, and a basis that is none, or has no place."""
        super().__post_init__()
        for name in ("fiber_in", "fiber_out"):
            fiber = getattr(self, name, None)
            if not isinstance(fiber, Representation | None):
                raise TypeError(
                    f"{name} must be a Fiber, such as eq.quotient(group), or an "
                    f"IrrepsFiber, got {fiber!r}"
                )
        if self.basis is None or self.basis == "pixels":
            return
        if not isinstance(self.basis, CircularHarmonics) or self.group.dimension != 2:
            raise ValueError(
                "basis should be None, 'pixels' or, in the plane, "
                f"eq.CircularHarmonics(...), got {self.basis!r} for {self.group!r}"
            )

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @property
    def fibers(self) -> tuple[Representation, Representation]:
        """The input and the output fiber."""
        raise NotImplementedError

    @property
    def taps(self) -> tuple[int, ...]:
        """Taps per spatial axis."""
        return per_axis(self.kernel_size, self.group.dimension, "kernel_size")

    @property
    def harmonics(self) -> CircularHarmonics | None:
        """The functions that the kernel is made of; None for single taps."""
        ambient = self.group.ambient
        if self.basis == "pixels" or ambient.dimension != 2 or not self.taps:
            return None
        if self.basis is None and exact_part(ambient) == ambient:
            return None
        return self.basis or CircularHarmonics()

    def ties_of(self, group: Symmetry) -> dict[str, Tie]:
        """Return the ties of kernel and bias to a group."""
        table = kernels.commuting(
            group, self.taps, *self.fibers, basis=self.harmonics, rings=self.rings
        )
        ties = {"kernel": Tie(table, self.parametrization, maps=True)}
        if self.use_bias:
            along_fiber = kernels.commuting(group, (), self.fibers[1])
            ties["bias"] = Tie(along_fiber, self.parametrization)
        return ties

    def check_identity(self) -> None:
        """Raise ValueError unless the grid is kept and channels are not split."""
        strides = per_axis(self.strides, self.group.dimension, "strides")
        keeps = self.padding in ("SAME", "CIRCULAR") and set(strides) == {1}
        if not keeps or self.feature_group_count != 1:
            raise ValueError(
                "the identity needs strides of 1, padding SAME or CIRCULAR and one "
                f"feature group, got strides {strides}, padding {self.padding!r} and "
                f"{self.feature_group_count} feature groups"
            )

    def window(self, space: int | Sequence[Any]) -> Window:
        """Return the window that slides over a grid of so many points per axis."""
        space = sizes(space, self.group.dimension)
        strides, dilation = self._spacing()
        padding = resolve_padding(self.padding, space, self.taps, strides, dilation)
        return Window(space, self.taps, strides, dilation, padding)

    def _window_settings(self, space: Sequence[Any]) -> dict[str, Any]:
        window = self.window(space)
        if any(isinstance(n, int) and n == 0 for n in window.output_size):
            raise ValueError(
                f"a {window.taps} kernel with dilation {window.dilation} and padding "
                f"{window.padding} does not fit into an input of size {window.size}"
            )
        return {
            "strides": window.strides,
            "padding": window.padding,
            "dilation": window.dilation,
        }

    def _spacing(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        d = self.group.dimension
        strides = per_axis(self.strides, d, "strides")
        dilation = per_axis(self.kernel_dilation, d, "kernel_dilation")
        check_preserved(self.group, strides, "strides")
        check_preserved(self.group, dilation, "kernel_dilation")
        return strides, dilation

    def sampled(self, full: jax.Array) -> jax.Array:
        """Return the kernel (*taps, ...) that a full array of the layer stands for."""
        if self.harmonics is None:
            return full
        return kernels.sample(full, self.harmonics, self.taps)

    def fitted(self, kernel: jax.Array) -> jax.Array:
        """Return the full array of the layer that is nearest to a kernel."""
        if self.harmonics is None:
            return kernel
        return kernels.fit(kernel, self.harmonics)

    def _parameters(self, x: jax.Array, c_in: int, c_out: int):
        """Return full kernel and bias (or None), and x, all in one dtype."""
        inits = {
            "kernel": (self.kernel_init, (c_in, c_out)),
            "bias": (self.bias_init, (c_out,)),
        }
        full = self.full_arrays(inits, self.param_dtype)
        kernel = self.sampled(full["kernel"])
        x, kernel, bias = promote_dtype(x, kernel, full.get("bias"), dtype=self.dtype)
        return kernel, bias, x
