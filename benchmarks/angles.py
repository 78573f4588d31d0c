"""Finer angles: how nearly layers follow them, what they cost, and what relaxing keeps.

    python -m benchmarks.angles [--quick] [--json FILE] [--picture FILE]

- `error_over_escnn`: the equivariance error over all elements of D8, of a layer and of
  a network of three, over that of escnn's layers of the same taps and frequencies. All
  have random weights, read smooth images of 29x29 pixels, and are turned by the same
  interpolation. "mean" is over elements and seeds, "worst" of the largest.
- `step_over_plain`: a training step of a network over a plain one of the same real
  width.
- `relaxation_error`: the largest relative change of the sampled kernel, in float64,
  over all pairs of a subgroup and one of its subgroups, of D8 and of C16.

The picture shows the error of invariants over the angle, between the elements of the
groups, too. Needs PyTorch and escnn for its part of these, see `benchmarks.peers`;
without them `error_over_escnn` is null.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import eqjax as eq
from benchmarks.peers import import_peers
from benchmarks.plain import PlainCNN
from benchmarks.report import arguments, finish, seconds_in_turns
from benchmarks.step import training_step
from eqjax import kernels
from eqjax.fields.interpolation import interpolated

D8 = eq.dihedral(8)
FIELDS = 4
TAPS = 5
PIXELS = 29
LAYERS = {"layer": 1, "network": 3}
Apply = Callable[[np.ndarray], np.ndarray]  # images -> a field over D8


def images(count: int) -> np.ndarray:
    """Return smooth images, zero near the border, (count, 29, 29, 1)."""
    rng = np.random.default_rng(0)
    axis = np.arange(PIXELS) - (PIXELS - 1) / 2
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"))
    places = rng.uniform(-7, 7, size=(count, 20, 2))
    heights = rng.normal(size=(count, 20))
    away = grid[None, None] - places[..., None, None]
    bumps = np.exp(-0.5 * (away**2).sum(2) / 2.0**2)
    found = np.einsum("nb,nbij->nij", heights, bumps)[..., None]
    return np.asarray(found / found.std(), np.float32)


class Network(nn.Module):
    """Convolutions over a group with ReLUs between them: images to a field."""

    group: eq.Group
    layers: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return a field (batch, height, width, |G|, fields)."""
        settings: dict[str, Any] = {"group": self.group, "use_bias": False}
        for layer in range(self.layers):
            make = eq.GroupConv if layer else eq.LiftingConv
            x = make(FIELDS, TAPS, **settings)(nn.relu(x) if layer else x)
        return x


def ours(group: eq.Group, layers: int, seed: int) -> Apply:
    """Return a network of eqjax with random weights."""
    network = Network(group, layers)
    example = jnp.zeros((1, PIXELS, PIXELS, 1))
    variables = jax.jit(network.init)(jax.random.key(seed), example)
    run = jax.jit(network.apply)
    return lambda x: np.asarray(run(variables, jnp.asarray(x)))


