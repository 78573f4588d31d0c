"""What a mixed layer costs beside a layer of one group.

    python -m benchmarks.mixed [--quick] [--json FILE]

Forward and backward of one layer, 5x5, batch 64, regular to regular over D4: a mixture
of six groups (C1, C2, C4, D1, D2, D4), gradients of kernels, logits and input, against
a layer tied to C4, and against six separate layers whose outputs are summed. Then a
training step of the small network of the experiments, mixed over tied. The key
`mixed6_over_one` is the median over the shapes.
"""

from __future__ import annotations

import functools
import statistics

import jax
import numpy as np
import optax

import eqjax as eq
from benchmarks.report import arguments, finish, seconds_in_turns
from eqjax import training

D4 = eq.dihedral(4)
SIX = tuple(D4.subgroup(name, 0) for name in ("C1", "C2", "C4", "D1", "D2", "D4"))
SHAPES = [
    (28, 4),
    (28, 16),
    (14, 16),
    (14, 32),
    (7, 32),
]  # points, channels per element


def gradients(apply, variables, x):
    """Return a program for the gradients of weights, logits and input."""
    loss = lambda variables, x: (apply(variables, x) ** 2).sum()  # noqa: E731
    run = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(variables, x).compile()
    return functools.partial(run, variables, x)


def layer_programs(points: int, channels: int):
    """Return the programs of one shape."""
    x = jax.random.normal(jax.random.key(1), (64, points, points, 8, channels))
    one = eq.GroupConv(channels, 5, group=D4.subgroup("C4"))
    mixed = eq.MixedGroupConv(channels, 5, groups=SIX)
    layers = [eq.GroupConv(channels, 5, group=group) for group in SIX]
    key = jax.random.key(0)

    def separately(variables, x):
        return sum(
            layer.apply(own, x) for layer, own in zip(layers, variables, strict=True)
        )

    return {
        "one": gradients(one.apply, one.init(key, x), x),
        "mixed": gradients(mixed.apply, mixed.init(key, x), x),
        "six separate": gradients(separately, [m.init(key, x) for m in layers], x),
    }


def step_programs():
    """Return training steps of the experiments' small network."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 28, 28, 1)).astype(np.float32)
    y = rng.integers(10, size=32)
    optimizer = optax.adam(0.01)
    programs = {}
    for name, constraint in (("one", eq.Tied()), ("mixed", eq.Mixture(SIX))):
        model = eq.exact(
            eq.Architecture.uniform(D4, 5),
            features=(2, 4, 4, 8),
            pool_after=(1, 2, 3),
            head_features=32,
            constraint=constraint,
        )
        state = training.init_state(jax.random.key(0), model, optimizer, x)
        step = functools.partial(training.train_step, model=model, optimizer=optimizer)
        run = jax.jit(lambda s, x, y, step=step: step(s, x, y)).lower(state, x, y)
        programs[name] = functools.partial(run.compile(), state, x, y)
    return programs


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    repeats = 3 if options.quick else 9
    rows: dict[str, float] = {}
    over_one, over_six = {}, {}
    for points, channels in SHAPES[:1] if options.quick else SHAPES:
        seconds = seconds_in_turns(layer_programs(points, channels), repeats)
        shape = f"{points}x{points}, {channels} channels"
        for name, taken in seconds.items():
            rows[f"{shape}: {name} (ms)"] = 1e3 * taken
        over_one[shape] = seconds["mixed"] / seconds["one"]
        over_six[shape] = seconds["mixed"] / seconds["six separate"]
    steps = seconds_in_turns(step_programs(), 5 * repeats)
    for name, taken in steps.items():
        rows[f"step of the small network: {name} (ms)"] = 1e3 * taken
    summary = {
        "mixed6_over_one": statistics.median(over_one.values()),
        "mixed6_over_one_by_shape": over_one,
        "mixed6_over_six_separate": over_six,
        "step_mixed6_over_one": steps["mixed"] / steps["one"],
    }
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
