"""Bad calls, and what each of them must come to: an error of ours that says why."""

import functools
import traceback
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import eqjax as eq

OURS = Path(eq.__file__).parent
D4 = eq.dihedral(4)
C4 = D4.subgroup("C4")
FIELD = np.random.default_rng(0).normal(size=(2, 4, 4, 8, 3)).astype(np.float32)
IMAGE = np.random.default_rng(1).normal(size=(8, 6, 6, 1)).astype(np.float32)
LABELS = np.arange(8) % 2
KEY = jax.random.key(0)
ADAM = optax.adam(1e-3)
GROUPS = eq.Architecture.uniform(D4, 2)
SMALL = {
    "features": (2,),
    "kernel_size": 3,
    "pool_after": (),
    "head_features": 2,
    "classes": 2,
}
MODEL = eq.exact(GROUPS, **SMALL)
RELAXED = MODEL.clone(architecture=eq.Architecture.parse(D4, "D4 C4"))


class Lazy:
    """Variables that are made when the first test needs them."""

    conv = eq.GroupConv(2, 3, group=D4)

    @functools.cached_property
    def variables(self):
        return jax.jit(MODEL.init)(KEY, IMAGE)


MADE = Lazy()


def run(layer, x, **settings):
    """Initialize and call a layer."""
    return jax.eval_shape(layer.init_with_output, KEY, x, **settings)


def refused(call, match):
    """Assert that a call is refused by us, with a message that says why."""
    with pytest.raises((ValueError, TypeError), match=match) as caught:
        call()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert OURS in Path(frames[-1].filename).parents, frames[-1]


def table(cases):
    """Parametrize a test by calls, with the name of what is called."""
    numbered = [
        pytest.param(call, match, id=f"{name}-{i}")
        for name, calls in cases.items()
        for i, (call, match) in enumerate(calls)
    ]
    return pytest.mark.parametrize(("call", "match"), numbered)