def theirs(torch: Any, escnn: Any, layers: int, seed: int) -> Apply:
    """Return the same network of escnn, over D8."""
    del escnn
    from escnn import gspaces, nn as enn

    torch.manual_seed(seed)
    space = gspaces.flipRot2dOnR2(8)
    image = enn.FieldType(space, [space.trivial_repr])
    wide = enn.FieldType(space, FIELDS * [space.regular_repr])
    parts: list[Any] = []
    for layer in range(layers):
        before = wide if layer else image
        if layer:
            parts.append(enn.ReLU(wide))
        conv = enn.R2Conv(before, wide, TAPS, padding=TAPS // 2, bias=False)
        parts.append(conv)
    network = enn.SequentialModule(*parts).eval()

    def apply(x: np.ndarray) -> np.ndarray:
        given = torch.tensor(np.moveaxis(x, -1, 1))
        with torch.no_grad():
            found = network(enn.GeometricTensor(given, image)).tensor.numpy()
        found = found.reshape(len(x), FIELDS, 16, *found.shape[2:])
        return np.ascontiguousarray(found.transpose(0, 3, 4, 2, 1))

    return apply


def errors(apply: Apply, x: np.ndarray) -> dict[str, float]:
    """Return the relative equivariance error of every element of D8, by its name."""
    y = jnp.asarray(apply(x))
    found = {}
    for u, name in zip(D8.elements, D8.element_names, strict=True):
        got = apply(np.asarray(eq.transform(jnp.asarray(x), u, group=D8)))
        expected = eq.transform(y, u, group=D8)
        found[name] = float(jnp.linalg.norm(got - expected) / jnp.linalg.norm(y))
    return found


def invariant_errors(apply: Apply, x: np.ndarray, turns: np.ndarray) -> list[float]:
    """Return how far the largest value of each field moves when images turn."""

    def invariants(x: np.ndarray) -> np.ndarray:
        return apply(x).max(3).mean((1, 2))

    before = invariants(x)
    found = []
    for turn in turns:
        cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
        matrix = np.array([[cos, -sin], [sin, cos]])
        moved = invariants(np.asarray(interpolated(jnp.asarray(x), matrix)))
        gap = np.linalg.norm(moved - before, axis=1)
        found.append(float(np.mean(gap / np.linalg.norm(before, axis=1))))
    return found


def relaxation_error(*, quick: bool) -> float:
    """Return the largest relative change of a sampled kernel by a relaxation."""
    worst = 0.0
    harmonics = eq.CircularHarmonics()
    with jax.enable_x64(True):  # noqa: FBT003
        for group in (D8, eq.cyclic(16)):
            fibers = eq.regular(group), eq.regular(group)
            for large, small in pairs(group, quick=quick):
                before, after = (
                    kernels.commuting(H, (TAPS, TAPS), *fibers, basis=harmonics)
                    for H in (large, small)
                )
                rng = np.random.default_rng(0)
                values = jnp.asarray(rng.normal(size=(before.num_orbits, 1, 1)))
                full = before.spread(values)
                again = after.spread(after.mean(full))
                own, relaxed = (
                    kernels.sample(c, harmonics, (TAPS, TAPS)) for c in (full, again)
                )
                gap = jnp.linalg.norm(relaxed - own) / jnp.linalg.norm(own)
                worst = max(worst, float(gap))
    return worst


def pairs(group: eq.Group, *, quick: bool) -> Iterator[tuple[eq.Group, eq.Group]]:
    """Yield subgroups with each of their own subgroups."""
    for large in group.subgroups[: 3 if quick else None]:
        for small in large.subgroups:
            yield large, small


def step_over_plain(*, quick: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Return milliseconds of training steps, and ratios."""
    rows, ratios = {}, {}
    cases = {"C8, 4 fields": ("C8", 4), "D8, 2 fields": ("D8", 2)}
    if not quick:
        cases |= {"C16, 4 fields": ("C16", 4), "D16, 4 fields": ("D16", 4)}
    for name, (ambient, fields) in cases.items():
        group = {"C": eq.cyclic, "D": eq.dihedral}[ambient[0]](int(ambient[1:]))
        features = (fields,) * 2 + (2 * fields,) * 2
        architecture = eq.Architecture.uniform(group, len(features) + 1)
        tied = eq.exact(architecture, features=features, pool_after=(1, 2, 3))
        plain = PlainCNN(tuple(group.order * n for n in features), 5, (1, 2, 3))
        programs = {
            "tied": training_step(tied, "auto"),
            "plain": training_step(plain, "auto"),
        }
        seconds = seconds_in_turns(programs, 3 if quick else 9)
        for kind, taken in seconds.items():
            rows[f"step, {name}: {kind} (ms)"] = 1e3 * taken
        ratios[name] = round(seconds["tied"] / seconds["plain"], 3)
    return rows, ratios


def draw(curves: dict[str, list[float]], turns: np.ndarray, path: Path) -> None:
    """Draw the error over the angle."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        style = "--" if "escnn" in name else "-"
        axes.plot(360 * turns, 100 * np.array(values), style, label=name)
    axes.set(
        xlabel="angle (degrees)",
        ylabel="error of invariants (%)",
        xticks=range(0, 91, 15),
        ylim=(0, None),
    )
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure and print."""
    picture = None
    if "--picture" in sys.argv:
        at = sys.argv.index("--picture")
        picture = Path(sys.argv[at + 1])
        del sys.argv[at : at + 2]
    options = arguments(__doc__)
    # Before PyTorch is there, whose threads take turns with those of XLA.
    steps, ratios = step_over_plain(quick=options.quick)
    try:
        torch, escnn = import_peers()
    except ImportError as error:
        torch = None
        print(f"{error}: only eqjax is measured, see benchmarks.peers")
    seeds = range(1 if options.quick else 5)
    x = images(2 if options.quick else 8)
    rows: dict[str, float] = {}
    over: dict[str, float] = {}
    for name, layers in LAYERS.items():
        makers: dict[str, Callable[[int], Apply]] = {
            "eqjax": functools.partial(ours, D8, layers)
        }
        if torch is not None:
            makers["escnn"] = functools.partial(theirs, torch, escnn, layers)
        means, worsts = {}, {}
        for library, make in makers.items():
            found = [list(errors(make(seed), x).values()) for seed in seeds]
            means[library] = float(np.mean(found))
            worsts[library] = float(np.mean(np.max(found, 1)))
            rows[f"{name}: {library}, mean error (%)"] = 100 * means[library]
            rows[f"{name}: {library}, worst element (%)"] = 100 * worsts[library]
        if torch is not None:
            over[f"{name}, mean"] = round(means["eqjax"] / means["escnn"], 3)
            over[f"{name}, worst"] = round(worsts["eqjax"] / worsts["escnn"], 3)
    if picture is not None:
        turns = np.arange(0, 91, 3) / 360
        curves = {}
        for name in ("C4", "C8", "C16", "D8"):
            group = {"C": eq.cyclic, "D": eq.dihedral}[name[0]](int(name[1:]))
            makes = [ours(group, 3, seed) for seed in seeds]
            each = [invariant_errors(make, x, turns) for make in makes]
            curves[name] = np.mean(each, 0).tolist()
        if torch is not None:
            makes = [theirs(torch, escnn, 3, seed) for seed in seeds]
            each = [invariant_errors(make, x, turns) for make in makes]
            curves["D8 of escnn"] = np.mean(each, 0).tolist()
        for name, values in curves.items():
            rows[f"invariants of {name}, largest error over 0 to 90 degrees (%)"] = (
                100 * max(values)
            )
        draw(curves, turns, picture)
    rows |= steps
    summary = {
        "error_over_escnn": over or None,
        "step_over_plain": ratios,
        "relaxation_error": relaxation_error(quick=options.quick),
    }
    if torch is not None:
        summary |= {"torch": torch.__version__, "escnn": escnn.__version__}
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
