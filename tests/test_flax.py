"""What docs/flax.md says of every Flax layer is measured: its table is read here."""

import re
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from tests.tolerances import BROKEN, SINGLE

PAGE = (Path(__file__).parents[1] / "docs/flax.md").read_text()
NAMES: dict = {}
exec(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0], NAMES)
D4 = NAMES["G"]
FIELD = np.random.default_rng(1).normal(size=(2, 6, 6, 8, 4)).astype(np.float32)
ROWS = [
    [cell.strip().strip("`") for cell in line.split("|")[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
NEARLY = {"rtol": 0.05, "atol": SINGLE}  # what two digits leave out


class Line(nn.Module):
    """An expression of the table, as a network."""

    code: str

    @nn.compact
    def __call__(self, f):
        made = eval(self.code, {**NAMES, "f": f})
        return made(f) if callable(made) else made


@jax.enable_x64(False)  # as the page is read, and draws are by dtype
def error_of(code):
    """The error of equivariance of an expression with random variables."""
    model = Line(code)
    shapes = jax.eval_shape(model.init, jax.random.key(0), FIELD)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        positive = path[0].key == "batch_stats"  # variances among them
        law = partial(rng.uniform, 0.5, 1.5) if positive else rng.normal
        return jnp.asarray(law(size=leaf.shape), leaf.dtype)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    settings = {"rngs": {"dropout": jax.random.key(1)}, "mutable": ["batch_stats"]}
    run = jax.jit(lambda f: model.apply(variables, f, **settings)[0])
    return float(eq.equivariance_error(run, jnp.asarray(FIELD), group=D4))


@pytest.mark.parametrize(("code", "verdict", "said", "instead"), ROWS)
def test_the_line_says_what_is(code, verdict, said, instead):
    error = error_of(code)
    np.testing.assert_allclose(float(said), error, **NEARLY)
    assert verdict in ("may stay", "replace", "must go")
    assert error < SINGLE if verdict == "may stay" else error > BROKEN
    assert bool(instead) == (verdict == "replace")
    if instead:
        assert error_of(instead) < SINGLE


def test_the_table_has_every_layer():
    codes = " ".join(code for code, *_ in ROWS)
    kinds = "Norm$|^Conv|^Dense|Drop|^Embed$|Attention|_pool$|^relu$|^RNN$"
    missing = {n for n in dir(nn) if re.search(kinds, n) and f"nn.{n}(" not in codes}
    assert missing == {  # other names of what is there, and one for sequences
        "ConvLSTMCell",
        "MultiHeadDotProductAttention",
        "SelfAttention",
    }
