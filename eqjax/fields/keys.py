"""Keys of `jax.random`: what is one, and what draws on the host by it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_key(name: str, value: Any) -> None:
    """Raise TypeError unless an argument is a key of `jax.random`, old or new."""
    dtype = getattr(value, "dtype", None)
    new = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (new or (dtype == jnp.uint32 and value.ndim == 1)):
        raise TypeError(
            f"{name} must be a key, such as jax.random.key(0), got {value!r:.60}"
        )


def host_generator(key: jax.Array) -> np.random.Generator:
    """Draw on the host: nothing compiles, however many there are to draw from."""
    return np.random.default_rng(np.ravel(jax.random.key_data(key)).tolist())
