"""Optimizers by name, with a rate that is constant or annealed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import optax

import eqjax as eq

Gammas = Literal["trained", "annealed", "dual", "resilient"]
OPTIMIZERS = {
    "adam": optax.adam,
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
}


@functools.cache  # the same object for the same settings, so that nothing recompiles
def optimizer(
    kind: str, rate: float, lengths: tuple[int, ...] = ()
) -> optax.GradientTransformation:
    """Return an optimizer whose rate is constant, or annealed over each length."""
    return OPTIMIZERS[kind](annealed(rate, lengths) if lengths else rate)


@functools.cache
def with_gammas(
    weights: optax.GradientTransformation, moved: Gammas, steps: int
) -> optax.GradientTransformation:
    """Return an optimizer beside what moves the gammas of `eq.GammaProjection`."""
    if moved == "trained":
        return weights
    if moved == "annealed":
        return eq.scheduled_gammas(weights, eq.training.triangular(steps))
    return eq.dual_gammas(weights, resilient=moved == "resilient")


def annealed(peak: float, lengths: Sequence[int]) -> optax.Schedule:
    """Return a cosine decay to zero, after a short warm-up, over each of some lengths.

    Scores are taken at the end of each, where the weights have settled and the running
    statistics of the norms have caught up with them.
    """
    cycles = [
        {
            "init_value": 0.1 * peak,
            "peak_value": peak,
            "warmup_steps": steps // 10,
            "decay_steps": steps,
            "end_value": 0.0,
        }
        for steps in lengths
    ]
    return optax.sgdr_schedule(cycles)
