"""A batch that is spread over devices stays spread, in both kinds of mesh."""

import subprocess
import sys

import pytest

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
import eqjax as eq
from eqjax.ops import prefer
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

D4 = eq.dihedral(4)
layer = eq.GroupConv(16, 5, group=D4, use_bias=False)
x = jnp.asarray(np.random.default_rng(0).normal(size=(48, 16, 16, 8, 8)), jnp.float32)
variables = layer.init(jax.random.key(0), x[:1])

def loss(variables, x):
    return jnp.square(layer.apply(variables, x)).sum()

programs = {"value": jax.jit(layer.apply), "gradient": jax.jit(jax.grad(loss))}
with prefer("winograd"):
    alone = {name: program(variables, x) for name, program in programs.items()}
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(kind,))
        with jax.set_mesh(mesh):
            placed = jax.device_put(x, NamedSharding(mesh, P("data")))
            whole = jax.device_put(variables, NamedSharding(mesh, P()))
            for name, program in programs.items():
                text = program.lower(whole, placed).compile().as_text()
                assert "while" in text, "the batch is worked off in chunks"
                assert "all-gather" not in text, (kind, name)
                found = program(whole, placed)
                for a, b in zip(*map(jax.tree.leaves, (found, alone[name]))):
                    np.testing.assert_allclose(a, b, atol=1e-5 * abs(b).max())
print("done")
"""


@pytest.mark.slow
def test_a_batch_spread_over_devices_is_not_gathered(environment):
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**environment, "JAX_NUM_CPU_DEVICES": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-1500:]
    assert run.stdout.endswith("done\n")
