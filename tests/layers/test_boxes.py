"""Initializers that box their arrays, as for sharding, work as in Flax's layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import training

D4 = eq.dihedral(4)
C4 = D4.subgroup("C4")
IMAGE = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 6, 1)), jnp.float32)
AXES = (None, None, "in", "out")


def boxed(init, *names, make=nn.with_partitioning):
    return make(init, names)


class Net(nn.Module):
    """A network whose every parameter may be boxed."""

    group: eq.Group
    make: object = nn.with_partitioning
    constraint: eq.Constraint = eq.Tied()

    @nn.compact
    def __call__(self, x, train=False):
        kernel = self.make(nn.initializers.lecun_normal(), AXES)
        bias = self.make(nn.initializers.normal(), ("out",))
        settings = {"kernel_init": kernel, "bias_init": bias}
        x = eq.LiftingConv(2, 3, **settings, group=D4, name="lift")(x)
        x = eq.BatchNorm(not train, bias_init=bias, scale_init=bias, group=D4)(x)
        settings["group"] = self.group
        x = eq.GroupConv(2, 3, **settings, constraint=self.constraint, name="conv")(x)
        return eq.InvariantHead(2, **settings, name="head")(x)


@pytest.mark.parametrize("make", [nn.with_partitioning, nn.with_logical_partitioning])
def test_names_are_those_of_the_parameters_axes(make):
    model = Net(D4, make)
    variables = model.init(jax.random.key(0), IMAGE)
    for layer in ("lift", "conv", "head"):
        kernel, bias = (variables["params"][layer][n] for n in ("kernel", "bias"))
        assert (kernel.names, bias.names) == ((None, "in", "out"), (None, "out"))
        assert kernel.value.ndim == 3
    if make is nn.with_partitioning:
        spec = nn.get_partition_spec(variables)["params"]["conv"]["kernel"]
        assert tuple(spec) == (None, "in", "out")
    plain = Net(D4, lambda init, names: init)
    unboxed = nn.meta.unbox(variables)
    same = plain.init(jax.random.key(0), IMAGE)
    assert jax.tree.all(jax.tree.map(np.array_equal, unboxed, same))
    np.testing.assert_array_equal(
        model.apply(variables, IMAGE), plain.apply(same, IMAGE)
    )


def test_boxes_survive_a_morphism_with_their_optimizer():
    source, target = Net(D4), Net(C4)
    adam = optax.adam(0.1)
    state = training.init_state(jax.random.key(0), source, adam, IMAGE)
    sides = {"source": source, "target": target, "inputs": IMAGE}
    variables, _ = eq.morph(state.variables, **sides)
    np.testing.assert_allclose(
        target.apply(variables, IMAGE), source.apply(state.variables, IMAGE), atol=1e-6
    )
    assert variables["params"]["conv"]["kernel"].names == (None, "in", "out")
    opt_state = eq.morph_optimizer(state.opt_state, **sides)
    expected = jax.eval_shape(adam.init, variables["params"])
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    assert shapes(opt_state) == shapes(expected)
    distances = eq.distances(variables, model=target, inputs=IMAGE)
    assert distances[("conv",)]["D4"] < 1e-6


def test_boxes_are_opened_for_a_population():
    model = Net(D4)
    state = training.init_state(jax.random.key(0), model, optax.adam(0.1), IMAGE)
    inputs = jax.ShapeDtypeStruct(IMAGE.shape, IMAGE.dtype)
    population = eq.Population(model, optax.adam(0.1), inputs)
    (member,) = population.unload(population.load([state], [model]), [model])
    same = jax.tree.map(np.array_equal, member.params, nn.meta.unbox(state.params))
    assert jax.tree.all(same)


@pytest.mark.parametrize(
    "constraint",
    [eq.Mixture((D4, C4)), eq.ResidualPathway(), eq.SoftProjection()],
)
def test_every_part_of_a_constraint_is_boxed(constraint):
    model = Net(D4, constraint=constraint)
    params = model.init(jax.random.key(0), IMAGE)["params"]["conv"]
    kernels = [value for name, value in params.items() if name.startswith("kernel")]
    assert kernels
    for kernel in kernels:
        assert kernel.names == (None, "in", "out")
