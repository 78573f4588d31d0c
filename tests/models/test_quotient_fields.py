"""Networks whose hidden fields have a value for every coset of a subgroup."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqjax as eq
from eqjax_experiments.tasks.baseline import BaselineTask
from tests.tolerances import DOUBLE

D4 = eq.dihedral(4)
MIRROR = D4.subgroup("D1:i")
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)))


def network(names="D4 D4 D4"):
    groups = eq.Architecture.parse(D4, names)
    return eq.exact(
        groups,
        features=(2, 3),
        kernel_size=3,
        pool_after=(1,),
        head_features=4,
        classes=3,
        stabilizer=MIRROR,
    )


@pytest.fixture(scope="module")
def variables():
    found = jax.jit(network().init)(jax.random.key(0), X)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda v: jnp.asarray(rng.uniform(0.5, 1.5, v.shape)), found)


def test_they_are_smaller_and_as_symmetric(variables):
    model = network()
    assert model.symmetry((8, 8)) == D4
    apply = jax.jit(model.apply)
    error = eq.equivariance_error(lambda x: apply(variables, x), X, group=D4)
    assert error < DOUBLE
    kernel = variables["params"]["conv2"]["kernel"]
    regular = jax.eval_shape(model.clone(stabilizer=None).init, jax.random.key(0), X)
    assert len(kernel) < regular["params"]["conv2"]["kernel"].shape[0]


@pytest.mark.parametrize("names", ["D4 C4 C4", "D4 D1 C1", "C1 C1 C1"])
def test_they_relax_without_changing_what_they_compute(variables, names):
    source, target = network(), network(names)
    relaxed, _ = eq.morph(variables, source=source, target=target, inputs=X)
    expected = source.apply(variables, X)
    np.testing.assert_allclose(target.apply(relaxed, X), expected, atol=DOUBLE)


def test_they_are_a_setting_of_every_command():
    task = BaselineTask(stabilizer="D1", data="quarter")
    architecture = eq.Architecture.uniform(D4, task.layers)
    assert task.model(architecture).stabilizer.family == "D1"
    assert BaselineTask().model(architecture).stabilizer is None
    with pytest.raises(ValueError, match="no subgroup 'C8'"):
        BaselineTask(stabilizer="C8")
    with pytest.raises(ValueError, match="does nothing with --network paper"):
        BaselineTask(stabilizer="C4", network="paper")
