"""Trained models for other programs, each checked against the model before it is kept.

| format | what comes back | what is written |
|---|---|---|
| "linen" | variables and a linen module of plain layers | nothing |
| "nnx" | an NNX module of plain layers | nothing |
| "jax_export" | a `jax.export.Exported` of any batch size | its bytes |
| "safetensors" | the description | weights, and a description beside them in JSON |
| "onnx" | the path | the program, of any batch size |
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as File
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax import export as jax_export
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from eqjax.exchange.plain import Plain, to_plain
from eqjax.groups.checks import check_choice, check_path
from eqjax.morphism.matching import flat_variables, show, tied_model
from eqjax.training.checks import check_model, check_variables

Format = Literal["linen", "nnx", "jax_export", "safetensors", "onnx"]
WRITTEN = ("jax_export", "safetensors", "onnx")
CHECKED = (1, 3)  # batch sizes that an export is compared with the model on
Run = Callable[[np.ndarray], Any]


def export(
    model: nn.Module,
    variables: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    format: Format,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
    fold_norms: bool | None = None,
    tolerance: float = 1e-5,
) -> Any:
    """Turn a trained model into plain convolutions, and hand it to other programs.

    The result is run beside the model on random inputs of several batch sizes. Nothing
    is written, and nothing returned, where they differ.

    Args:
      model: any linen model that holds eqjax layers, of any constraints and norms.
      variables: of the model, concrete.
      path: of the file; for the formats that are written.
      format: "linen" or "nnx" for a model in this program; "jax_export" for a program
        that `jax.export.deserialize` runs on CPU, CUDA and TPU, for some months of JAX
        versions; "safetensors" for the weights, with a JSON file of the same name that
        describes the layers; "onnx" for ONNX, which needs the extra `eqjax[onnx]`.
      inputs: a batch of inputs; shapes are enough.
      call_kwargs: keyword arguments of the model's call, such as {"train": False}.
      fold_norms: let convolutions take over the batch norms that read them; by default
        in what is written as a program, "jax_export" and "onnx".
      tolerance: largest deviation of an output, relative to the largest output or to 1;
        where the outputs have fewer digits than float32, as many times more as theirs
        have less.

    Returns:
      "linen": the variables of the plain network and the network. "nnx": the network.
      "jax_export": the `jax.export.Exported`. "safetensors": the description, a dict.
      "onnx": the path.

    Raises:
      ValueError: the result differs from the model, a layer has no plain counterpart,
        or a path is missing or given where nothing is written.
      ImportError: a package is not installed that the format needs.

    >>> import eqjax as eq
    >>> groups = eq.Architecture.uniform(eq.dihedral(4), 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=())
    >>> x = jnp.ones((1, 8, 8, 1))
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> plain, network = export(model, variables, format="linen", inputs=x)
    >>> plain["params"]["conv1"]["kernel"].shape  # as that of nn.Conv(16, (5, 5))
    (5, 5, 1, 16)
    """
    check_choice("format", format, get_args(Format))
    check_model("model", model)
    check_variables("variables", variables)
    if (path is None) == (format in WRITTEN):
        need = "needs a path" if path is None else "is not written; leave out the path"
        raise ValueError(f"format {format!r} {need}")
    keywords = dict(call_kwargs or {})
    if isinstance(inputs, tuple):
        if len(inputs) != 1:
            raise ValueError(f"exports take one input, got {len(inputs)}")
        (inputs,) = inputs
    if fold_norms is None:
        fold_norms = format in ("jax_export", "onnx")
    plain, network = to_plain(
        variables,
        model=model,
        inputs=inputs,
        call_kwargs=keywords,
        fold_norms=fold_norms,
    )
    expected = jax.jit(lambda x: model.apply(variables, x, **keywords))

    def check(run: Run) -> None:
        _check(run, expected, inputs, tolerance, format)

    def apply(x):
        return network.apply(plain, x, **keywords)

    check(jax.jit(apply))
    if format == "linen":
        return plain, network
    if format == "nnx":
        return _nnx(plain, network, inputs, keywords, check)
    assert path is not None
    with _written(File(path)) as file:
        if format == "jax_export":
            return _jax_export(apply, inputs, file, check)
        if format == "onnx":
            _onnx(apply, inputs, file, check)
            return File(path)
        description = describe(model, inputs, keywords)
        _safetensors(plain, network, keywords, file, check)
        with _written(File(path).with_suffix(".json")) as beside:
            beside.write_text(json.dumps(description, indent=2) + "\n")
        return description


def read_plain(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the variables that `export` has written as safetensors, nested.

    They are those of `export(..., format="linen")`: kernels (*taps, in, out).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, or holds something else.

    >>> import tempfile
    >>> import eqjax as eq
    >>> layer, x = eq.LiftingConv(2, 3, group=eq.dihedral(4)), jnp.ones((1, 8, 8, 1))
    >>> variables = jax.jit(layer.init)(jax.random.key(0), x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = File(folder, "layer.safetensors")
    ...     _ = export(layer, variables, path, format="safetensors", inputs=x)
    ...     jax.tree.map(jnp.shape, read_plain(path))
    {'params': {'bias': (16,), 'kernel': (3, 3, 1, 16)}}
    """
    check_path("path", path)
    try:
        arrays = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} holds no plain network: {error}") from None
    return unflatten_dict({tuple(name.split("/")): a for name, a in arrays.items()})


