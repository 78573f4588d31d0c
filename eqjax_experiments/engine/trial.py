"""Training of a network, piece by piece.

A piece is a pass over the training images, or what is left of one. After each the
state can be saved, and a run continues from there to the same result.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

import eqjax as eq
from eqjax import training
from eqjax.constraints.collections import MIXTURE, PARAMS
from eqjax.search import MixtureSearchState
from eqjax.training import Metrics, Split, TrainState, batches, run_steps
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.runs import files

TrainingState = TrainState | MixtureSearchState
SHOWN_CLASSES = 20  # at most, in what is reported by class
KEPT_POINTS = 10  # of the mixtures' trajectory per piece


@dataclasses.dataclass(frozen=True)
class Trial:
    """A network and how it is trained.

    Attributes:
      model: the network.
      optimizer: of its weights.
      augment: group whose random elements are applied to every training image.
      mixture_optimizer: of the logits of mixed layers; None if there are none.
      unrolled_step: as in `eqjax.DifferentiableSearch`.
      implicit_steps: the same.
      held_out: keep half of the training images for the mixture alone; else both the
        weights and the mixture draw from all.
    """

    model: eq.EquivariantCNN
    optimizer: optax.GradientTransformation
    augment: eq.Group | None = None
    mixture_optimizer: optax.GradientTransformation | None = None
    unrolled_step: float = 0.0
    implicit_steps: int = 0
    held_out: bool = False

    @property
    def search(self) -> eq.DifferentiableSearch | None:
        """The search over mixtures, where there is one."""
        if self.mixture_optimizer is None:
            return None
        return eq.DifferentiableSearch(
            self.model,
            self.optimizer,
            self.mixture_optimizer,
            self.unrolled_step,
            implicit_steps=self.implicit_steps,
        )

    def init(self, seed: int, inputs: jax.ShapeDtypeStruct) -> TrainingState:
        """Return the untrained state."""
        key = jax.random.fold_in(jax.random.key(seed), 0)
        x = jnp.zeros(inputs.shape, inputs.dtype)
        if self.search is not None:
            return self.search.init(key, x)
        return training.init_state(key, self.model, self.optimizer, x)

    def relax(
        self,
        state: TrainingState,
        source: eq.EquivariantCNN,
        inputs: jax.ShapeDtypeStruct,
    ) -> TrainState:
        """Return the state of a network with more symmetry as one of this network."""
        models: dict[str, Any] = {
            "source": source,
            "target": self.model,
            "inputs": inputs,
        }
        weights = weights_of(state)
        variables, _ = eq.morph(weights.variables, **models)
        opt_state = eq.morph_optimizer(weights.opt_state, **models)
        return training.pack_state(variables, opt_state, weights.step)

    def step(self, state, batch, mixture_batch, key):
        """Return the next state, and the batch's metrics."""
        x, y = batch
        if self.search is not None:
            return self.search.step(state, batch, mixture_batch)
        if self.augment is not None:
            key = jax.random.fold_in(key, state.step)
            x = eq.augment(key, x, group=self.augment)
        kind = {"model": self.model, "optimizer": self.optimizer}
        return training.train_step(state, x, y, **kind)

    def batches(self, train: Split, size: int, steps: int, order: Sequence[int]):
        """Yield the batches of a piece: pairs of one for the weights and the mixture's.

        Args:
          train: the training images.
          size: images per batch.
          steps: of the piece.
          order: seed of the shuffles.
        """
        if self.mixture_optimizer is None:
            rng = np.random.default_rng(order)
            yield from ((b, None) for b in batches(train, size, steps, rng))
            return
        count = len(train.labels)
        parts = (np.arange(count), np.arange(count))
        if self.held_out:
            parts = (np.arange(count // 2), np.arange(count // 2, count))
        streams = (
            batches(train, size, steps, np.random.default_rng([*order, i]), part)
            for i, part in enumerate(parts)
        )
        yield from zip(*streams, strict=True)


def weights_of(state: TrainingState) -> TrainState:
    """Return the network's own state."""
    return state.weights if isinstance(state, MixtureSearchState) else state


def piece_lengths(steps: int, per_pass: int) -> list[int]:
    """Return the steps of every piece."""
    whole, rest = divmod(steps, per_pass)
    return [per_pass] * whole + [rest] * (rest > 0)


def fit(
    trial: Trial,
    dataset: Dataset,
    inputs: jax.ShapeDtypeStruct,
    seed: int,
    lengths: Sequence[int],
    start: TrainingState | None = None,
    done: int = 0,
) -> Iterator[tuple[TrainingState, dict[str, Any]]]:
    """Train a network, and yield the state and a record after every piece.

    Args:
      trial: what to train.
      dataset: training and validation split are used.
      inputs: shape of a batch.
      seed: of weights and batches.
      lengths: steps of every piece.
      start: the state to continue from, whose memory is reused; untrained if None.
      done: pieces that it has behind it.
    """
    state = trial.init(seed, inputs) if start is None else start
    key = jax.random.fold_in(jax.random.key(seed), 1)
    begin = sum(lengths[:done])

    def step(state: TrainingState, pair: Any) -> tuple[TrainingState, Metrics]:
        return trial_step(state, *pair, key, trial=trial)

    for number, steps in enumerate(lengths[done:], done):
        drawn = trial.batches(dataset.train, inputs.shape[0], steps, [seed, number])
        path = Trajectory(trial, inputs, begin, steps)
        state, history = run_steps(step, state, drawn, path.follow)
        begin += steps
        record = _record(trial, dataset, state, begin, _mean(history))
        yield state, {**record, "mixtures": path.points}


@functools.partial(jax.jit, static_argnames="trial", donate_argnums=0)
def trial_step(state, batch, mixture_batch, key, *, trial: Trial):
    """Return the next state of a training, and the batch's metrics."""
    return trial.step(state, batch, mixture_batch, key)


def _record(trial, dataset, state, step, fitted) -> dict[str, Any]:
    variables = weights_of(state).variables
    measured = training.evaluate(variables, *dataset.validation, model=trial.model)
    return {
        "step": step,
        "train_loss": finite(fitted.loss),
        "train_error": finite(fitted.error),
        "validation_loss": finite(measured.loss),
        "validation_error": finite(measured.error),
    }


def _mean(history: Sequence[Metrics]) -> Metrics:
    """Return the mean over steps, numpy numbers."""
    return jax.tree.map(lambda *m: np.mean(jax.device_get(m)), *history)


@dataclasses.dataclass
class Trajectory:
    """The weights of all mixtures at some steps of a piece of training.

    Attributes:
      trial: what is trained.
      inputs: shape of a batch.
      begin: steps before the piece.
      steps: of the piece.
      points: the weights so far, with the number of their step.
    """

    trial: Trial
    inputs: jax.ShapeDtypeStruct
    begin: int
    steps: int
    points: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def follow(self, i: int, state: TrainingState) -> None:
        """Keep the weights after step i of the piece, if it is one to keep."""
        if i % max(1, self.steps // KEPT_POINTS) == 0 or i == self.steps:
            logits = state.mixture if isinstance(state, MixtureSearchState) else {}
            weights = _weights(self.trial, self.inputs, jax.device_get(logits))
            self.points.append({"step": self.begin + i, "weights": weights})


def _weights(trial, inputs, logits) -> dict[str, dict[str, float]]:
    """Return the weights of all mixtures, by layer and candidate, for the metrics."""
    if not logits:
        return {}
    found = eq.mixtures({MIXTURE: logits}, model=trial.model, inputs=inputs)
    return {
        "/".join(path): {name: round(float(z), 6) for name, z in weights.items()}
        for path, weights in found.items()
    }


def finite(value: Any) -> float | None:
    """Return a number, or None for one that JSON cannot hold."""
    return float(value) if np.isfinite(value) else None


def pack(done: int, state: TrainingState) -> bytes:
    """Return a checkpoint: how many pieces are done, and the state."""
    tree = serialization.to_state_dict(jax.device_get(state))
    return files.pack_checkpoint({"done": done, "state": tree})


def unpack(saved: Path, template: Any) -> tuple[int, TrainingState]:
    """Read a checkpoint into a state of the template's structure.

    Raises:
      ValueError: the file is damaged.
    """
    tree = files.read_checkpoint(saved)
    state = serialization.from_state_dict(template, tree["state"])
    return tree["done"], jax.tree.map(jnp.asarray, state)


def ledger(
    variables: Any, model: eq.EquivariantCNN, inputs: jax.ShapeDtypeStruct
) -> dict[str, dict[str, float]]:
    """Return the distance of every layer's kernel to every group, by name."""
    measure = jax.jit(lambda v: eq.distances(v, model=model, inputs=inputs))
    found = measure(variables)
    groups = [group.name for group in model.architecture.ambient.subgroups]
    return {
        "/".join(path): {group: round(float(own[group]), 6) for group in groups}
        for path, own in found.items()
    }


def reading(
    name: str,
    model: eq.EquivariantCNN,
    variables: Any,
    dataset: Dataset,
    steps: int,
    training_parameters: int | None = None,
) -> dict[str, Any]:
    """Return what is reported of a trained network: the one look at the test images.

    Args:
      name: of the row.
      model: the network.
      variables: of the network.
      dataset: validation and test split are used.
      steps: of its training.
      training_parameters: where it had more of them than now.
    """
    count = training.count_parameters(variables[PARAMS])
    measured = training.evaluate(variables, *dataset.validation, model=model)
    tested = training.evaluate(variables, *dataset.test, model=model)
    return {
        "reading": name,
        "groups": list(model.architecture.names),
        "validation_error": finite(measured.error),
        "test_error": finite(tested.error),
        "training_parameters": training_parameters or count,
        "test_parameters": count,
        "steps": steps,
        **by_class(model, variables, dataset),
    }


def by_class(
    model: eq.EquivariantCNN, variables: Any, dataset: Dataset
) -> dict[str, Any]:
    """Return the test errors of every class, and which classes are exchanged.

    Returns:
      `class_errors`, the share of wrong answers by the name of the class, and
      `confusion`, how many images of each class (rows) were taken for each (columns);
      nothing where there are more than `SHOWN_CLASSES`, or the network diverged.
    """
    if dataset.classes > SHOWN_CLASSES:
        return {}
    logits = training.predict(variables, dataset.test.images, model=model)
    if not np.isfinite(logits).all():
        return {}
    counts = np.zeros((dataset.classes, dataset.classes), int)
    np.add.at(counts, (dataset.test.labels, logits.argmax(-1)), 1)
    wrong = 1 - counts.diagonal() / counts.sum(1).clip(1)
    errors = [round(float(share), 6) for share in wrong]
    return {
        "class_errors": dict(zip(dataset.class_names, errors, strict=True)),
        "confusion": counts.tolist(),
    }
