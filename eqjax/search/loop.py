"""The loop of a search: train what it proposes, in stacks of members, and tell it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from eqjax.constraints.collections import PARAMS
from eqjax.groups.checks import check_whole
from eqjax.groups.text import Echoed, Rows, WithSettings
from eqjax.models.architecture import Architecture
from eqjax.population.stack import Population
from eqjax.search.evolution import Evolution, SearchState
from eqjax.search.proposals import Proposal
from eqjax.search.scoring import halves, mean_over, selecting_samples
from eqjax.search.selection import Score
from eqjax.training.batches import Split, batches
from eqjax.training.losses import Metrics
from eqjax.training.state import TrainState, count_parameters, pack_state


@dataclasses.dataclass(frozen=True, repr=False)
class Checkpoint(Echoed):
    """The search after a generation, and the trained state of every member."""

    state: SearchState
    members: tuple[TrainState, ...]

    def parts(self) -> Sequence[str | Rows]:
        """Return those of the state."""
        return self.state.parts()


@dataclasses.dataclass(frozen=True, repr=False)
class SearchLoop(WithSettings):
    """What stays fixed during a search.

    Attributes:
      search: proposes and selects.
      make_model: architecture -> model.
      population: the programs of the members.
      train: samples to train on.
      validation: samples to select by.
      first_steps: training steps of generation 0.
      steps: training steps of every later generation.
      seed: of weights, batches and selection.
      rescore: a fresh half of the validation samples, drawn for every generation,
        selects among the children; the scores of those that survive are errors on the
        other half. Selection takes the luckiest for the best, and the error that it was
        selected by is too small (the winner's curse). So the scores of the members, and
        the best of them, are of samples that did not select them this time; and as
        members are trained on and measured again in the next generation, on halves
        drawn anew, luck on one half does not carry them. Each half is noisier than the
        whole; over many generations all samples take part in selecting, so that an
        unbiased error still needs samples of its own.
    """

    search: Evolution
    make_model: Callable[[Architecture], nn.Module]
    population: Population
    train: Split
    validation: Split
    first_steps: int
    steps: int
    seed: int
    rescore: bool = False

    def __post_init__(self):
        """Reject samples and lengths that nothing can be trained or selected with."""
        for name in ("first_steps", "steps"):
            check_whole(name, getattr(self, name))
        for split in (self.train, self.validation):
            self.population.check_samples(*split)
        if self.selecting_samples < 2 and (self.rescore or self.search.parsimony):
            raise ValueError(
                "parsimony compares at least 2 validation samples, and rescore halves "
                f"at least 3, got {len(self.validation.labels)}"
            )

    @property
    def selecting_samples(self) -> int:
        """How many validation samples the errors in the records are means over."""
        samples = len(self.validation.labels)
        return selecting_samples(samples) if self.rescore else samples

    def start(self, architecture: Architecture) -> Checkpoint:
        """Return the search before generation 0."""
        keys = jax.random.fold_in(jax.random.key(self.seed), 0)[None]
        models = [self.make_model(architecture)]
        members = self.population.unload(self.population.init(keys, models), models)
        return Checkpoint(self.search.init(architecture), tuple(members))

    def template(self, architecture: Architecture) -> TrainState:
        """Return the abstract state of a member, for reading checkpoints."""
        model, optimizer = self.make_model(architecture), self.population.optimizer

        def init(x):
            variables = model.init(jax.random.key(0), x)
            return pack_state(variables, optimizer.init(variables[PARAMS]))

        return jax.eval_shape(init, self.population.inputs)

    def generation(
        self,
        before: Checkpoint,
        on_child: Callable[[int, int], None],
        on_call: Callable[[int, Metrics], None] | None = None,
    ) -> tuple[Checkpoint, dict]:
        """Train one generation of children and select the next population.

        Args:
          before: the search so far.
          on_child: called with (children done, children in all).
          on_call: as in `Population.train`.

        Returns:
          The search after the generation, and its record for the metrics: its number,
          how many children diverged, and a row for every child. Where the search has a
          rule of `parsimony`, also "losses": the array (children, samples), float32, of
          those that select; keep it apart from the metrics.
        """
        state = before.state
        key = jax.random.fold_in(jax.random.key(self.seed), state.generation + 1)
        ask_key, tell_key = jax.random.split(key)
        proposals = self.search.ask(state, ask_key)
        trained: list[TrainState] = []
        rows: list[dict] = []
        for part in self.population.split(len(proposals)):
            on_child(part.start, len(proposals))
            members, new = self._train_children(before, proposals[part], on_call)
            trained += members
            rows += new
        on_child(len(proposals), len(proposals))
        scores = [Score(r["validation_error"], r["parameters"]) for r in rows]
        losses = [row.pop("losses") for row in rows if "losses" in row]
        paired = {"losses": np.stack(losses)} if losses else {}
        after, kept = self.search.tell(state, proposals, scores, tell_key, **paired)
        survivors = tuple(trained[i] for i in kept) or before.members
        if self.rescore and kept:
            errors = [rows[i]["rescored_error"] for i in kept]
            fresh = zip(after.scores, errors, strict=True)
            scores = [score._replace(error=error) for score, error in fresh]
            after = dataclasses.replace(after, scores=tuple(scores))
        record = {
            "generation": state.generation,
            "diverged": after.diverged - state.diverged,
            "children": [
                {**_finite(row), "kept": kept.index(i) if i in kept else None}
                for i, row in enumerate(rows)
            ],
            **paired,
        }
        return Checkpoint(after, survivors), record

    def _train_children(
        self,
        before: Checkpoint,
        proposals: Sequence[Proposal],
        on_call: Callable[[int, Metrics], None] | None,
    ) -> tuple[list[TrainState], list[dict]]:
        """Train the proposals of one stack; return them and their rows."""
        state, population = before.state, self.population
        parents = [before.members[p.parent] for p in proposals]
        sources = [self.make_model(state.architectures[p.parent]) for p in proposals]
        targets = [self.make_model(p.architecture) for p in proposals]
        stack = population.relax(population.load(parents, sources), targets)
        stack, fitted = population.train(stack, self.batches(state), on_call=on_call)
        measured, others = self._measure(stack, state.generation)
        members = population.unload(stack, targets)
        rows = [
            row(proposal, member, fitted.of(i), measured.of(i)) | others[i]
            for i, (proposal, member) in enumerate(zip(proposals, members, strict=True))
        ]
        return members, rows

    def _measure(
        self, stack: TrainState, generation: int
    ) -> tuple[Metrics, list[dict[str, Any]]]:
        """Return the metrics that select, and what else the rows of a stack say.

        Those are the error on the other half of the samples, if there is one, and the
        losses on those that select, if they are compared sample by sample.
        """
        width = self.population.strategy.width
        if not (self.rescore or self.search.parsimony):
            return self.population.evaluate(stack, *self.validation), [{}] * width
        measured = self.population.evaluate_samples(stack, *self.validation)
        rows: list[dict[str, Any]] = [{} for _ in range(width)]
        if self.rescore:
            count = len(self.validation.labels)
            selecting, scoring = halves(count, self.seed, generation)
            errors = mean_over(measured, scoring).error.tolist()
            for other, error in zip(rows, errors, strict=True):
                other["rescored_error"] = error
                if not np.isfinite(error):
                    other["validation_error"] = float("nan")
            measured = jax.tree.map(lambda values: values[:, selecting], measured)
        if self.search.parsimony:
            for other, losses in zip(rows, measured.loss, strict=True):
                other["losses"] = np.asarray(losses)
        return mean_over(measured), rows

    def batches(self, state: SearchState) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Return the training batches of a generation, the same for every child."""
        order = np.random.default_rng([self.seed, state.generation])
        steps = self.steps if state.scores else self.first_steps
        return batches(self.train, self.population.inputs.shape[0], steps, order)

    def evaluate(
        self, point: Checkpoint, chosen: Sequence[int], split: Split
    ) -> list[Metrics]:
        """Return the metrics of the chosen members on a split."""
        models = [self.make_model(point.state.architectures[i]) for i in chosen]
        members = [point.members[i] for i in chosen]
        measured: list[Metrics] = []
        for part in self.population.split(len(chosen)):
            stack = self.population.load(members[part], models[part])
            metrics = self.population.evaluate(stack, *split)
            measured += [metrics.of(i) for i in range(len(members[part]))]
        return measured


def row(
    proposal: Proposal,
    member: TrainState,
    fitted: Metrics,
    measured: Metrics,
) -> dict:
    """Return what the metrics of a search say of a trained child.

    Args:
      proposal: its groups and its parent.
      member: its state.
      fitted: mean metrics of its training batches, before each step.
      measured: its metrics on the validation samples that select.

    Returns:
      Names of its groups, number of its parent and of its parameters, and losses (in
      nats for cross-entropy) and errors (in [0, 1]); a validation error of NaN where
      any of these is not finite.
    """
    healthy = bool(np.isfinite([*fitted, *measured]).all())
    return {
        "groups": list(proposal.architecture.names),
        "parent": proposal.parent,
        "parameters": count_parameters(member.params),
        "train_loss": float(fitted.loss),
        "train_error": float(fitted.error),
        "validation_loss": float(measured.loss),
        "validation_error": float(measured.error) if healthy else float("nan"),
    }


def _finite(row: dict) -> dict:
    """Replace numbers that JSON cannot hold."""
    return {
        k: None if isinstance(v, float) and not np.isfinite(v) else v
        for k, v in row.items()
    }
