"""A whole search by EquiNAS_S in one call, for any model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from eqjax.analysis.evidence import SymmetryTest
from eqjax.analysis.symmetry_test import MoveTargets, checked_motion, symmetry_test
from eqjax.groups.text import Echoed, Rows
from eqjax.models.architecture import Architecture
from eqjax.search.guided import Named, guided_schedule, named_group
from eqjax.training.batches import Split, batches
from eqjax.training.evaluation import evaluate
from eqjax.training.loop import train as train_on
from eqjax.training.losses import LossFn, Metrics, cross_entropy
from eqjax.training.state import init_state


@dataclasses.dataclass(frozen=True, repr=False)
class Guided(Echoed):
    """What a guided search has found; prints the test and the groups it led to.

    Attributes:
      report: the test of the probe.
      named: the group that it names, and whether the data decide it.
      architecture: of the network that was trained.
      model: the network.
      variables: of the network.
      validation: its metrics.
    """

    report: SymmetryTest
    named: Named
    architecture: Architecture
    model: nn.Module
    variables: dict[str, Any]
    validation: Metrics

    def parts(self) -> Sequence[str | Rows]:
        """Return the test, the group that it names, and the network."""
        doubt = "" if self.named.decided else ", the likeliest of several: undecided"
        return [
            *self.report.parts(),
            f"named: {self.named.group.name}{doubt}",
            f"trained: {self.architecture}, validation error "
            f"{float(self.validation.error):.4g}",
        ]


def guide(
    make_model: Callable[[Architecture], nn.Module],
    start: Architecture,
    train: tuple[Any, Any],
    validation: tuple[Any, Any],
    *,
    optimizer: Callable[[int], optax.GradientTransformation],
    steps: int = 1000,
    probe_steps: int | None = None,
    late: float = 0.5,
    level: float = 0.01,
    tested_samples: int = 4000,
    batch_size: int = 64,
    loss_fn: LossFn = cross_entropy,
    move_targets: MoveTargets | None = None,
    seed: int = 0,
) -> Guided:
    """Train a symmetric probe, test which group the data have, train what it names.

    Where targets move with the samples, as masks do, the test has to be told how, by
    `move_targets`; class numbers stay what they are.

    Args:
      make_model: architecture -> model, called as model(x, train=...).
      start: the groups of the probe, as a rule the whole symmetry everywhere.
      train: samples (n, ...) and targets (n, ...) to train on; also tested on.
      validation: samples and targets to measure by.
      optimizer: of the weights, for a training of so many steps, such as
        `lambda steps: optax.adam(optax.cosine_decay_schedule(1e-3, steps))`.
      steps: of the network that is named.
      probe_steps: of the probe; three eighths of `steps` if None.
      late: share of the layers that get the group, from the output.
      level: of the test, family-wise.
      tested_samples: at most so many, for the gradients of the test.
      batch_size: samples per step, fewer where there are no more.
      loss_fn: (outputs, targets) -> a loss per sample, or `Metrics`.
      move_targets: as of `eqjax.symmetry_test`: how maps of the pixels move.
      seed: of weights, batches and draws.

    Returns:
      The test, the group it names, and the trained network.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> make = lambda groups: eq.exact(groups, features=(2,), pool_after=(), classes=2)
    >>> images = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype("float32")
    >>> data = images, np.arange(8) % 2
    >>> start = eq.Architecture.uniform(D4, 2)
    >>> found = guide(make, start, data, data, optimizer=optax.adam, steps=2)
    >>> found.model.architecture == found.architecture
    True
    """
    move_targets = checked_motion(move_targets, *train)
    size = min(batch_size, len(train[0]))
    probe_steps = max(1, 3 * steps // 8) if probe_steps is None else probe_steps
    key = jax.random.key(seed)

    def trained(architecture: Architecture, length: int, stream: int):
        model = make_model(architecture)
        tuned = optimizer(length)
        x = np.zeros((size, *train[0].shape[1:]), train[0].dtype)
        state = init_state(jax.random.fold_in(key, 0), model, tuned, x)
        rng = np.random.default_rng([seed, 1 + stream])
        state, _ = train_on(
            state,
            batches(Split(*train), size, length, rng),
            model=model,
            optimizer=tuned,
            loss_fn=loss_fn,
            key=jax.random.fold_in(key, 1),
        )
        return model, state.variables

    probe, variables = trained(start, probe_steps, 0)
    some = slice(tested_samples)
    report = symmetry_test(
        variables,
        model=probe,
        x=train[0][some],
        y=jax.tree.map(lambda targets: targets[some], train[1]),
        key=jax.random.fold_in(key, 2),
        level=level,
        loss_fn=loss_fn,
        move_targets=move_targets,
    )
    named = named_group(report)
    architecture = guided_schedule(start, named.group, late)
    model, variables = trained(architecture, steps, 1)
    measured = evaluate(variables, *validation, model=model, loss_fn=loss_fn)
    return Guided(report, named, architecture, model, variables, measured)
