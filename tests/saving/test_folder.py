"""What is saved is what is loaded, or a clear error."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqjax as eq
from eqjax.saving.describing import describe, restore
from tests import catalogue
from tests.resnet import Block, ResNet

D4 = eq.dihedral(4)
X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def small(groups="D4 D2:i+j D1:i+j", **settings):
    groups = eq.Architecture.parse(D4, groups)
    kind = {"features": (2, 3), "pool_after": (1,), "kernel_size": 3, "classes": 3}
    return eq.exact(groups, head_features=4, **{**kind, **settings})


@pytest.mark.parametrize(
    "model",
    [
        small(),
        small("D4 C4", norm="element", head="dense"),
        small(dtype=jnp.bfloat16, parametrization="orthonormal"),
        small(constraint=[eq.ResidualPathway(), eq.Tied(), eq.SoftProjection()]),
        nn.Sequential(
            [
                eq.LiftingConv(2, (3, 3), padding=((1, 1), (1, 1)), group=D4),
                nn.relu,
                eq.BatchNorm(use_running_average=True, group=D4),
                eq.InvariantHead(3, group=D4.subgroup("C4")),
                nn.Dense(2, dtype=jnp.float16),
                jax.nn.log_softmax,
            ]
        ),
    ],
    ids=["exact", "dense", "bfloat16", "constraints", "sequential"],
)
def test_models_come_back(model, tmp_path):
    variables = model.init(jax.random.key(0), X)
    eq.save(tmp_path / "net", model, variables, inputs=X)
    saved = eq.load(tmp_path / "net")
    assert saved.model == model
    same(saved.variables, variables)
    np.testing.assert_array_equal(
        saved.model.apply(saved.variables, X), model.apply(variables, X)
    )


def test_a_module_in_two_places_is_one_again(tmp_path):
    shared = eq.GroupConv(2, 3, group=D4)
    model = nn.Sequential(
        [eq.LiftingConv(2, 3, group=D4), shared, nn.relu, shared, nn.BatchNorm(True)]
    )
    variables = model.init(jax.random.key(0), X)
    eq.save(tmp_path / "net", model, variables)
    saved = eq.load(tmp_path / "net")
    assert saved.model.layers[1] is saved.model.layers[3]
    np.testing.assert_array_equal(saved.logits(X), model.apply(variables, X))


@pytest.mark.parametrize("word", catalogue.CONSTRAINT_CASES)
def test_constraints_come_back(word):
    constraint = catalogue.CONSTRAINT_CASES[word]
    again = restore(json.loads(json.dumps(describe(constraint))))
    assert again == constraint


@pytest.mark.parametrize(
    "ambient",
    [eq.flip(), eq.cyclic(4), D4, eq.full_octahedral(), eq.dihedral(2)],
    ids=str,
)
def test_groups_come_back(ambient):
    for group in (ambient, *ambient.subgroups):
        again = restore(json.loads(json.dumps(describe(group))))
        assert again == group
        assert again.ambient == ambient
        fiber = eq.quotient(group)
        assert restore(describe(fiber)) == fiber


def test_an_ambient_group_without_a_name():
    ambient = eq.Group([[[1, 0], [0, 1]], [[0, 1], [1, 0]]])
    assert restore(json.loads(json.dumps(describe(ambient)))) == ambient


def test_relaxed_and_exported_models_come_back(tmp_path):
    model = small()
    variables = model.init(jax.random.key(0), X)
    groups = {"conv1": D4.subgroup("C2")}
    relaxed, other, _ = eq.relax(variables, model=model, groups=groups, inputs=X)
    eq.save(tmp_path / "relaxed", other, relaxed)
    saved = eq.load(tmp_path / "relaxed")
    same(saved.variables, relaxed)
    np.testing.assert_array_equal(
        saved.model.apply(saved.variables, X), other.apply(relaxed, X)
    )
    plain, network = eq.export(model, variables, format="linen", inputs=X)
    eq.save(tmp_path / "plain", network, plain)
    saved = eq.load(tmp_path / "plain")
    np.testing.assert_array_equal(saved.logits(X), network.apply(plain, X))


def test_somebodys_own_class_is_passed(tmp_path):
    model = ResNet(blocks=1)
    variables = model.init(jax.random.key(0), X)
    eq.save(tmp_path / "net", model, variables)
    with pytest.raises(ValueError, match=r"holds a ResNet, .* classes=\[ResNet\]"):
        eq.load(tmp_path / "net")
    saved = eq.load(tmp_path / "net", classes=[ResNet, Block])
    assert saved.model == model


def test_optimizer_names_and_more(tmp_path):
    model = small()
    variables = model.init(jax.random.key(0), X)
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    state = optimizer.init(variables["params"])
    gradient = jax.tree.map(jnp.ones_like, variables["params"])
    _, state = optimizer.update(gradient, state, variables["params"])
    kept = {"mean": [0.5], "deviation": [0.25], "shape": (8, 8, 1)}
    names = ("cat", "dog", "owl")
    eq.save(
        tmp_path / "net",
        model,
        variables,
        optimizer_state=state,
        preprocessing=kept,
        class_names=names,
        test_error=0.25,
    )
    saved = eq.load(tmp_path / "net")
    same(saved.optimizer_state(optimizer), state)
    assert saved.extra == {"test_error": 0.25}
    pixels = np.random.default_rng(0).integers(256, size=(8, 8)).astype(np.uint8)
    found = saved.predict(pixels)
    ready = (pixels[None, ..., None] / np.float32(255) - 0.5) / 0.25
    expected = jax.nn.softmax(model.apply(variables, ready))
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.names == (names[int(expected.argmax())],)
    assert found.names[0] in str(found)
    again = saved.predict(ready, prepared=True)
    np.testing.assert_allclose(again.probabilities, found.probabilities, atol=1e-6)
    with pytest.raises(ValueError, match="this optimizer has"):
        saved.optimizer_state(optax.sgd(0.1, momentum=0.9))
    with pytest.raises(ValueError, match=r"images of shape \(8, 8, 1\)"):
        saved.predict(np.zeros((9, 9, 1)))
    with pytest.raises(ValueError, match="expected bytes"):
        saved.predict(np.zeros((8, 8, 1), np.int64))


def test_another_architecture_is_relaxed_to(tmp_path):
    model = small()
    variables = model.init(jax.random.key(0), X)
    eq.save(tmp_path / "net", model, variables, inputs=X)
    looser = model.clone(architecture=eq.Architecture.parse(D4, "D2:i+j C2 C1"))
    saved = eq.load(tmp_path / "net", model=looser)
    assert saved.model == looser
    np.testing.assert_allclose(saved.logits(X), model.apply(variables, X), atol=1e-6)
    with pytest.raises(ValueError, match=r"(?s)conv1.*holds.*is to become"):
        eq.load(tmp_path / "net", model=model.clone(kernel_size=5))


def test_damaged_foreign_and_newer_folders(tmp_path):
    model = small()
    variables = model.init(jax.random.key(0), X)
    net = tmp_path / "net"
    eq.save(net, model, variables)
    weights, text = net / "weights.safetensors", net / "network.json"
    whole, told = weights.read_bytes(), text.read_text()
    weights.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged"):
        eq.load(net)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="lacks its weights"):
        eq.load(net)
    weights.write_bytes(whole)
    text.write_text(told[:100])
    with pytest.raises(ValueError, match=r"network.json is damaged"):
        eq.load(net)
    newer = {**json.loads(told), "version": 99}
    text.write_text(json.dumps(newer))
    with pytest.raises(ValueError, match="version 99 of the format"):
        eq.load(net)
    text.write_text("{}")
    with pytest.raises(ValueError, match="does not describe"):
        eq.load(net)
    text.unlink()
    with pytest.raises(FileNotFoundError, match="holds no network of eqjax"):
        eq.load(net)
    with pytest.raises(ValueError, match="holds something else"):
        eq.save(net, model, variables)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        eq.load(tmp_path / "nowhere")


def test_nothing_runs_that_a_file_names(tmp_path):
    model = small()
    eq.save(tmp_path / "net", model, model.init(jax.random.key(0), X))
    text = tmp_path / "net" / "network.json"
    told = json.loads(text.read_text())
    for name in ("os.system", "jax.numpy.load", "builtins.eval"):
        text.write_text(json.dumps({**told, "model": {"is": "function", "name": name}}))
        with pytest.raises(ValueError, match="is not known"):
            eq.load(tmp_path / "net")


def test_a_save_that_is_killed_leaves_the_old_one(tmp_path, monkeypatch):
    model = small()
    variables = model.init(jax.random.key(0), X)
    net = tmp_path / "net"
    eq.save(net, model, variables, number=1)

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("eqjax.saving.folder.save_file", die)
        with pytest.raises(KeyboardInterrupt):
            eq.save(net, model, variables, number=2)
    assert eq.load(net).extra == {"number": 1}
    net.rename(tmp_path / ".net.old")  # between the two renames
    assert eq.load(net).extra == {"number": 1}
    eq.save(net, model, variables, number=3)
    assert eq.load(net).extra == {"number": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_what_cannot_be_saved_says_so(tmp_path):
    layer = nn.Sequential([lambda x: x, eq.LiftingConv(2, 3, group=D4)])
    with pytest.raises(ValueError, match="cannot be saved as data"):
        eq.save(tmp_path / "net", layer, {})
    with pytest.raises(ValueError, match="must be plain data"):
        eq.save(tmp_path / "net", small(), {}, extra=object())
    model = small()
    variables = model.init(jax.random.key(0), X)
    eq.save(tmp_path / "net", model, variables, class_names=("a", "b"))
    saved = eq.load(tmp_path / "net")
    with pytest.raises(ValueError, match="2 class names for a network of 3"):
        saved.predict(X, prepared=True)
