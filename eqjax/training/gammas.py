"""Optimizers for the gammas of `eq.GammaProjection`, beside any for the weights.

Each wraps an optimizer and changes what becomes of parameters called "gamma"; the rest
is up to the wrapped one. So they go wherever an optimizer of optax goes: into loops,
searches, checkpoints and `morph_optimizer`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from eqjax.groups.checks import check_callable, check_number
from eqjax.training.checks import check_optimizer

GAMMA = "gamma"  # name of the parameters


def scheduled_gammas(
    optimizer: optax.GradientTransformation, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Let gammas follow a schedule, whatever their gradient.

    After step t they are schedule(t + 1); begin with `GammaProjection(start=...)` at
    schedule(0). Relaxed during the training and closed again at its end, the network is
    exactly equivariant (Pertigkiozoglou et al., NeurIPS 2024); see `triangular`.

    Args:
      optimizer: of the weights.
      schedule: step -> gamma.

    >>> import eqjax as eq
    >>> tied = scheduled_gammas(optax.adam(1e-3), eq.training.triangular(100))
    """
    check_optimizer("optimizer", optimizer)
    check_callable("schedule", schedule, "eq.training.triangular(100)")

    def init(params: Any) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32))

    def update(updates: Any, state: optax.ScaleByScheduleState, params: Any = None):
        if params is None:
            raise ValueError("scheduled gammas need params= in update")
        count = optax.safe_increment(state.count)
        value = schedule(count)
        steps = jax.tree.map(lambda p: jnp.asarray(value, p.dtype) - p, params)
        return steps, optax.ScaleByScheduleState(count)

    return _beside(optimizer, optax.GradientTransformation(init, update))


def triangular(steps: int, peak: float = 1.0) -> optax.Schedule:
    """Return a schedule from 0 up to a peak in the middle, and back to 0 at the end.

    Args:
      steps: of the training; from then on it is 0.
      peak: the largest value.

    Raises:
      ValueError: fewer than two steps.

    >>> schedule = triangular(4)
    >>> [float(schedule(step)) for step in range(6)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")

    def schedule(count: chex.Numeric) -> chex.Numeric:
        along = jnp.minimum(count, steps) / steps
        return peak * (1 - jnp.abs(2 * along - 1))

    return schedule


class DualState(NamedTuple):
    """State of `dual_gammas`: the dual variable of every gamma."""

    multipliers: Any


def dual_gammas(
    optimizer: optax.GradientTransformation,
    *,
    rate: float = 0.01,
    dual_rate: float = 0.01,
    resilient: bool = False,
) -> optax.GradientTransformation:
    """Pull gammas back by dual variables, which grow as long as they are open.

    The constraint gamma = 0 has a multiplier l: gamma goes down along dJ/dgamma + l,
    and l grows by gamma (adaptive constrained equivariance, ACE, NeurIPS 2025). The two
    swing about 0 like a spring; `GammaProjection(precision=...)` damps them. In the
    resilient form the constraint is |gamma| <= u, with a slack u that costs u^2 / 2:
    where the data need gamma, it stays open.

    Args:
      optimizer: of the weights.
      rate: step size of gamma.
      dual_rate: step size of the multipliers, which start at 0.
      resilient: allow a slack.

    Raises:
      ValueError: a rate is not positive.

    >>> constrained = dual_gammas(optax.adam(1e-3), resilient=True)
    """
    check_optimizer("optimizer", optimizer)
    check_number("rate", rate)
    check_number("dual_rate", dual_rate)
    if not (rate > 0 and dual_rate > 0):
        raise ValueError(f"rates must be positive, got {rate} and {dual_rate}")

    def init(params: Any) -> DualState:
        return DualState(jax.tree.map(jnp.zeros_like, params))

    def update(updates: Any, state: DualState, params: Any = None):
        if params is None:
            raise ValueError("gammas with dual variables need params= in update")

        def force(multiplier, gamma):
            return multiplier * jnp.sign(gamma) if resilient else multiplier

        def raised(multiplier, gamma):
            if not resilient:
                return multiplier + dual_rate * gamma
            slack = multiplier  # where u^2 / 2 - l u is least
            return jnp.maximum(multiplier + dual_rate * (jnp.abs(gamma) - slack), 0)

        steps = jax.tree.map(
            lambda g, m, p: -rate * (g + force(m, p)),
            updates,
            state.multipliers,
            params,
        )
        return steps, DualState(jax.tree.map(raised, state.multipliers, params))

    return _beside(optimizer, optax.GradientTransformation(init, update))


def _beside(
    optimizer: optax.GradientTransformation, gammas: optax.GradientTransformation
) -> optax.GradientTransformation:
    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: (
                GAMMA if getattr(path[-1], "key", None) == GAMMA else "weights"
            ),
            params,
        )

    return optax.multi_transform({GAMMA: gammas, "weights": optimizer}, labels)
