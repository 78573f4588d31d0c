"""Symmetries meta-learned from many tasks (MSR; Zhou, Knowles and Finn 2021).

A layer's weights are U v: v, the filter, is what one task learns, and U, the symmetry
matrix, is what all tasks share. The filter takes a gradient step on the few samples of
a task with U held; U, the filter's start and the size of the step descend on the loss
of other samples of the task after it. Here U is `LearnedSharing(matrix="free",
apart=True)`, or whatever else is in the collection `mixture`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqjax.constraints.collections import MIXTURE, PARAMS
from eqjax.groups.checks import check_number, check_whole
from eqjax.groups.text import WithSettings
from eqjax.training.checks import check_model, check_optimizer
from eqjax.training.loop import mean_metrics, run_steps, take_step
from eqjax.training.losses import LossFn, Metrics, cross_entropy, training_loss


class Tasks(NamedTuple):
    """A batch of tasks; every array has a leading axis of tasks.

    Attributes:
      support: samples and targets that a task learns from, (tasks, samples, ...).
      query: other samples and targets that it is judged by.
    """

    support: tuple[Any, Any]
    query: tuple[Any, Any]


class MetaState(NamedTuple):
    """Everything that a step of meta-learning reads and writes.

    Attributes:
      shared: what all tasks share: the start of the `params`, the `mixture`, and the
        `rates` of the step, one for each array of the params.
      collections: other variables of the model; running statistics are means over
        the tasks.
      opt_state: of the optimizer.
    """

    shared: dict[str, Any]
    collections: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """Return what `model.apply` takes, before a task is learned."""
        own = {kind: self.shared[kind] for kind in (PARAMS, MIXTURE)}
        return {**self.collections, **own}


@dataclasses.dataclass(frozen=True, repr=False)
class MetaLearning(WithSettings):
    """Learn from many tasks what they share, as pure functions of a state.

    Attributes:
      model: a linen module with a `train` argument and a collection `mixture`.
      optimizer: of what is shared; Adam at 0.001 in the paper.
      rate: size of a task's own step, at the start.
      own_steps: steps of a task, 1 in the paper.
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`.

    >>> import eqjax as eq
    >>> C1 = eq.dihedral(4).subgroup("C1")
    >>> layer = eq.LiftingConv(1, 3, group=C1, constraint=eq.LearnedSharing("free"))
    >>> MetaLearning(layer, optax.adam(1e-3)).rate
    0.1
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    rate: float = 0.1
    own_steps: int = 1
    loss_fn: LossFn = cross_entropy

    def __post_init__(self):
        """Reject settings that learn nothing."""
        check_model("model", self.model)
        check_optimizer("optimizer", self.optimizer)
        check_number("rate", self.rate)
        check_whole("own_steps", self.own_steps, None)
        if not self.rate > 0 or self.own_steps < 1:
            raise ValueError(
                f"rate must be positive and own_steps at least 1, got {self.rate} and "
                f"{self.own_steps}"
            )

    def init(self, key: chex.PRNGKey, x: np.ndarray | jax.Array) -> MetaState:
        """Return the state before the first step, for inputs like x.

        Raises:
          ValueError: the model has no collection `mixture`.
        """
        variables = dict(self.model.init(key, jnp.asarray(x)))
        if MIXTURE not in variables:
            raise ValueError(
                f"{type(self.model).__name__} has nothing that tasks could share; give "
                'it constraint=eq.LearnedSharing("free", apart=True)'
            )
        params, mixture = variables.pop(PARAMS), variables.pop(MIXTURE)
        rates = jax.tree.map(lambda leaf: jnp.asarray(self.rate, leaf.dtype), params)
        shared = {PARAMS: params, MIXTURE: mixture, "rates": rates}
        return MetaState(shared, variables, self.optimizer.init(shared))

    def learn(
        self, shared: dict[str, Any], collections: Any, support: tuple[Any, Any]
    ) -> dict[str, Any]:
        """Return the variables after a task's own steps."""

        def variables(params):
            return {**collections, MIXTURE: shared[MIXTURE], PARAMS: params}

        def loss(params):
            return self._loss(variables(params), support)[0]

        params = shared[PARAMS]
        for _ in range(self.own_steps):
            slope = jax.grad(loss)(params)
            params = jax.tree.map(
                lambda w, r, g: w - r * g, params, shared["rates"], slope
            )
        return variables(params)

    def step(self, state: MetaState, tasks: Tasks) -> tuple[MetaState, Metrics]:
        """Take a step on the loss of all tasks after their own steps.

        Returns:
          The state after it, and the mean metrics of the tasks' queries before it.
        """

        def one(shared, support, query):
            learned = self.learn(shared, state.collections, support)
            return self._loss(learned, query)

        def loss(shared):
            each = jax.vmap(one, (None, 0, 0))(shared, tasks.support, tasks.query)
            return jax.tree.map(lambda values: jnp.mean(values, 0), each)

        shared, opt_state, (written, metrics) = take_step(
            loss, state.shared, state.opt_state, self.optimizer
        )
        collections = {kind: written[kind] for kind in state.collections}
        return MetaState(shared, collections, opt_state), metrics

    def run(
        self, state: MetaState, batches: Iterable[Tasks]
    ) -> tuple[MetaState, Metrics]:
        """Take a step for every batch of tasks.

        Returns:
          The last state, and the metrics averaged over the steps.

        Raises:
          ValueError: there is no batch.
        """
        state, history = run_steps(
            lambda state, tasks: _step(state, tasks, search=self), state, batches
        )
        return state, mean_metrics(history)

    def _loss(self, variables: Any, batch: tuple[Any, Any]):
        return training_loss(
            variables, *batch, model=self.model, rngs={}, loss_fn=self.loss_fn
        )


@partial(jax.jit, static_argnames="search")
def _step(state, tasks, *, search: MetaLearning):
    return search.step(state, tasks)
