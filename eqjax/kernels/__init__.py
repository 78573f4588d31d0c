"""Orbit tables, and the full arrays that tied parameters stand for."""

from eqjax.kernels.action import transform_kernel as transform_kernel
from eqjax.kernels.harmonics import (
    CircularHarmonics,
    fit as fit,
    sample as sample,
)
from eqjax.kernels.intertwiners import (
    IntertwinerTable as IntertwinerTable,
    intertwiner_table as intertwiner_table,
)
from eqjax.kernels.orbits import (
    OrbitTable as OrbitTable,
    fiber_table as fiber_table,
    kernel_table as kernel_table,
)
from eqjax.kernels.steered import (
    SteeredTable as SteeredTable,
    steered_table as steered_table,
)
from eqjax.kernels.tied import (
    PARAMETRIZATIONS as PARAMETRIZATIONS,
    Numbered as Numbered,
    Table as Table,
    Tie as Tie,
    cleared as cleared,
    commuting as commuting,
    convolution_layout as convolution_layout,
    distance as distance,
    expand as expand,
    identity_kernel as identity_kernel,
    project as project,
    reynolds as reynolds,
    square as square,
    tied_initializer as tied_initializer,
    weighted_sum as weighted_sum,
)

__all__ = ["CircularHarmonics"]
