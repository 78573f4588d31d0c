"""The small setting that methods are tuned and compared in."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
SMALL: dict[str, Any] = {
    "epochs": 2.0,  # 500 steps
    "image_size": 14,
    "features": (2, 4, 4),
    "kernel_size": 3,
    "pool_after": (1, 2),
}
FEW_STEPS: dict[str, Any] = {
    "epochs": 0.08,  # 20 steps
    "image_size": 14,
    "features": (1, 1),
    "kernel_size": 3,
    "pool_after": (1,),
    "head_features": 4,
}

# Where a task has the rate that is its method's own, and the values that
# `benchmarks.tuning` tries, the default first.
Setting = tuple[tuple[str, ...], tuple[float, ...]]
PRECISION: Setting = (("constraints", "gamma", "precision"), (1e-3, 1e-4, 1e-2))
SPREAD: Setting = (("constraints", "sharing", "spread"), (0.1, 0.01, 0.5))
MIXTURE_RATE: Setting = (("mixture_rate",), (0.05, 0.01, 0.2))
MATRIX_RATE: Setting = (("mixture_rate",), (0.05, 0.01, 0.002))
TUNED: dict[str, Setting] = {
    "residual pathway": (
        ("constraints", "residual", "residual_precision"),
        (1e-3, 1e-4, 1e-2),
    ),
    "soft projection": (("constraints", "soft", "softness"), (0.9, 0.7, 0.97)),
    "gamma projection": PRECISION,
    "gamma projection, dual": PRECISION,
    "gamma projection, resilient": PRECISION,
    "non stationary": (("constraints", "nonstationary", "width"), (1.0, 0.5, 2.0)),
    "learned sharing": SPREAD,
    "doubly stochastic sharing": SPREAD,
    "EquiNAS_D": MIXTURE_RATE,
    "random mixture": MIXTURE_RATE,
    "learned sharing, bilevel": MATRIX_RATE,
    "symmetry matrix": MATRIX_RATE,
    "EquiNAS_S": (("probe",), (0.375, 0.25, 0.5)),
    "EquiNAS_S, continued": (("probe",), (0.375, 0.25, 0.125)),
}


def varied(task: Any, place: tuple[str, ...], value: Any) -> Any:
    """Return a task with one setting changed, however deep it is."""
    first, *rest = place
    if rest:
        value = varied(getattr(task, first), tuple(rest), value)
    return dataclasses.replace(task, **{first: value})


@functools.cache
def tuned_values() -> dict[str, float]:
    """Return the best value of every method with a rate of its own."""
    return json.loads((RESULTS / "tuning.json").read_text())["summary"]
