"""Windows and convolutions on real channels. Knows no groups."""

from eqjax.ops.convolution import (
    convolve as convolve,
    convolve_transpose as convolve_transpose,
    prefer as prefer,
)
from eqjax.ops.windows import (
    Window as Window,
    per_axis as per_axis,
    resolve_padding as resolve_padding,
    window,
)

__all__ = ["window"]
