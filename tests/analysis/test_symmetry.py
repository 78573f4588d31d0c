"""Every layer is measured by itself, and what loses an element is named."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from tests.resnet import D4, ResNet

C4, C1 = D4.subgroup("C4"), D4.subgroup("C1")
IMAGE = jax.ShapeDtypeStruct((8, 8, 8, 1), np.float32)
FIELD = jax.ShapeDtypeStruct((2, 6, 6, 8, 2), np.float32)


def faults(model, inputs, **settings):
    report = eq.symmetry(model, inputs, **settings)
    return {row.path: row for row in report.faults}, report


@pytest.mark.slow
def test_the_layers_of_a_resnet_that_break_it_are_found():
    train = {"call_kwargs": {"train": False}}
    found, report = faults(ResNet(blocks=2), IMAGE, **train)
    assert list(found) == ["stage1/conv1", "stage2/conv1"]
    for row in found.values():
        assert row.kept.name == "D1:i-j"
        assert row.lost == tuple(
            name
            for name in D4.element_names
            if name not in ("identity", "reflection i-j")
        )
        assert row.error > 0.05
        assert row.repair.startswith("kernel_size=4 or a grid of ")
    assert report.kept.name == "D1:i-j"
    assert report.lost_by == dict.fromkeys(row.lost, tuple(found))
    assert all(row.error < 1e-5 for row in report.rows if not row.lost)

    printed = str(report)
    assert repr(report) == printed
    assert max(map(len, printed.splitlines())) <= 100
    assert "stage1/conv1 loses rotation by 90°" in printed
    assert len([row for row in report.rows if "conv" in row.path]) == 8

    repaired, report = faults(ResNet(taps=4), IMAGE, **train)  # as it is told
    assert not repaired
    assert report.kept == D4


class Layers(nn.Module):
    """Layers one after another, and functions between them."""

    layers: tuple

    @nn.compact
    def __call__(self, x):
        for n, layer in enumerate(self.layers):
            own = isinstance(layer, nn.Module)
            x = layer.clone(name=f"layer{n}", parent=self)(x) if own else layer(x)
        return x


def conv(group=D4, **settings):
    return eq.GroupConv(2, 3, group=group, **settings)


@pytest.mark.parametrize(
    ("layer", "kept", "repair"),
    [
        (conv(), "D4", ""),
        (conv(C4), "C4", ""),  # by design: no fault
        (nn.Conv(3, (3, 3)), "C1", "eq.GroupConv(features=3, kernel_size=3, group=D4)"),
        (nn.LayerNorm(), "D4", ""),
        (nn.BatchNorm(use_running_average=True), "D4", ""),
        (nn.GroupNorm(num_groups=2), "D4", ""),
        (nn.Dense(3), "D4", ""),
        (nn.Dropout(0.5, deterministic=True), "D4", ""),
        (nn.Dropout(0.5, deterministic=False), "C1", "eq.FieldDropout(rate=0.5"),
        (
            nn.LayerNorm(reduction_axes=(-2, -1), feature_axes=(-2, -1)),
            "C1",
            "eq.LayerNorm(group=D4)",
        ),
        (
            eq.ElementBatchNorm(group=D4, use_running_average=True),
            "C1",
            "eq.BatchNorm",
        ),
        (conv(constraint=eq.ResidualPathway()), "C1", ""),
        (
            eq.GroupConv(2, 2, 2, "VALID", group=D4, name="odd"),
            "D4",
            "",
        ),
        (eq.GroupConvTranspose(2, 3, 2, group=D4), "D1:i-j", "kernel_size=4"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_one_layer(layer, kept, repair):
    report = eq.symmetry(Layers((conv(), layer)), FIELD)
    assert [row.kept.name for row in report.rows] == ["D4", kept]
    row = report.rows[1]
    assert row.repair.startswith(repair)
    assert bool(row.repair) == bool(repair)
    promised = row.promised.name
    assert bool(row.lost) == (promised != kept)
    assert report.rows[0].error < 1e-5


def test_functions_between_layers_are_found_and_hide_nothing():
    pooled = Layers(
        (
            conv(),
            lambda x: nn.avg_pool(x, (2, 2), (1, 1), "SAME"),  # over columns and fiber
            conv(),
            nn.relu,
            conv(),
            lambda x: x.mean((1, 2)).reshape(x.shape[0], -1),
            nn.Dense(3),
        )
    )
    found, report = faults(pooled, FIELD)
    assert list(found) == ["layer0 -> layer2", "layer4 -> layer6"]
    assert all("eq.avg_pool" in row.repair for row in found.values())
    assert found["layer0 -> layer2"].kept == C1
    assert report.network.kept == C1
    lifted = Layers((conv(), nn.remat(nn.Conv)(2, (3, 3)), conv()))
    assert list(faults(lifted, FIELD)[0]) == ["layer0 -> layer2"]
    right = Layers((conv(), lambda x: eq.avg_pool(x, 2, 2), conv(), nn.relu, conv()))
    assert not faults(right, FIELD)[0]


def test_another_ambient_group_of_the_same_order_is_named():
    D2, line = eq.dihedral(2), eq.cyclic(4)
    field = jax.ShapeDtypeStruct((2, 5, 5, 4, 2), np.float32)
    model = Layers((conv(line), conv(line), conv(D2)))
    found, _ = faults(model, field)
    assert list(found) == ["layer2"]
    assert "it lives over another ambient group, D2, than the network, C4" in str(
        found["layer2"]
    )


def test_precision_dimensions_and_grids():
    half = Layers((conv(dtype=jnp.bfloat16), conv(C4, dtype=jnp.bfloat16)))
    report = eq.symmetry(half, FIELD)
    assert [row.kept.name for row in report.rows] == ["D4", "C4"]
    line = eq.symmetry(nn.Conv(2, (3,)), jax.ShapeDtypeStruct((2, 7, 1), np.float32))
    assert line.rows[0].lost == ("reflection i",)
    assert line.rows[0].repair == "eq.LiftingConv(features=2, kernel_size=3, group=D1)"
    wide = eq.symmetry(
        eq.LiftingConv(2, 3, group=D4), jax.ShapeDtypeStruct((2, 4, 6, 1), np.float32)
    )
    assert wide.rows[0].kept.name == "D2:i"  # the others do not keep the grid
    assert "grid" in str(wide)
    with pytest.raises(ValueError, match="pass group="):
        eq.symmetry(nn.Dense(2), jnp.ones((2, 3)))


def test_networks_of_the_library_and_trained_variables():
    architecture = eq.Architecture.uniform(D4, 3)
    settings = {"features": (2, 2), "kernel_size": 3, "pool_after": (1,)}
    model = eq.exact(architecture, **settings)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.ones(IMAGE.shape))
    found, report = faults(model, IMAGE, variables=variables)
    assert not found
    assert report.kept == model.symmetry((8, 8)) == D4
    paper = eq.paper(eq.Architecture.uniform(D4, 2), **settings)
    found, report = faults(paper, IMAGE)
    assert report.kept == C1
    assert list(found) == ["norm1", "norm1 -> conv2", "norm2", "norm2 -> head"]
