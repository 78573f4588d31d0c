"""The loop of EquiNAS_E: train what the search proposes, one child after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import eqjax as eq
from eqjax import training
from eqjax.evolution import Evolution, Proposal, Score, State
from eqjax.training import TrainState
from experiments.data.digits import Dataset, Split
from experiments.runs import Checkpoint


@dataclasses.dataclass(frozen=True)
class Search:
    """What stays fixed during a search.

    Attributes:
      evolution: proposes and selects.
      make_model: architecture -> model.
      optimizer: of every child's training.
      data: training and validation split are used.
      batch_size: samples per step.
      first_steps: training steps of generation 0.
      steps: training steps of every later generation.
      seed: of weights, batches and selection.
    """

    evolution: Evolution
    make_model: Callable[[eq.Architecture], nn.Module]
    optimizer: optax.GradientTransformation
    data: Dataset
    batch_size: int
    first_steps: int
    steps: int
    seed: int

    @property
    def example(self) -> jax.Array:
        """An input, for shapes."""
        return jnp.asarray(self.data.train.images[:1])

    def start(self, architecture: eq.Architecture) -> Checkpoint:
        """Return the search before generation 0."""
        key = jax.random.fold_in(jax.random.key(self.seed), 0)
        model = self.make_model(architecture)
        member = training.init_state(key, model, self.optimizer, self.example)
        return Checkpoint(self.evolution.init(architecture), (member,))

    def template(self, architecture: eq.Architecture) -> TrainState:
        """Return the abstract state of a member, for reading checkpoints."""

        def init(key, x):
            variables = self.make_model(architecture).init(key, x)
            opt_state = self.optimizer.init(variables["params"])
            return training.pack_state(variables, opt_state)

        return jax.eval_shape(init, jax.random.key(0), self.example)

    def generation(
        self, before: Checkpoint, on_child: Callable[[int, int], None]
    ) -> tuple[Checkpoint, dict]:
        """Train one generation of children and select the next population.

        Args:
          before: the search so far.
          on_child: called with (children done, children in all).

        Returns:
          The search after the generation, and its record for the metrics.
        """
        state = before.state
        key = jax.random.fold_in(jax.random.key(self.seed), state.generation + 1)
        ask_key, tell_key = jax.random.split(key)
        proposals = self.evolution.ask(state, ask_key)
        trained, rows = [], []
        for done, proposal in enumerate(proposals):
            on_child(done, len(proposals))
            member = before.members[proposal.parent]
            child, row = self._train_child(state, proposal, member)
            trained.append(child)
            rows.append(row)
        on_child(len(proposals), len(proposals))
        scores = [Score(r["validation_error"], r["parameters"]) for r in rows]
        after, kept = self.evolution.tell(state, proposals, scores, tell_key)
        members = tuple(trained[i] for i in kept) or before.members
        record = {
            "generation": state.generation,
            "diverged": after.diverged - state.diverged,
            "children": [
                {**_finite(row), "kept": kept.index(i) if i in kept else None}
                for i, row in enumerate(rows)
            ],
        }
        return Checkpoint(after, members), record

    def _train_child(
        self, state: State, proposal: Proposal, member: TrainState
    ) -> tuple[TrainState, dict]:
        model = self.make_model(proposal.architecture)
        parent = state.population[proposal.parent]
        if proposal.architecture != parent:
            member = self._inherit(member, self.make_model(parent), model)
        steps = self.steps if state.scores else self.first_steps
        order = np.random.default_rng([self.seed, state.generation])
        member, fitted = training.train(
            member,
            batches(self.data.train, self.batch_size, steps, order),
            model=model,
            optimizer=self.optimizer,
        )
        measured = self.evaluate(member, model, self.data.validation)
        healthy = bool(jnp.isfinite(fitted.loss) & jnp.isfinite(measured.loss))
        row = {
            "groups": list(proposal.architecture.names),
            "parent": proposal.parent,
            "parameters": training.count_parameters(member.params),
            "train_loss": float(fitted.loss),
            "train_error": float(fitted.error),
            "validation_loss": float(measured.loss),
            "validation_error": float(measured.error) if healthy else float("nan"),
        }
        return member, row

    def _inherit(
        self, member: TrainState, source: nn.Module, target: nn.Module
    ) -> TrainState:
        x = self.example
        variables, _ = eq.morph(
            member.variables, source=source, target=target, inputs=x
        )
        opt_state = eq.morph_optimizer(
            member.opt_state, source=source, target=target, inputs=x
        )
        return training.pack_state(variables, opt_state, member.step)

    def evaluate(
        self, member: TrainState, model: nn.Module, split: Split
    ) -> training.Metrics:
        """Return the metrics of a member on a split."""
        return training.evaluate(member.variables, *split, model=model)


def batches(
    split: Split, size: int, steps: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield so many shuffled batches, a new shuffle whenever the data runs out."""
    per_epoch = len(split.labels) // size
    if per_epoch == 0:
        raise ValueError(
            f"batch_size must be at most the {len(split.labels)} samples, got {size}"
        )
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.permutation(len(split.labels))
        begin = (step % per_epoch) * size
        chosen = order[begin : begin + size]
        yield split.images[chosen], split.labels[chosen]


def _finite(row: dict) -> dict:
    """Replace numbers that JSON cannot hold."""
    return {
        k: None if isinstance(v, float) and not np.isfinite(v) else v
        for k, v in row.items()
    }