def describe(
    model: nn.Module, inputs: Any, call_kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what each layer with a group is as a plain one, in the order of calls."""
    layers = []
    for path, layer in tied_model(model, inputs, call_kwargs).layers.items():
        row: dict[str, Any] = {"path": show(path), "layer": type(layer).__name__}
        row["group"], row["ambient"] = layer.group.name, layer.group.ambient.name
        for name in SETTINGS:
            value = getattr(layer, name, None)
            if value is not None:
                row[name] = value
        layers.append(row)
    return {
        "input": [None, *inputs.shape[1:]],
        "kernel_layout": "(*taps, in, out)",
        "real_channels": "fiber elements outermost, channels inside",
        "layers": layers,
    }


SETTINGS = (
    "kernel_size",
    "strides",
    "padding",
    "kernel_dilation",
    "feature_group_count",
    "num_groups",
    "epsilon",
)


def _check(
    run: Run, expected: Run, inputs: Any, tolerance: float, format_name: str
) -> None:
    """Raise unless an export computes what the model does."""
    rng = np.random.default_rng(0)
    for batch in CHECKED:
        x = rng.normal(size=(batch, *inputs.shape[1:]))
        x = x.astype(inputs.dtype)
        found, model = run(x), expected(x)
        worst = deviation(found, model, tolerance)
        if not worst <= 1:
            raise ValueError(
                f"as {format_name!r}, {batch} random inputs give outputs that are "
                f"{worst * tolerance:.1e} from those of the model, more than "
                f"{tolerance:.0e}; nothing is exported"
            )


def deviation(found: Any, expected: Any, tolerance: float) -> float:
    """Return the largest deviation of trees of outputs, in units of what is allowed."""
    found, expected = jax.tree.map(np.asarray, (found, expected))
    gaps = jax.tree.map(lambda a, b: _deviation(a, b, tolerance), found, expected)
    return max(jax.tree.leaves(gaps))


def _deviation(found: np.ndarray, expected: np.ndarray, tolerance: float) -> float:
    if found.shape != expected.shape:
        raise ValueError(
            f"the export returns shape {found.shape}, the model {expected.shape}"
        )
    coarse = float(jnp.finfo(expected.dtype).eps / jnp.finfo(np.float32).eps)
    allowed = tolerance * max(1.0, coarse)
    kind = np.promote_types(expected.dtype, np.float32)
    gap = np.abs(found.astype(kind) - expected.astype(kind)).max(initial=0)
    size = max(1.0, float(np.abs(expected.astype(kind)).max(initial=0)))
    return float(gap / size / allowed)


def _nnx(plain, network: Plain, inputs, keywords, check) -> Any:
    from flax import nnx
    from flax.nnx.bridge.variables import linen_vars_to_nnx_attrs

    module = nnx.bridge.ToNNX(network)
    for name, value in linen_vars_to_nnx_attrs(plain).items():
        setattr(module, name, nnx.data(value))
    graph, state = nnx.split(module)
    check(jax.jit(lambda x: nnx.merge(graph, state)(x, **keywords)))
    return module


def _jax_export(apply, inputs, file: File, check) -> jax_export.Exported:
    (batch,) = jax_export.symbolic_shape("batch")
    kind = jax.ShapeDtypeStruct((batch, *inputs.shape[1:]), inputs.dtype)
    platforms = ("cpu", "cuda", "tpu")
    exported = jax_export.export(jax.jit(apply), platforms=platforms)(kind)
    file.write_bytes(exported.serialize())
    read = jax_export.deserialize(bytearray(file.read_bytes()))
    check(read.call)
    return exported


def _safetensors(plain, network, keywords, file: File, check) -> None:
    flat = {"/".join(p): np.asarray(v) for p, v in flat_variables(plain).items()}
    save_file({name: np.ascontiguousarray(a) for name, a in flat.items()}, file)
    read = read_plain(file)
    check(jax.jit(lambda x: network.apply(read, x, **keywords)))


def _onnx(apply, inputs, file: File, check) -> None:
    jax2onnx, runtime = _needed("jax2onnx"), _needed("onnxruntime")
    shape = ("batch", *inputs.shape[1:])
    kind = jax.ShapeDtypeStruct(inputs.shape, inputs.dtype)
    program = jax2onnx.to_onnx(
        apply,
        [shape],
        enable_double_precision=kind.dtype == np.float64,
    )
    file.write_bytes(program.SerializeToString())
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(x: np.ndarray) -> Any:
        found = session.run(None, {name: x})
        return found[0] if len(found) == 1 else tuple(found)

    check(run)


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"this format needs {module}: install eqjax[onnx]") from error


@contextlib.contextmanager
def _written(path: File) -> Iterator[File]:
    """Give a file to write to, which takes its place only if all goes well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
