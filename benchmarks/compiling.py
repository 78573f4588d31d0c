"""What compiling a training step of the 8-layer D4 network takes.

    python -m benchmarks.compiling [--quick] [--json FILE]

Seconds of tracing, lowering and compiling the step of `benchmarks.step`, for the
network and for a plain one of the same real width, with convolutions in the form that
eqjax chooses and in that of `jax.lax`. Each is made anew, in turns, after JAX has
forgotten all that it traced and compiled, and without its cache on disk. 4 and 16
channels per fiber element, with --quick the former alone. `ours_over_lax`: the network
in its two forms. `equivariant_over_plain`: against the plain one, both in eqjax's form.
"""

from __future__ import annotations

import functools
import statistics
import time

import flax.linen as nn
import jax
import numpy as np
import optax

from benchmarks.plain import PlainCNN
from benchmarks.report import arguments, finish
from benchmarks.step import BATCH, network
from eqjax import training
from eqjax.ops.convolution import prefer

STAGES = ("tracing", "lowering", "compiling")


def seconds_by_stage(model: nn.Module, form: str) -> dict[str, float]:
    """Return the seconds of each stage of making a training step, and of all."""
    optimizer = optax.adam(1e-3)
    x = jax.ShapeDtypeStruct((BATCH, 28, 28, 1), np.float32)
    y = jax.ShapeDtypeStruct((BATCH,), np.int32)
    start = functools.partial(training.init_state, model=model, optimizer=optimizer)
    state = jax.eval_shape(start, jax.random.key(0), x=x)
    step = functools.partial(training.train_step, model=model, optimizer=optimizer)
    jax.clear_caches()
    times = [time.perf_counter()]
    with prefer(form):
        traced = jax.jit(lambda *a: step(*a)).trace(state, x, y)
        times.append(time.perf_counter())
        lowered = traced.lower()
        times.append(time.perf_counter())
        lowered.compile()
        times.append(time.perf_counter())
    taken = dict(zip(STAGES, np.diff(times).tolist(), strict=True))
    return {**taken, "all": sum(taken.values())}


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.jit(lambda x: x + 1).lower(1.0).compile()  # the first of all takes longer
    rows: dict[str, float] = {}
    over_lax, over_plain = {}, {}
    for channels in (4,) if options.quick else (4, 16):
        ours = network(channels)
        plain = PlainCNN(tuple(8 * n for n in ours.features))
        steps = {
            "ours": (ours, "auto"),
            "ours, lax": (ours, "direct"),
            "plain": (plain, "auto"),
            "plain, lax": (plain, "direct"),
        }
        turns = [
            {name: seconds_by_stage(*step) for name, step in steps.items()}
            for _ in range(1 if options.quick else 3)
        ]
        case = f"{channels} channels"
        for name in steps:
            for stage in (*STAGES, "all"):
                rows[f"{case}: {name}: {stage} (s)"] = statistics.median(
                    turn[name][stage] for turn in turns
                )
        taken = {name: rows[f"{case}: {name}: all (s)"] for name in steps}
        over_lax[case] = taken["ours"] / taken["ours, lax"]
        over_plain[case] = taken["ours"] / taken["plain"]
    summary = {"ours_over_lax": over_lax, "equivariant_over_plain": over_plain}
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
