"""Inputs and variables at random, so that no symmetry holds by chance."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from eqjax.analysis.calls import Tree
from eqjax.analysis.compilations import run_once
from eqjax.constraints.collections import BATCH_STATS, PARAMS

SAMPLES = 2  # as few as tell whether one depends on the other


def random_inputs(inputs: Any) -> Tree:
    """Return call arguments with normal numbers in the shapes of real arrays."""
    rng = np.random.default_rng(0)
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    return Tree.of(tuple(_input(rng, x) for x in arguments))


def _input(rng: np.random.Generator, x: Any) -> Any:
    if not hasattr(x, "shape") or len(x.shape) < 2:
        return x
    shape = (min(x.shape[0], SAMPLES), *x.shape[1:])
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.asarray(rng.normal(size=shape), x.dtype)
    if isinstance(x, jax.ShapeDtypeStruct):
        return jnp.asarray(rng.integers(0, 2, shape), x.dtype)
    return jnp.asarray(x[: shape[0]])


def random_variables(
    model: nn.Module, given: Tree, keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """Return variables that all differ from where they start.

    Offsets that start at zero, scales and variances at one, would hide that they are
    free. Parameters and statistics are drawn by their shapes; initialized, which takes
    time to compile, is only what else there is.
    """
    rng = np.random.default_rng(1)
    key = jax.random.key(0)
    drawn = (PARAMS, BATCH_STATS)

    def init(arrays, kept):
        rngs = {"params": key, "dropout": key}
        call: Any = functools.partial(model.init, rngs)
        variables = flax.core.unfreeze(call(*given.fill(arrays), **keywords))
        return {k: v for k, v in variables.items() if (k in drawn) == kept}

    shapes = jax.eval_shape(functools.partial(init, kept=True), given.arrays)
    new = {
        path: jax.tree.map(functools.partial(_variable, rng, path[0]), box)
        for path, box in flatten_dict(shapes).items()
    }
    others = functools.partial(init, kept=False)
    if jax.tree.leaves(jax.eval_shape(others, given.arrays)):
        return {**unflatten_dict(new), **run_once(others, given.arrays)}
    return unflatten_dict(new)


def _variable(rng: np.random.Generator, collection: str, leaf: Any) -> jax.Array:
    if collection == BATCH_STATS or len(leaf.shape) < 2:
        return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
    fan_in = math.prod(leaf.shape[:-1])
    return jnp.asarray(rng.normal(size=leaf.shape) / math.sqrt(fan_in), leaf.dtype)
