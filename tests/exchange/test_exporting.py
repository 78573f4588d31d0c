"""Exports compute what the model does, or do not exist."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export as jax_export

import eqjax as eq
from eqjax.exchange import exporting
from tests.exchange.test_plain import network, trained_statistics

D4 = eq.dihedral(4)


@pytest.fixture(scope="module")
def model():
    return network()


def batches(x):
    rng = np.random.default_rng(2)
    for batch in (1, 5):
        yield jnp.asarray(rng.normal(size=(batch, *x.shape[1:])), x.dtype)


def test_linen(model):
    model, variables, x = model
    plain, other = eq.export(model, variables, format="linen", inputs=x)
    for given in batches(x):
        found = other.apply(plain, given)
        np.testing.assert_allclose(found, model.apply(variables, given), atol=1e-5)


def test_nnx(model):
    model, variables, x = model
    other = eq.export(model, variables, format="nnx", inputs=x)
    graph, params, rest = nnx.split(other, nnx.Param, ...)
    assert sum(p.size for p in jax.tree.leaves(params)) > 0
    for given in batches(x):
        found = nnx.merge(graph, params, rest)(given)
        np.testing.assert_allclose(found, model.apply(variables, given), atol=1e-5)
    gradient = nnx.grad(lambda module: module(x).sum())(other)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)


def test_jax_export(model, tmp_path):
    model, variables, x = model
    path = tmp_path / "program.bin"
    eq.export(model, variables, path, format="jax_export", inputs=x)
    program = jax_export.deserialize(bytearray(path.read_bytes()))
    assert str(program.in_avals[0].shape[0]) == "batch"
    for given in batches(x):
        found = program.call(given)
        np.testing.assert_allclose(found, model.apply(variables, given), atol=1e-5)


def test_safetensors(model, tmp_path):
    model, variables, x = model
    path = tmp_path / "weights.safetensors"
    described = eq.export(model, variables, path, format="safetensors", inputs=x)
    assert json.loads(path.with_suffix(".json").read_text()) == described
    rows = {row["path"]: row for row in described["layers"]}
    assert list(rows) == ["conv1", "norm1", "conv2", "norm2", "head"]
    assert rows["conv2"]["kernel_size"] == 3
    assert rows["conv2"]["group"] == "C4"
    plain = eq.read_plain(path)
    _, other = eq.export(model, variables, format="linen", inputs=x)
    for given in batches(x):
        found = other.apply(plain, given)
        np.testing.assert_allclose(found, model.apply(variables, given), atol=1e-5)


def test_onnx(model, tmp_path):
    pytest.importorskip("jax2onnx", reason="has an environment of its own")
    runtime = pytest.importorskip("onnxruntime")
    model, variables, x = model
    path = tmp_path / "program.onnx"
    eq.export(model, variables, path, format="onnx", inputs=x)
    session = runtime.InferenceSession(path)
    for given in batches(x):
        name = session.get_inputs()[0].name
        (found,) = session.run(None, {name: np.asarray(given)})
        np.testing.assert_allclose(found, model.apply(variables, given), atol=1e-5)


def test_half_precision():
    model, variables, x = network(dtype=jnp.bfloat16)
    plain, other = eq.export(model, variables, format="linen", inputs=x)
    assert other.apply(plain, x).shape == (2, 3)


class Skipped(nn.Module):
    """Something beside the norm reads the convolution."""

    @nn.compact
    def __call__(self, x):
        y = eq.LiftingConv(2, 3, group=D4)(x)
        y = y + eq.BatchNorm(True, group=D4)(y)
        return eq.InvariantHead(3, group=D4)(y)


def test_a_norm_stays_where_something_else_reads_the_convolution():
    x = jnp.ones((1, 6, 6, 1))
    model = Skipped()
    variables = trained_statistics(model.init(jax.random.key(0), x))
    settings = {"format": "linen", "inputs": x, "fold_norms": True}
    plain, _ = eq.export(model, variables, **settings)
    assert "BatchNorm_0" in plain["params"]


def test_what_differs_is_not_written(tmp_path, model, monkeypatch):
    model, variables, x = model
    path = tmp_path / "program.bin"
    wrong = exporting.to_plain

    def off(*args, **kwargs):
        plain, network = wrong(*args, **kwargs)
        return jax.tree.map(lambda v: 1.001 * v, plain), network

    monkeypatch.setattr(exporting, "to_plain", off)
    with pytest.raises(ValueError, match="nothing is exported"):
        eq.export(model, variables, path, format="jax_export", inputs=x)
    assert not list(tmp_path.iterdir())


def test_an_old_file_stays_where_an_export_fails(tmp_path, model):
    model, variables, x = model
    path = tmp_path / "program.bin"
    path.write_text("old")
    with pytest.raises(ValueError, match="nothing is exported"):
        eq.export(
            model, variables, path, format="jax_export", inputs=x, tolerance=1e-30
        )
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "torch"}, "format must be one of"),
        ({"format": "onnx"}, "needs a path"),
        ({"format": "linen", "path": "x"}, "is not written"),
    ],
)
def test_bad_arguments(model, settings, message):
    model, variables, x = model
    with pytest.raises(ValueError, match=message):
        eq.export(model, variables, inputs=x, **settings)


def test_variables_of_another_model(model):
    model, _, x = model
    with pytest.raises(ValueError, match="variables of the model lack"):
        eq.export(model, {"params": {}}, format="linen", inputs=x)
