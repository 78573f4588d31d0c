"""How soon a relaxed layer makes use of its freedom: four ways out of the saddle.

    python -m benchmarks.saddle [--quick] [--json FILE]

Relaxed directions start at zero, where a symmetric network is a critical point of them
or nearly so. D4 networks are trained for 500 steps on the pictures of
`benchmarks.own_images`, whose group is C4; then the head alone is relaxed to C4 and
trained for 125 steps, the usual length of a child, and for 250. Compared are Adam's
moments carried along; those of the relaxed layer restarted at zero; all of Adam
restarted, its count included; and carried moments after a first step along the part of
the gradient that D4 forbade, as long as lowers the loss on four batches most. Rows have
the validation error and loss at the end; the summary their medians over seeds 0 to 2.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import eqjax as eq
from benchmarks.own_images import draw
from benchmarks.report import arguments, finish
from eqjax import training
from eqjax.constraints.collections import PARAMS
from eqjax.training import TrainState, batches
from eqjax_experiments.data.catalogue import ROOT_VARIABLE
from eqjax_experiments.tasks.evolve import EvolutionTask

STRIDES = [0.0, *np.geomspace(0.01, 3, 12)]  # of the first step, over |parameters|


class Setting:
    """The two networks and the data of a seed."""

    def __init__(self, folder: Path, seed: int, first: int) -> None:
        self.task = EvolutionTask(data=str(folder), seed=seed)
        self.first = first
        self.dataset = self.task.load()
        self.inputs = self.task.inputs(self.dataset)
        before = self.task.first_architecture
        last = len(before) - 1
        after = before.replace(last, self.task.ambient_group.subgroup("C4"))
        self.source, self.target = self.task.model(before), self.task.model(after)

    def batches(self, steps: int, order: int):
        """Yield the batches of a training."""
        rng = np.random.default_rng([self.task.seed, order])
        return batches(self.dataset.train, self.task.batch_size, steps, rng)

    def train(self, state: TrainState, model: Any, steps: int, order: int, *lengths):
        """Return the state after some steps, the rate annealed over the lengths."""
        optimizer = self.task.weight_optimizer(*lengths)
        for x, y in self.batches(steps, order):
            state = _step(state, x, y, model=model, optimizer=optimizer)
        return state

    def start(self) -> TrainState:
        """Return the trained D4 network."""
        optimizer = self.task.weight_optimizer(self.first)
        x = jnp.zeros(self.inputs.shape)
        state = training.init_state(
            jax.random.key(self.task.seed), self.source, optimizer, x
        )
        return self.train(state, self.source, self.first, 0, self.first)

    def relaxed(self, state: TrainState, restart: bool = False) -> TrainState:
        """Return the state with the relaxed head."""
        sides: dict[str, Any] = {"source": self.source, "target": self.target}
        variables, _ = eq.morph(state.variables, **sides, inputs=self.inputs)
        moments = eq.morph_optimizer(
            state.opt_state, **sides, inputs=self.inputs, restart=restart
        )
        return training.pack_state(variables, moments, state.step)

    def forbidden(self, state: TrainState, params: Any) -> Any:
        """Return the part of a gradient by tied parameters that D4 does not allow."""
        kind: dict[str, Any] = {"inputs": self.inputs}
        forth, back = (self.target, self.source), (self.source, self.target)
        allowed = {**state.variables, PARAMS: params}
        for source, target in (forth, back):
            allowed, _ = eq.morph(allowed, source=source, target=target, **kind)
        return jax.tree.map(jnp.subtract, params, allowed[PARAMS])


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def _step(state, x, y, *, model, optimizer):
    return training.train_step(state, x, y, model=model, optimizer=optimizer)[0]


@functools.partial(jax.jit, static_argnames="model")
def _loss_and_gradient(params, state, x, y, *, model):
    def loss(params):
        variables = {**state.variables, PARAMS: params}
        mutable = list(state.collections)
        logits, _ = model.apply(variables, x, train=True, mutable=mutable)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return jax.value_and_grad(loss)(params)


def carried(setting: Setting, state: TrainState) -> TrainState:
    """Moments move with the parameters."""
    return setting.relaxed(state)


def restarted(setting: Setting, state: TrainState) -> TrainState:
    """Moments of the relaxed layer are zero."""
    return setting.relaxed(state, restart=True)


def all_restarted(setting: Setting, state: TrainState) -> TrainState:
    """All moments are zero, and Adam counts from zero."""
    state = setting.relaxed(state)
    adam, *others = state.opt_state
    return state._replace(opt_state=(jax.tree.map(jnp.zeros_like, adam), *others))


def searched(setting: Setting, state: TrainState) -> TrainState:
    """A first step along the forbidden gradient, its length searched; then carried."""
    state = setting.relaxed(state)
    few = list(setting.batches(4, 2))
    model = setting.target

    def mean(params) -> tuple[float, Any]:
        pairs = [_loss_and_gradient(params, state, x, y, model=model) for x, y in few]
        return jax.tree.map(lambda *values: sum(values) / len(few), *pairs)

    _, gradient = mean(state.params)
    way = setting.forbidden(state, gradient)
    scale = optax.global_norm(state.params["head"]) / optax.global_norm(way)
    points = [
        jax.tree.map(lambda p, d, r=r: p - r * scale * d, state.params, way)
        for r in STRIDES
    ]
    return state._replace(params=min(points, key=lambda params: mean(params)[0]))


WAYS: dict[str, Callable[[Setting, TrainState], TrainState]] = {
    "carried": carried,
    "restarted": restarted,
    "all restarted": all_restarted,
    "line search": searched,
}


def main() -> None:
    """Train, relax in every way, and report."""
    options = arguments(__doc__)
    first, lengths = (20, (10,)) if options.quick else (500, (125, 250))
    seeds = 1 if options.quick else 3
    rows: dict[str, float] = {}
    summary: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ.setdefault(ROOT_VARIABLE, temporary)
        draw(Path(temporary) / "pictures")
        for seed in range(seeds):
            setting = Setting(Path(temporary) / "pictures", seed, first)
            state = setting.start()
            for steps in lengths:
                for name, way in WAYS.items():
                    child = setting.train(
                        way(setting, state), setting.target, steps, 1, first, steps
                    )
                    measured = training.evaluate(
                        child.variables,
                        *setting.dataset.validation,
                        model=setting.target,
                    )
                    label = f"{name}, {steps} steps"
                    for kind, value in (
                        ("error (%)", 100 * float(measured.error)),
                        ("loss", float(measured.loss)),
                    ):
                        rows[f"seed {seed}: {label}: {kind}"] = value
                        print(f"seed {seed}: {label}: {kind} {value:.4g}", flush=True)
    for name in WAYS:
        for steps in lengths:
            for kind in ("error (%)", "loss"):
                label = f"{name}, {steps} steps: {kind}"
                values = [rows[f"seed {seed}: {label}"] for seed in range(seeds)]
                summary[label] = statistics.median(values)
    finish(options, rows, summary)


if __name__ == "__main__":
    main()
