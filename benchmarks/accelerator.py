"""Everything worth knowing about a GPU in eight minutes.

    python -m benchmarks.accelerator [--quick] [--json FILE] [--only 'parity' ...]

- `parity`: values and gradients of a D4 layer, and its equivariance error, in float32
  with and without TF32 and in bfloat16, against float64 on the host.
- `forms`: forward and backward of single convolutions: direct, minimal filtering, a
  matrix product per tap, in float32, TF32 and bfloat16; `winner` is the fastest one.
- `members`: training samples per second of a population, 1 to 256 members of networks
  with different groups, by vmap with 8 steps per call, over one after another.
- `processes`: the same of several processes that share the device, one member each.
- `merged`: a first layer that all members read the same images with, its kernels side
  by side in one convolution, over `vmap`.
- `lengths`: a step of the paper's networks on RotMNIST at full size, and what 100
  passes would take.

The JSON file is written after every part, so that what was measured stays. With --quick
sizes are small, and a CPU does it in two minutes; nothing follows from that about GPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import eqjax as eq
from benchmarks.forms import compiled, convolution
from benchmarks.population import network, samples_per_second
from benchmarks.report import arguments, environment, seconds_in_turns
from benchmarks.step import BATCH, training_step
from eqjax.ops.convolution import convolve
from eqjax.population.devices import Strategy
from eqjax.population.stack import Population

D4 = eq.dihedral(4)
PRECISIONS = {"float32": "highest", "TF32": "default"}
SHAPES = [(28, 32, 5), (28, 128, 5), (14, 256, 5), (32, 128, 3), (8, 512, 3)]
TRAINING_IMAGES = 10_000  # of RotMNIST, without the validation split


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Compute on the host, in float64."""
    with jax.enable_x64(new_val=True), jax.default_device(jax.devices("cpu")[0]):
        yield


def distance(a: Any, b: Any) -> float:
    """Return the relative distance of two trees of arrays from b."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    norms = [
        (np.linalg.norm(np.asarray(u, float) - v), np.linalg.norm(v))
        for u, v in ((u, np.asarray(v, float)) for u, v in pairs)
    ]
    return float(max(gap / whole for gap, whole in norms))


def parity(*, quick: bool) -> dict[str, Any]:
    """Return errors of a layer against float64, by precision."""
    channels, batch = (2, 2) if quick else (16, 32)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, 28, 28, 8, channels))

    def gradients(layer, variables, x):
        def loss(variables, x):
            return jnp.mean(jnp.square(layer.apply(variables, x).astype(jnp.float32)))

        return jax.grad(loss, argnums=(0, 1))(variables, x)

    def layer(dtype: Any) -> eq.GroupConv:
        return eq.GroupConv(channels, 5, group=D4, use_bias=False, dtype=dtype)

    with in_double():
        variables = layer(None).init(jax.random.key(0), jnp.asarray(x))
        exact = jax.jit(layer(None).apply)(variables, x)
        slopes = jax.jit(functools.partial(gradients, layer(None)))(variables, x)
        kept = jax.tree.map(np.asarray, (variables, exact, slopes))
    variables, exact, slopes = kept
    single, images = jax.tree.map(np.float32, (variables, x))
    found = {}
    for name in (*PRECISIONS, "bfloat16"):
        own = layer(jnp.bfloat16 if name == "bfloat16" else None)
        with jax.default_matmul_precision(PRECISIONS.get(name, "default")):
            y = jax.jit(own.apply)(single, images)
            ours = jax.jit(functools.partial(gradients, own))(single, images)
            kept_by = jax.jit(functools.partial(own.apply, single))
            error = eq.equivariance_error(kept_by, images, group=D4)
        found[name] = {
            "values": distance(y, exact),
            "gradients": distance(ours, slopes),
            "equivariance": float(error),
        }
    return {"error": found}


def by_taps(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlate by one matrix product per tap, over shifted slices; SAME padding."""
    *taps, c_in, c_out = kernel.shape
    ends = [(r // 2, (r - 1) // 2) for r in taps]
    size = x.shape[1:-1]
    x = jnp.pad(x, ((0, 0), *ends, (0, 0)))
    slices = [
        lax.dynamic_slice(x, (0, *offset, 0), (x.shape[0], *size, c_in))
        for offset in np.ndindex(*taps)
    ]
    flat = kernel.reshape(-1, c_in, c_out)
    return jnp.einsum("t...i,tio->...o", jnp.stack(slices), flat)


def forms(*, quick: bool) -> dict[str, Any]:
    """Return milliseconds of each form by shape and precision, and the fastest."""
    found: dict[str, dict[str, float]] = {}
    for points, channels, taps in SHAPES[:1] if quick else SHAPES:
        plain, x, kernel = convolution("plain", points, channels, taps)
        x = x[:4] if quick else x
        programs = {}
        for name in (*PRECISIONS, "bfloat16"):
            dtype = jnp.bfloat16 if name == "bfloat16" else jnp.float32
            arrays = x.astype(dtype), kernel.astype(dtype)
            kinds: dict[str, tuple[Callable[..., Any], str]] = {
                "direct": (plain, "direct"),
                "matrix products per tap": (by_taps, "direct"),
            }
            if name == "float32":  # the only precision in which it is exact enough
                kinds["minimal filtering"] = plain, "winograd"
            for kind, (function, form) in kinds.items():

                def loss(x, kernel, function=function):
                    return jnp.sum(jnp.square(function(x, kernel)).astype(jnp.float32))

                with jax.default_matmul_precision(PRECISIONS.get(name, "default")):
                    slopes = jax.grad(loss, argnums=(0, 1))
                    programs[f"{name}, {kind}"] = compiled(slopes, form, *arrays)
        seconds = seconds_in_turns(programs, 3 if quick else 20)
        found[f"{points} points, {channels} channels, {taps} taps"] = {
            name: 1e3 * taken for name, taken in seconds.items()
        }
    winner = {
        shape: min((n for n in own if n.startswith("float32")), key=own.__getitem__)
        for shape, own in found.items()
    }
    return {"milliseconds": found, "winner": winner}


def members(*, quick: bool) -> dict[str, Any]:
    """Return samples per second by members and strategy."""
    channels = 1 if quick else 4
    inputs = jax.ShapeDtypeStruct((BATCH, 28, 28, 1), np.float32)
    model, optimizer = network("D4", channels, quick), optax.adam(1e-3)
    speed: dict[str, dict[str, float]] = {}
    for n in (1, 2) if quick else (1, 4, 16, 64, 256):
        strategies = {"one after another": Strategy(1, 8), "vmap": Strategy(n, 8)}
        if n > 16:
            del strategies["one after another"]  # it takes what 16 take, per member
        populations = {
            name: Population(model, optimizer, inputs, strategy)
            for name, strategy in strategies.items()
        }
        speed[str(n)] = samples_per_second(populations, n, channels, quick)
    alone = speed["1"]["one after another"]
    over = {n: own["vmap"] / alone for n, own in speed.items()}
    return {"samples_per_second": speed, "vmap_over_one_after_another": over}


_ALONE = """
import time
from benchmarks.population import *
channels, quick, seconds = {channels}, {quick}, {seconds}
inputs = jax.ShapeDtypeStruct((BATCH, 28, 28, 1), np.float32)
member = Population(
    network("D4", channels, quick), optax.adam(1e-3), inputs, Strategy(1, 8)
)
run, samples = training(member, 1, channels, quick)
jax.block_until_ready(run())
print("ready", flush=True)
input()
begin, done = time.perf_counter(), 0
while time.perf_counter() - begin < seconds:
    jax.block_until_ready(run())
    done += samples
print(done / (time.perf_counter() - begin), flush=True)
"""


def processes(*, quick: bool) -> dict[str, Any]:
    """Return samples per second of processes that start together."""
    code = _ALONE.format(channels=1 if quick else 4, quick=quick, seconds=2)
    settings = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    found = {}
    for n in (1, 2) if quick else (1, 4, 8):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **settings},
            )
            for _ in range(n)
        ]
        for each in started:
            assert each.stdout is not None
            each.stdout.readline()
        speeds = [each.communicate("\n")[0] for each in started]
        found[str(n)] = sum(map(float, speeds))
    return {"samples_per_second": found}


