"""Networks of stages: exact on every size, searchable, exported, trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax.models import SearchableModel
from eqjax.training import pixel_cross_entropy
from tests.exchange.test_plain import trained_statistics

D4 = eq.dihedral(4)
C4 = D4.subgroup("C4")
RNG = np.random.default_rng(0)


def model_of(kind, groups, **settings):
    ambient = settings.pop("ambient", D4)
    architecture = eq.Architecture.parse(ambient, groups)
    if kind == "unet":
        return eq.unet(architecture, features=(1, 2), **settings)
    if kind == "wide":
        return eq.wide_resnet(architecture, features=(1, 1), **settings)
    return eq.resnet(architecture, features=(1, 2), classes=3, **settings)


def images(size=8, batch=2, dtype=np.float32):
    return jnp.asarray(RNG.normal(size=(batch, size, size, 1)), dtype)


def initialized(model, x):
    """Far enough from zero that no ReLU is dead on all images."""
    variables = trained_statistics(jax.jit(model.init)(jax.random.key(0), x))
    rng = np.random.default_rng(5)
    moved = jax.tree.map(
        lambda v: v + jnp.asarray(rng.normal(size=v.shape), v.dtype),
        variables["params"],
    )
    return {**variables, "params": moved}


@pytest.mark.parametrize("size", [8, 9, 10, 11])
@pytest.mark.parametrize("kind", ["resnet", "wide"])
def test_residual_networks_are_exact_on_every_size(kind, size):
    model = model_of(kind, "D4 D4 C4 C4")
    x = images(size, dtype=np.float64)
    variables = initialized(model, x)
    assert model.symmetry(size) == C4

    def apply(x):
        return model.apply(variables, x)

    eq.assert_equivariant(apply, x, group=C4)
    with pytest.raises(AssertionError, match="reflection"):
        eq.assert_equivariant(apply, x, group=D4)


@pytest.mark.slow
def test_the_output_of_a_unet_moves_with_its_input():
    model = model_of("unet", "D4 D4 C4 C4", classes=3)
    x = images(8, dtype=np.float64)
    variables = initialized(model, x)
    assert model.symmetry((8, 8)) == C4

    def apply(x):
        return model.apply(variables, x)

    assert apply(x).shape == (2, 8, 8, 3)
    eq.assert_equivariant(apply, x, group=C4)
    with pytest.raises(AssertionError, match="reflection"):
        eq.assert_equivariant(apply, x, group=D4)
    rectangle = jnp.asarray(RNG.normal(size=(1, 8, 12, 1)))
    eq.assert_equivariant(apply, rectangle, group=D4.subgroup("C2"))
    assert model.symmetry((8, 12)).name == "C2"
    with pytest.raises(ValueError, match=r"multiples of 2.*nearest: \(8, 8\)"):
        model.init(jax.random.key(0), images(7))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "wide", "unet"])
def test_they_are_searchable_mixed_and_collapsed(kind):
    mixture = eq.Mixture((D4, C4))
    model = model_of(kind, "D4 D4 D4 D4", constraint=mixture)
    assert isinstance(model, SearchableModel)
    x = images()
    variables = initialized(model, x)
    plain, target, _ = eq.collapse(variables, model=model, inputs=x)
    assert str(target.architecture) == "C4 C4 C4 C4"
    np.testing.assert_allclose(
        target.apply(plain, x), model.apply(variables, x), atol=1e-4
    )
    chosen, tied, _ = eq.discretize(variables, model=model, inputs=x)
    assert str(tied.architecture) == "D4 D4 D4 D4"
    assert set(chosen["params"]) == set(model.layer_names)


@pytest.mark.parametrize("kind", ["resnet", "wide", "unet"])
def test_they_are_relaxed_exported_and_saved(kind, tmp_path):
    model = model_of(kind, "D4 D4 D4 D4")
    x = images()
    variables = initialized(model, x)
    looser = model.clone(architecture=eq.Architecture.parse(D4, "D4 C4 C4 C1"))
    relaxed, _ = eq.morph(variables, source=model, target=looser, inputs=x)
    expected = model.apply(variables, x)
    np.testing.assert_array_equal(looser.apply(relaxed, x), expected)
    for fold in (False, True):
        settings = {"format": "linen", "inputs": x, "fold_norms": fold}
        plain, network = eq.export(looser, relaxed, **settings)
        size = np.abs(expected).max()
        np.testing.assert_allclose(
            network.apply(plain, x) / size, expected / size, atol=2e-5
        )
    eq.save(tmp_path / "net", looser, relaxed, inputs=x)
    saved = eq.load(tmp_path / "net")
    assert saved.model == looser
    np.testing.assert_array_equal(saved.model.apply(saved.variables, x), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_they_are_evolved_and_guided(kind):
    x = RNG.normal(size=(16, 8, 8, 1)).astype(np.float32)
    settings = {"batch_size": 8}
    y = RNG.integers(3, size=16)
    if kind == "unet":
        y = RNG.integers(2, size=(16, 8, 8))
        settings["loss_fn"] = pixel_cross_entropy
    start = eq.Architecture.uniform(D4, 4)

    def make(architecture):
        return model_of(kind, " ".join(architecture.names))

    found = eq.evolve(
        make,
        start,
        (x, y),
        (x, y),
        optimizer=optax.adam(0.01),
        search=eq.Evolution(population_size=2, children=2, candidates=(D4, C4)),
        generations=1,
        first_steps=2,
        steps=2,
        **settings,
    )
    assert np.isfinite(found.best.error)
    if kind == "unet":
        settings["move_targets"] = lambda y, u: eq.transform(y[..., None], u, group=D4)[
            ..., 0
        ]
    guided = eq.guide(
        make, start, (x, y), (x, y), optimizer=optax.adam, steps=2, **settings
    )
    assert len(guided.report.layers) > len(start)  # every convolution of a stage
    assert np.isfinite(guided.validation.loss)


@pytest.mark.slow
def test_volumes_and_lines():
    for ambient, space in ((eq.octahedral(), (4, 4, 4)), (eq.flip(), (8,))):
        name = ambient.name
        model = model_of("unet", " ".join([name] * 4), ambient=ambient)
        x = jnp.asarray(RNG.normal(size=(1, *space, 1)))
        variables = initialized(model, x)

        def apply(x, model=model, variables=variables):
            return model.apply(variables, x)

        eq.assert_equivariant(apply, x, group=ambient)


def test_bad_settings():
    with pytest.raises(ValueError, match=r"stages stem, stage1, stage2, head, got 3"):
        model_of("resnet", "D4 D4 D4")
    with pytest.raises(ValueError, match="one for each of the 4 stages, got 2"):
        model_of("resnet", "D4 D4 D4 D4", constraint=[eq.Tied(), eq.Tied()])
    with pytest.raises(ValueError, match="blocks must be one number"):
        model_of("resnet", "D4 D4 D4 D4", blocks=(1, 2, 3))
    with pytest.raises(ValueError, match="must be odd"):
        model_of("unet", "D4 D4 D4 D4", kernel_size=4)
