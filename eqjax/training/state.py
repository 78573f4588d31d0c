"""What a training step reads and writes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from eqjax.constraints.collections import PARAMS


class TrainState(NamedTuple):
    """Everything that a training step reads and writes.

    Attributes:
      params: trainable parameters.
      collections: all other collections of variables, such as {"batch_stats": ...}.
      opt_state: state of the optimizer.
      step: int32, number of steps taken.
    """

    params: chex.ArrayTree
    collections: chex.ArrayTree
    opt_state: chex.ArrayTree
    step: Array

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes."""
        return {PARAMS: self.params, **self.collections}

    def __repr__(self) -> str:
        step = self.step if np.ndim(self.step) == 0 else np.shape(self.step)
        others = "".join(f", {name}" for name in self.collections)
        count = count_parameters(self.params)
        return f"TrainState(step {step}, {count:,} parameters{others})"


def init_state(
    key: chex.PRNGKey,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    x: np.ndarray | Array,
) -> TrainState:
    """Return the state of an untrained model for inputs like x."""
    variables = _init(key, x, model=model)
    return pack_state(variables, optimizer.init(variables[PARAMS]))


@partial(jax.jit, static_argnames=("model",))
def _init(key, x, *, model: nn.Module):
    return model.init(key, x)


def pack_state(
    variables: Mapping[str, Any], opt_state: Any, step: int | Array = 0
) -> TrainState:
    """Build the state from variables and the optimizer's state."""
    collections = {name: v for name, v in variables.items() if name != PARAMS}
    return TrainState(
        variables[PARAMS], collections, opt_state, jnp.asarray(step, jnp.int32)
    )


def count_parameters(params: Any) -> int:
    """Return the number of trainable parameters in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