def merged(*, quick: bool) -> dict[str, Any]:
    """Return milliseconds of a first layer of many members, two ways."""
    n, channels = (2, 8) if quick else (64, 32)
    x = jax.random.normal(jax.random.key(0), (BATCH, 28, 28, 1))
    kernels = jax.random.normal(jax.random.key(1), (n, 5, 5, 1, channels))
    plain = functools.partial(
        convolve, strides=(1, 1), dilation=(1, 1), padding=((2, 2), (2, 2))
    )

    def side_by_side(x, kernels):
        wide = jnp.moveaxis(kernels, 0, -2).reshape(5, 5, 1, -1)
        y = plain(x, wide)
        return jnp.moveaxis(y.reshape(*y.shape[:-1], n, channels), -2, 0)

    ways = {"vmap": jax.vmap(plain, in_axes=(None, 0)), "side by side": side_by_side}
    programs = {}
    for name, function in ways.items():

        def loss(kernels, x, function=function):
            return jnp.sum(jnp.square(function(x, kernels)))

        programs[name] = compiled(jax.grad(loss), "direct", kernels, x)
    seconds = seconds_in_turns(programs, 3 if quick else 20)
    return {
        "milliseconds": {name: 1e3 * taken for name, taken in seconds.items()},
        "side_by_side_over_vmap": seconds["side by side"] / seconds["vmap"],
    }


def lengths(*, quick: bool) -> dict[str, Any]:
    """Return milliseconds of a step of the paper's networks, and of 100 passes."""
    found = {}
    for name in ("C4", "D4", "C1"):
        architecture = eq.Architecture.parse(D4, " ".join([name] * 9))
        features = (1,) * 8 if quick else eq.EquivariantCNN.features
        step = training_step(eq.exact(architecture, features=features), "auto")
        taken = seconds_in_turns({name: step}, 1 if quick else 20)[name]
        passes = 100 * TRAINING_IMAGES / BATCH * taken
        found[name] = {"step (ms)": 1e3 * taken, "100 passes (s)": passes}
        if quick:
            break
    return {"by_group": found}


PARTS = {
    part.__name__: part for part in (parity, forms, members, processes, merged, lengths)
}


def main() -> None:
    """Measure part by part, and write what there is after each."""
    options = arguments(__doc__, only="*")
    summary: dict[str, Any] = {}
    for name, part in PARTS.items():
        if any(fnmatchcase(name, pattern) for pattern in options.only):
            begin = time.perf_counter()
            summary[name] = part(quick=options.quick)
            summary[name]["seconds"] = round(time.perf_counter() - begin, 1)
            print(name, json.dumps(summary[name], indent=2), flush=True)
            write(options, summary)
    print(json.dumps(summary))


def write(options: argparse.Namespace, summary: dict[str, Any]) -> None:
    """Write what was measured so far."""
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"environment": environment(), "summary": summary}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
