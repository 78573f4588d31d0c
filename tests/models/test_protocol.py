"""What `SearchableModel` promises is all that searches and discretization ask for."""

import flax.linen as nn
import jax
import numpy as np
import optax

import eqjax as eq
from eqjax.models import SearchableModel
from eqjax.search import SearchLoop
from eqjax.training import Split

D4 = eq.dihedral(4)
C1 = D4.subgroup("C1")


class Mine(nn.Module):
    """Somebody's model: two layers in a submodule each, and a head."""

    architecture: eq.Architecture
    constraint: eq.Constraint = eq.Tied()

    layer_names = ("stem", "head")

    @nn.compact
    def __call__(self, x, *, train=False):
        del train
        stem, head = self.architecture.groups
        kind = {"constraint": self.constraint}
        x = nn.relu(eq.LiftingConv(2, 3, group=stem, name="stem", **kind)(x))
        return eq.InvariantHead(2, group=head, name="head", **kind)(x)

    def with_groups(self, groups):
        chosen = tuple(groups[(name,)] for name in self.layer_names)
        return self.clone(architecture=eq.Architecture(chosen), constraint=eq.Tied())

    def symmetry(self, space):
        del space
        return self.architecture.groups[0].meet(*self.architecture.groups)


START = eq.Architecture.uniform(D4, 2)
X = np.random.default_rng(0).normal(size=(16, 6, 6, 1)).astype(np.float32)
Y = np.arange(16) % 2


def test_networks_of_the_library_are_searchable():
    assert isinstance(eq.exact(eq.Architecture.uniform(D4, 9)), SearchableModel)
    assert isinstance(Mine(START), SearchableModel)
    assert not isinstance(nn.Dense(3), SearchableModel)


def test_somebodys_model_is_evolved():
    inputs = jax.ShapeDtypeStruct((8, 6, 6, 1), np.float32)
    loop = SearchLoop(
        search=eq.Evolution(2, candidates=(D4, D4.subgroup("C4"), C1)),
        make_model=Mine,
        population=eq.Population(Mine(START), optax.sgd(0.1), inputs),
        train=Split(X, Y),
        validation=Split(X, Y),
        first_steps=2,
        steps=1,
        seed=0,
    )
    point = loop.start(START)
    for _ in range(2):
        point, record = loop.generation(point, lambda done, total: None)
    assert [c["groups"] for c in record["children"]] == [["D4", "D4"], ["D4", "C4"]]
    assert len(point.members) == 2


def test_somebodys_mixture_is_discretized_and_collapsed():
    model = Mine(START, eq.Mixture((D4, C1)))
    variables = jax.jit(model.init)(jax.random.key(0), X)
    plain, collapsed, _ = eq.collapse(variables, model=model, inputs=X)
    assert str(collapsed.architecture) == "C1 C1"
    expected = jax.jit(model.apply)(variables, X)
    np.testing.assert_allclose(collapsed.apply(plain, X), expected, atol=1e-5)
    _, discretized, _ = eq.discretize(variables, model=model, inputs=X)
    assert str(discretized.architecture) == "D4 D4"  # of equal weights the first
