"""The symmetry test of networks of irreps on voxels."""

import e3nn_jax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax_experiments.data import synthetic

OH = eq.full_octahedral()
GROUPS = [OH] + [OH.subgroup(name, 0) for name in ("O", "D4h", "C4")]


class Network(nn.Module):
    """Two convolutions with a gate of e3nn-jax between them."""

    group: eq.Group | eq.ClosedGroup
    irreps_in: str = "0e"

    @nn.compact
    def __call__(self, x):
        x = e3nn_jax.IrrepsArray(self.irreps_in, x)
        kind = {"group": self.group}
        wide = "6x0e + 2x1o"
        x = e3nn_jax.gate(eq.IrrepsConv(wide, 3, irreps_in=x.irreps, **kind)(x))
        x = eq.IrrepsConv("4x0e", 3, irreps_in=x.irreps, **kind)(x)
        return nn.Dense(2)(nn.relu(x.array).mean((1, 2, 3)))


def named(model, x, y, **settings):
    variables = jax.jit(model.init)(jax.random.key(0), x[:2])
    report = eq.symmetry_test(
        variables,
        model=model,
        x=x,
        y=y,
        key=jax.random.key(1),
        draws=99,
        level=0.02,
        groups=GROUPS,
        **settings,
    )
    return [H.name for H in report.maximal]


@pytest.mark.slow
@pytest.mark.parametrize("ambient", [OH, eq.orthogonal()], ids=str)
def test_it_names_the_group_of_volumes(ambient):
    data = synthetic.load("axis").train
    found = named(Network(ambient), data.images[:300], data.labels[:300])
    assert found == ["D4h:i"]


@pytest.mark.slow
def test_vectors_turn_with_their_grid():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4, 4, 4, 3)).astype(np.float32)
    y = (x[..., 0].mean((1, 2, 3)) > 0).astype(int)  # which way along the first axis
    found = named(Network(OH, "1o"), jnp.asarray(x), y, irreps_in="1o")
    assert found == ["C4:i"]
