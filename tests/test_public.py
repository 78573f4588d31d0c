"""Every public name shows its arguments and an example, and echoes as it prints."""

import inspect
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax import search, training

PUBLIC = {
    name: value
    for name in dir(eq)
    if not isinstance(value := getattr(eq, name), types.ModuleType)
    and not name.startswith("_")
}
D4 = eq.dihedral(4)


@pytest.mark.parametrize("name", PUBLIC)
def test_arguments_are_shown_and_documented_by_an_example(name):
    parameters = inspect.signature(PUBLIC[name]).parameters.values()
    rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    others = [p.name for p in parameters if p.kind in rest]
    assert others == (["extra"] if name == "save" else [])  # any data of the user's
    text = inspect.getdoc(PUBLIC[name])
    assert ">>>" in text  # run among the doctests
    assert name in text.partition(">>>")[2]


def test_networks_have_the_defaults_of_their_class():
    fields = inspect.signature(eq.EquivariantCNN).parameters
    theirs = {"norm": "element", "pooling": "3x3", "head": "dense"}
    for make, others in ((eq.exact, {}), (eq.paper, theirs)):
        shown = inspect.signature(make).parameters
        assert shown.keys() == fields.keys() - {"parent"}
        for name, parameter in shown.items():
            assert parameter.default == others.get(name, fields[name].default)
        with pytest.raises(TypeError, match="unexpected keyword argument 'feature'"):
            make(eq.Architecture.uniform(D4, 2), feature=(1,))


@pytest.mark.parametrize("name", ["GroupConv", "LiftingConv", "GroupConvTranspose"])
def test_help_says_how_wide_a_layer_is(name):
    head = "\n".join(inspect.getdoc(PUBLIC[name]).splitlines()[:12])
    assert "|G| times `features`" in head.replace("\n", " ")


MODEL = eq.exact(eq.Architecture.uniform(D4, 2), features=(2,), pool_after=())
X = jnp.ones((2, 6, 6, 1))


def echoes():
    """What functions return, and what its echo has to show."""
    state = training.init_state(jax.random.key(0), MODEL, optax.adam(0.1), X)
    groups = eq.Architecture.parse(D4, "D4 C4")
    kind = {"inputs": X}
    target = MODEL.clone(architecture=groups)
    yield groups, "Architecture(D4 C4)"
    yield D4.lattice(), "4  C4      > C2"
    yield eq.morph(state.variables, source=MODEL, target=target, **kind)[1], "head   D4"
    yield eq.distances(state.variables, model=MODEL, **kind), "layer   conv1  head"
    yield eq.symmetry(MODEL, X, variables=state.variables), "LiftingConv"
    yield state, "TrainState(step 0, "
    yield eq.Evolution(), "select=select_pareto,"
    start = eq.Evolution().init(groups)
    yield start, "D4 C4         -"
    scored = search.SearchState(3, (groups,), (search.Score(0.123456, 42),), 1)
    yield scored, "D4 C4         0.1235  42"
    yield search.Checkpoint(scored, (state,)), "generation 3, 1 diverged"
    yield search.Verdict(D4, "it is"), "D4: it is"
    samples = training.Split(np.ones((9, 6, 6, 1)), np.ones(9))
    yield samples, "Split(images (9, 6, 6, 1), labels (9,))"
    yield eq.Population(MODEL, optax.adam(0.1), X), "EquivariantCNN(...)"
    yield (
        training.evaluate(
            state.variables,
            np.ones((2, 6, 6, 1), np.float32),
            np.ones(2, int),
            model=MODEL,
        ),
        "Metrics(loss ",
    )
    mixed = MODEL.clone(constraint=eq.Mixture((D4, D4.subgroup("C4"))))
    descent = eq.DifferentiableSearch(mixed, optax.sgd(0.1), optax.adam(0.1))
    yield descent, "loss_fn=cross_entropy"
    found = descent.init(jax.random.key(0), X)
    yield found, "parameters, batch_stats, "
    weights = eq.mixtures(found.weights.variables, model=mixed, **kind)
    yield weights, "conv1  0.5  0.5"


def test_echoes_read_like_prints():
    for value, shown in echoes():
        text = repr(value)
        assert shown in text, text
        assert len(text) < 2000
        assert max(map(len, text.splitlines())) <= 100
        assert not re.search(r"array\(|Array\(|0x|<function|dtype", text), text
        if not isinstance(value, eq.Architecture):
            assert str(value) == text


def test_tables_of_layers_go_through_transformations():
    variables = jax.jit(MODEL.init)(jax.random.key(0), X)
    eager = eq.distances(variables, model=MODEL, inputs=X)
    traced = jax.jit(lambda v: eq.distances(v, model=MODEL, inputs=X))(variables)
    assert traced.keys() == eager.keys()
    assert str(traced) == str(eager)
