"""A whole search by EquiNAS_D in one call, for any model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from eqjax.groups.text import Echoed, Rows
from eqjax.morphism.discretization import Rebuild, discretize, mixtures
from eqjax.morphism.report import LayerTable, MorphReport
from eqjax.search.differentiable import DifferentiableSearch
from eqjax.training.batches import Split, batches
from eqjax.training.evaluation import evaluate
from eqjax.training.losses import LossFn, Metrics, cross_entropy

STREAM = 1  # behind the seed: a seed and zero draw what the seed alone draws


@dataclasses.dataclass(frozen=True, repr=False)
class Differentiated(Echoed):
    """What a differentiable search has learned; prints its weights and errors.

    Attributes:
      mixed: the trained model with mixed layers, and its variables.
      plain: the model of the heaviest groups, and its variables.
      weights: of every candidate, by layer and name.
      report: how far each layer moved when it became plain.
      validation: metrics of the mixed and of the plain model.
    """

    mixed: tuple[nn.Module, dict[str, Any]]
    plain: tuple[nn.Module, dict[str, Any]]
    weights: LayerTable
    report: MorphReport
    validation: tuple[Metrics, Metrics]

    def parts(self) -> Sequence[str | Rows]:
        """Return the weights, and the errors."""
        mixed, plain = (float(metrics.error) for metrics in self.validation)
        return [
            *self.weights.parts(),
            f"validation error {mixed:.4g} mixed, {plain:.4g} plain",
        ]


def differentiate(
    model: nn.Module,
    train: tuple[Any, Any],
    validation: tuple[Any, Any],
    *,
    optimizer: optax.GradientTransformation,
    mixture_optimizer: optax.GradientTransformation,
    steps: int = 1000,
    batch_size: int = 64,
    unrolled_step: float = 0.0,
    loss_fn: LossFn = cross_entropy,
    rebuild: Rebuild | None = None,
    seed: int = 0,
) -> Differentiated:
    """Learn how much of each group the layers want, and make the model plain.

    Args:
      model: any linen module called as model(x, train=...), with mixed layers
        (`constraint=eq.Mixture(groups)`).
      train: samples (n, ...) and targets (n, ...) to train on.
      validation: samples and targets to measure by.
      optimizer: of the weights.
      mixture_optimizer: of the logits of the mixtures.
      steps: of each.
      batch_size: samples per step, fewer where there are no more.
      unrolled_step: 0 for first order; see `DifferentiableSearch`.
      loss_fn: (outputs, targets) -> a loss per sample, or `Metrics`.
      rebuild: a group for the path of every layer -> the plain model; by default the
        model's own method `with_groups`.
      seed: of weights and batches.

    Returns:
      The mixed model, the plain one of the heaviest groups, and the learned weights.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> mixed = eq.exact(eq.Architecture.uniform(D4, 2), features=(2,), pool_after=(),
    ...     constraint=eq.Mixture((D4, D4.subgroup("C4"))), classes=2)
    >>> images = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype("float32")
    >>> data = images, np.arange(8) % 2
    >>> found = differentiate(mixed, data, data, optimizer=optax.adam(0.01),
    ...     mixture_optimizer=optax.adam(0.1), steps=2)
    >>> sorted(found.weights[("head",)])
    ['C4', 'D4']
    """
    search = DifferentiableSearch(
        model, optimizer, mixture_optimizer, unrolled_step, loss_fn
    )
    size = min(batch_size, len(train[0]))
    inputs = jax.ShapeDtypeStruct((size, *train[0].shape[1:]), train[0].dtype)
    key = jax.random.key(seed)
    state = search.init(key, np.zeros(inputs.shape, inputs.dtype))
    drawn, others = (
        batches(Split(*train), size, steps, np.random.default_rng([seed, stream]))
        for stream in (STREAM, STREAM + 1)
    )
    own = jax.random.fold_in(key, 1)
    state, _, _ = search.run(state, drawn, others, key=own)
    variables = state.weights.variables
    kind: dict[str, Any] = {"model": model, "inputs": inputs}
    plain, target, report = discretize(variables, rebuild=rebuild, **kind)
    return Differentiated(
        (model, variables),
        (target, plain),
        mixtures(variables, **kind),
        report,
        (
            evaluate(variables, *validation, model=model, loss_fn=loss_fn),
            evaluate(plain, *validation, model=target, loss_fn=loss_fn),
        ),
    )
