"""EquiNAS_D: learn the mixture of every layer by gradient descent, beside the weights.

Steps alternate: the weights descend on one batch, then the logits of the mixtures on
another, each by an optimizer of its own (Maile, Wilson and Forre 2023, section 4.2).
Where the second batch comes from is the caller's choice: from the training split, as in
the authors' code, or from held-out data, as in DARTS (Liu, Simonyan and Yang 2019).
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
from eqjax.training.checks import check_batches, check_model, check_optimizer
from eqjax.training.hypergradient import hypergradient
from eqjax.training.loop import (
    class_counter,
    mean_metrics,
    run_steps,
    take_step,
    train_step,
)
from eqjax.training.losses import LossFn, Metrics, cross_entropy, training_loss
from eqjax.training.state import TrainState, init_state

Batch = tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]


class MixtureSearchState(NamedTuple):
    """Everything that a step of the search reads and writes.

    Attributes:
      weights: the network; its logits are the collection `mixture`.
      mixture_opt_state: state of the mixture's optimizer.
    """

    weights: TrainState
    mixture_opt_state: chex.ArrayTree

    @property
    def mixture(self) -> Any:
        """The logits of every mixed layer, nested as the layers are."""
        return self.weights.collections[MIXTURE]

    def __repr__(self) -> str:
        return f"MixtureSearchState({self.weights!r})"


@dataclasses.dataclass(frozen=True, repr=False)
class DifferentiableSearch(WithSettings):
    """EquiNAS_D as pure functions of its state; `jax.vmap` them over seeds.

    Attributes:
      model: a linen module with a `train` argument and mixed layers.
      optimizer: of the weights. Programs are kept for searches of the same optimizers
        and loss, as objects: one made anew, even of equal settings, is compiled anew.
      mixture_optimizer: of the logits; `random_gradients` makes a control of any.
      unrolled_step: 0 for first order. Else the logits descend on the loss after one
        more gradient step of this size on the batch of the weights, and the gradient
        goes through that step: DARTS of second order, by exact second derivatives.
      implicit_steps: 0 for none. Else the weights count as trained to their end for
        these logits, and the gradient goes through the end of that training, by so many
        steps of conjugate gradients (`training.hypergradient`).
      damping: of these steps.
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`; see `training.losses`.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=(),
    ...     constraint=eq.Mixture((D4, D4.subgroup("C1"))))
    >>> x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    >>> search = DifferentiableSearch(model, optax.sgd(0.1), optax.adam(0.01))
    >>> state = jax.eval_shape(search.init, jax.random.key(0), jnp.ones(x.shape))
    >>> sorted(state.mixture)
    ['conv1', 'head']
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    mixture_optimizer: optax.GradientTransformation
    unrolled_step: float = 0.0
    loss_fn: LossFn = cross_entropy
    implicit_steps: int = 0
    damping: float = 0.1

    def __post_init__(self):
        """Reject a step backwards, and two ways at once."""
        for name in ("unrolled_step", "implicit_steps", "damping"):
            value = getattr(self, name)
            check_number(name, value)
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        check_model("model", self.model)
        check_optimizer("optimizer", self.optimizer)
        check_optimizer("mixture_optimizer", self.mixture_optimizer)
        if self.unrolled_step and self.implicit_steps:
            raise ValueError("choose one of unrolled_step and implicit_steps")

    def init(self, key: chex.PRNGKey, x: np.ndarray | jax.Array) -> MixtureSearchState:
        """Return the state of an untrained network for inputs like x.

        Raises:
          ValueError: the model has no mixed layer.
        """
        weights = init_state(key, self.model, self.optimizer, x)
        if MIXTURE not in weights.collections:
            raise ValueError(
                f"{type(self.model).__name__} has no mixed layer to search; give it "
                "constraint=eq.Mixture(groups) or eq.LearnedSharing(apart=True)"
            )
        mixture = weights.collections[MIXTURE]
        return MixtureSearchState(weights, self.mixture_optimizer.init(mixture))

    def step(
        self,
        state: MixtureSearchState,
        batch: Batch,
        mixture_batch: Batch,
        key: chex.PRNGKey | None = None,
    ) -> tuple[MixtureSearchState, Metrics]:
        """Take a step of the weights, then one of the mixture.

        Args:
          state: before both.
          batch: (x, y) for the weights.
          mixture_batch: (x, y) for the logits.
          key: for models with dropout.

        Returns:
          The state after both, and the metrics of the weights' batch before.
        """
        kind = {
            "model": self.model,
            "optimizer": self.optimizer,
            "loss_fn": self.loss_fn,
        }
        x, y = map(jnp.asarray, batch)
        weights, metrics = train_step(state.weights, x, y, key=key, **kind)
        rngs = (
            {} if key is None else {"dropout": jax.random.fold_in(key, ~weights.step)}
        )

        def loss(params, mixture, x, y):
            variables = {PARAMS: params, **weights.collections, MIXTURE: mixture}
            return training_loss(
                variables, x, y, model=self.model, rngs=rngs, loss_fn=self.loss_fn
            )[0]

        def mixture_loss(mixture):
            params = weights.params
            if self.implicit_steps:
                return self._implicit(loss, params, mixture, (x, y), mixture_batch)
            if self.unrolled_step:
                slope = jax.grad(loss)(params, mixture, x, y)
                params = jax.tree.map(
                    lambda w, g: w - self.unrolled_step * g, params, slope
                )
            return loss(params, mixture, *map(jnp.asarray, mixture_batch)), None

        moved, mixture_opt_state, _ = take_step(
            mixture_loss, state.mixture, state.mixture_opt_state, self.mixture_optimizer
        )
        weights = weights._replace(collections={**weights.collections, MIXTURE: moved})
        return MixtureSearchState(weights, mixture_opt_state), metrics

    def _implicit(self, loss, params, mixture, batch, mixture_batch):
        """Return a loss with the hypergradient for its gradient."""
        x, y = map(jnp.asarray, mixture_batch)
        now = jax.lax.stop_gradient(mixture)
        slope = hypergradient(
            lambda w, a: loss(w, a, *batch),
            lambda w, a: loss(w, a, x, y),
            params,
            now,
            steps=self.implicit_steps,
            damping=self.damping,
        )
        moved = optax.tree.vdot(slope, optax.tree.sub(mixture, now))
        return loss(params, now, x, y) + moved, None

    def run(
        self,
        state: MixtureSearchState,
        batches: Iterable[Batch],
        mixture_batches: Iterable[Batch],
        key: chex.PRNGKey | None = None,
    ) -> tuple[MixtureSearchState, Metrics, Any]:
        """Take a step for every pair of batches; both must be as many.

        Returns:
          The last state, the metrics averaged over the steps, and the trajectory: the
          logits after every step, each array with a leading axis of steps.

        Raises:
          ValueError: there is no batch, there are more of one kind, one is empty or has
            not as many x as y, or a label is not one of the model's classes.
        """
        logits: list[Any] = []
        count = class_counter(state.weights, key, self.model, self.loss_fn)
        checked = (check_batches(kind, count) for kind in (batches, mixture_batches))
        state, history = run_steps(
            lambda state, pair: _step(state, *pair, key, search=self),
            state,
            zip(*checked, strict=True),
            lambda _, state: logits.append(state.mixture),
        )
        trajectory = jax.tree.map(lambda *values: np.stack(values), *logits)
        return state, mean_metrics(history), trajectory


@partial(jax.jit, static_argnames="search")
def _step(state, batch, mixture_batch, key, *, search: DifferentiableSearch):
    return search.step(state, batch, mixture_batch, key)


class RandomGradientsState(NamedTuple):
    """State of `random_gradients`: the key of the next draw."""

    key: jax.Array


def random_gradients(seed: int) -> optax.GradientTransformation:
    """Put standard normal numbers in the place of gradients: the control of a search.

    The numbers depend on the seed alone; states under `vmap` share them.

    >>> control = optax.chain(random_gradients(0), optax.adam(0.01))
    """
    check_whole("seed", seed, 0)

    def init(params):
        del params
        return RandomGradientsState(jax.random.key_data(jax.random.key(seed)))

    def update(updates, state, params=None):
        del params
        key, now = jax.random.split(jax.random.wrap_key_data(state.key))
        leaves, structure = jax.tree.flatten(updates)
        keys = jax.random.split(now, len(leaves))
        drawn = [
            jax.random.normal(k, leaf.shape, leaf.dtype)
            for k, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, drawn), RandomGradientsState(
            jax.random.key_data(key)
        )

    return optax.GradientTransformation(init, update)
