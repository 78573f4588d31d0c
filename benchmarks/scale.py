"""How the cost of a training step grows with every size, and how near the roof it is.

    python -m benchmarks.scale [--quick] [--json FILE]

Forward and backward, by weights and input, of a stack of group convolutions with ReLU,
as inside a network, while one size varies and the others stay: points per axis,
channels per element, taps per axis, batch, depth, the order of the group at the same
real width, in the plane and in a volume, and members with weights and inputs of their
own, mapped as in `eq.Population`. For every point the seconds, what the program takes
of memory, and its share of the roof: the operations of three direct convolutions per
layer, per second, over those of a matrix product that is timed in turns with it.
Minimal filtering takes fewer multiplications, so that the share can exceed 1.
`exponents`: slopes of log cost over log size from the median size on, of seconds, of
memory with arguments and results, and of the operations, which is what to expect.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import eqjax as eq
from benchmarks.report import arguments, finish, seconds_in_turns
from eqjax.population.devices import over_members

GEMM = 2048  # rows and columns of the matrix product
STREAM = 2**26  # numbers that are read and written to measure bandwidth, 256 MB


@dataclasses.dataclass(frozen=True)
class Size:
    """All that the cost of a step depends on.

    Attributes:
      group: ambient, in the plane or in a volume.
      points: of the grid, per axis.
      channels: per fiber element.
      taps: of the kernels, per axis.
      batch: samples.
      depth: layers.
      members: stacks of layers, each with its own weights and inputs.
    """

    group: eq.Group
    points: int
    channels: int
    taps: int = 3
    batch: int = 16
    depth: int = 2
    members: int = 1

    @property
    def width(self) -> int:
        """Real channels."""
        return self.group.order * self.channels

    @property
    def operations(self) -> int:
        """Those of three direct convolutions per layer: forward, weights and input."""
        sums = (self.points * self.taps) ** self.group.dimension * self.width**2
        return 3 * 2 * sums * self.batch * self.depth * self.members

    def within(self, name: str) -> Size:
        """Return this size over a subgroup alone, at the same real width."""
        group = eq.Group(self.group.subgroup(name, 0).matrices)
        return dataclasses.replace(
            self, group=group, channels=self.width // group.order
        )


BASE = Size(eq.dihedral(4), points=28, channels=4)
SMALL = dataclasses.replace(BASE, points=14, channels=2)
VOLUME = Size(eq.full_octahedral(), points=8, channels=1)


def series() -> dict[str, dict[int, Size]]:
    """Return the sizes of each series, by the number that varies."""
    vary = functools.partial(dataclasses.replace, BASE)
    plane = map(BASE.within, ("C1", "D1", "C4", "D4"))
    volume = map(VOLUME.within, ("C1", "C4", "D4", "O", "Oh"))
    members = (1, 4, 16, 64, 256)
    return {
        "image size": {n: vary(points=n) for n in (14, 28, 64, 128, 256)},
        "channels": {n: vary(channels=n) for n in (2, 4, 8, 16, 32, 64)},
        "kernel size": {n: vary(taps=n) for n in (1, 3, 5, 7)},
        "batch": {n: vary(batch=n) for n in (4, 16, 64, 256)},
        "depth": {n: vary(depth=n) for n in (1, 2, 4, 8, 16)},
        "group order": {size.group.order: size for size in plane},
        "group order, volume": {size.group.order: size for size in volume},
        "members": {n: dataclasses.replace(SMALL, members=n) for n in members},
    }


@functools.cache
def program(size: Size) -> tuple[Any, Callable[[], Any]]:
    """Return a compiled step, and the same as a program without arguments."""
    layer = functools.partial(
        eq.GroupConv, size.channels, size.taps, group=size.group, use_bias=False
    )
    model = nn.Sequential([f for _ in range(size.depth) for f in (layer(), nn.relu)])
    space = (size.points,) * size.group.dimension
    shape = (size.batch, *space, size.group.order, size.channels)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.empty(shape))
    rng = np.random.default_rng(0)

    def drawn(shape, std=1.0):
        values = std * rng.standard_normal((size.members, *shape), np.float32)
        return jnp.asarray(values)

    xs = drawn(shape)
    std = (size.width * size.taps**size.group.dimension) ** -0.5
    variables = jax.tree.map(lambda leaf: drawn(leaf.shape, std), shapes)

    def loss(variables, x):
        outputs: Any = model.apply(variables, x)
        return jnp.mean(outputs**2)

    def step(variables, xs):
        gradients = jax.grad(loss, argnums=(0, 1))
        return over_members(gradients, eq.Strategy(width=size.members), variables, xs)

    run = jax.jit(step).lower(variables, xs).compile()
    return run, functools.partial(run, variables, xs)


def roof() -> dict[str, Callable[[], Any]]:
    """Return a matrix product, and a pass over an array that stays where it is."""
    matrix = jax.random.normal(jax.random.key(0), (GEMM, GEMM))
    product = jax.jit(jnp.matmul)
    scale = jax.jit(lambda x: 0.5 * x + 1, donate_argnums=0)
    x = jnp.zeros(STREAM)

    def stream():
        nonlocal x
        x = scale(x)
        return x

    return {"gemm": functools.partial(product, matrix, matrix), "stream": stream}


def bytes_of(run: Any) -> tuple[int, int]:
    """Return what a program takes for itself, and for arguments and results."""
    sizes = run.memory_analysis()
    named = sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return sizes.temp_size_in_bytes, named


def exponent(costs: Mapping[int, float]) -> float:
    """Return the slope of log cost over log size, from the median size on."""
    upper = list(costs.items())[-(len(costs) // 2 + 1) :]
    sizes, taken = np.log(upper).T
    return round(float(np.polyfit(sizes, taken, 1)[0]), 2) or 0.0


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    limits = roof()
    rows: dict[str, float] = {}
    exponents: dict[str, dict[str, float]] = {}
    shares: dict[str, dict[int, float]] = {}
    roofs: dict[str, list[float]] = {"gemm_gflops": [], "bandwidth_gb_per_s": []}
    for name, sizes in series().items():
        sizes = dict(list(sizes.items())[: 2 if options.quick else None])
        programs = {str(n): program(size)[1] for n, size in sizes.items()}
        taken = seconds_in_turns({**programs, **limits}, 3 if options.quick else 7)
        gemm = 2 * GEMM**3 / taken["gemm"]
        roofs["gemm_gflops"].append(gemm / 1e9)
        roofs["bandwidth_gb_per_s"].append(2 * 4 * STREAM / taken["stream"] / 1e9)
        seconds = {n: taken[str(n)] for n in sizes}
        memory = {n: bytes_of(program(size)[0]) for n, size in sizes.items()}
        operations = {n: size.operations for n, size in sizes.items()}
        shares[name] = {n: operations[n] / seconds[n] / gemm for n in sizes}
        for n in sizes:
            rows[f"{name} {n}: step (ms)"] = 1e3 * seconds[n]
            rows[f"{name} {n}: temporary memory (MB)"] = memory[n][0] / 1e6
            rows[f"{name} {n}: arguments and results (MB)"] = memory[n][1] / 1e6
            rows[f"{name} {n}: share of the roof"] = shares[name][n]
        exponents[name] = {
            "seconds": exponent(seconds),
            "memory": exponent({n: sum(taken) for n, taken in memory.items()}),
            "operations": exponent(operations),
        }
    measured = {name: statistics.median(values) for name, values in roofs.items()}
    summary = {"exponents": exponents, "share_of_roof": shares, "roof": measured}
    finish(options, {**rows, **measured}, summary)


if __name__ == "__main__":
    main()
