"""Networks exported by `jax.export`: any batch, and no size that would change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import eqjax as eq

D4 = eq.dihedral(4)
FIELD = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6, 6, 8, 2)), jnp.float32)
MIXTURE = eq.Mixture((D4, D4.subgroup("C4")))
BATCH_NORM = eq.BatchNorm(use_running_average=False, group=D4)


def exported(fn, shape, names, **settings):
    """Export with symbolic axes; "b 6 6" leaves two of three as they are."""
    kind = jax.ShapeDtypeStruct(
        (*export.symbolic_shape(names), *shape[3:]), jnp.float32
    )
    return export.export(jax.jit(fn), **settings)(kind)


@pytest.mark.parametrize("constraint", [eq.Tied(), MIXTURE])
def test_a_network_of_any_batch_is_the_network(constraint):
    model = eq.exact(
        eq.Architecture.uniform(D4, 3),
        features=(2, 2),
        kernel_size=3,
        pool_after=(1,),
        head_features=3,
        constraint=constraint,
    )
    images = jnp.asarray(np.random.default_rng(1).normal(size=(9, 8, 8, 1)), "f4")
    variables = model.init(jax.random.key(0), images)
    fn = jax.jit(lambda x: model.apply(variables, x))
    program = exported(fn, images.shape, "b, 8, 8", platforms=("cpu", "cuda"))
    for batch in (1, 3, 9):
        found = program.call(images[:batch])
        np.testing.assert_allclose(found, fn(images[:batch]), atol=1e-5)
    with pytest.raises(ValueError, match=r"chosen by the size .* symbolic batch"):
        exported(fn, images.shape, "b, n, n")


def apply(layer):
    return lambda x: layer.init_with_output(jax.random.key(0), x)[0]


LAYERS = {
    "conv": apply(eq.GroupConv(2, 3, group=D4)),
    "transposed": apply(eq.GroupConvTranspose(2, 3, 2, group=D4)),
    "head": apply(eq.InvariantHead(2, group=D4)),
    "batch norm": apply(BATCH_NORM),
    "layer norm": apply(eq.LayerNorm(group=D4)),
    "group norm": apply(eq.GroupNorm(num_groups=1, group=D4)),
    "avg_pool": lambda x: eq.avg_pool(x, 2, 2),
    "max_pool": lambda x: eq.max_pool(x, 3, 2, 1),
    "fiber_pool": lambda x: eq.fiber_pool(x, group=D4),
    "upsample": lambda x: eq.upsample(x, 2),
    "transform": lambda x: eq.transform(x, 5, group=D4),
    "augment": lambda x: eq.augment(jax.random.key(0), x, group=D4),
}


@pytest.mark.parametrize("axes", ["b, 6, 6", "b, n, n"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_symbolic_shapes(name, axes):
    fn = LAYERS[name]
    found = exported(fn, FIELD.shape, axes).call(FIELD)
    np.testing.assert_allclose(found, fn(FIELD), atol=1e-5)


def test_padding_that_depends_on_the_size_is_refused():
    layer = apply(eq.GroupConv(2, 3, 2, group=D4))
    with pytest.raises(ValueError, match=r"SAME with stride 2 depends on the size"):
        exported(layer, FIELD.shape, "b, n, n")
    window = eq.window(export.symbolic_shape("n, n"), 3)
    with pytest.raises(ValueError, match="the symmetry depends on the size"):
        window.symmetry(D4)
