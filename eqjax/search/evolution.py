"""EquiNAS_E as init / ask / tell: proposes architectures and selects, never trains.

Whoever drives the search keeps the weights. `ask` names, for every proposal, the
member of the population that it inherits from; `tell` takes the scores of the trained
proposals and says which of them are the next population.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import jax
import numpy as np

from eqjax.fields.keys import host_generator
from eqjax.groups.checks import check_callable, check_whole, several
from eqjax.groups.group import Group, difference
from eqjax.groups.html import Shaded
from eqjax.groups.text import Echoed, Rows, WithSettings
from eqjax.models.architecture import Architecture, check_architecture
from eqjax.search.parsimony import Parsimony
from eqjax.search.proposals import Order, Policy, Proposal, relax_from_output
from eqjax.search.selection import Score, Selection, select_pareto


@dataclasses.dataclass(frozen=True, repr=False)
class SearchState(Echoed):
    """The search between two generations.

    Attributes:
      generation: number of completed generations.
      architectures: of the members.
      scores: their scores; empty before the first generation.
      diverged: number of proposals dropped so far for a loss that is not finite.
    """

    generation: int
    architectures: tuple[Architecture, ...]
    scores: tuple[Score, ...]
    diverged: int

    def parts(self) -> Sequence[str | Rows]:
        """Return a table with a row per member, the least error in color."""
        rows = [("architecture", "error", "parameters")]
        least = min((score.error for score in self.scores), default=None)
        for architecture, score in itertools.zip_longest(
            self.architectures, self.scores
        ):
            error, parameters, *_ = score or ("-", "-")
            shown = Shaded(f"{error:.4}", -float(error == least))
            rows.append((str(architecture), shown, str(parameters)))
        return (
            f"generation {self.generation}, {self.diverged} diverged",
            Rows(rows),
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Evolution(WithSettings):
    """EquiNAS_E (Maile, Wilson and Forre 2023, section 4.1).

    Another search over architectures is a subclass that proposes or selects in another
    way, and a line in `eqjax.search.SEARCHES`; the loop asks for no more than `init`,
    `ask` and `tell`.

    Attributes:
      population_size: members kept after every generation, at most.
      select: the selection, one of `SELECTIONS` or your own.
      candidates: groups that a layer may take; all subgroups if None.
      children: children tried per member and generation, the copy among them; all if
        None. Where there are more, they are drawn at random.
      propose: which children a member has, one of `POLICIES` or your own.
      parsimony: which of the trained children may survive, by their losses on every
        validation sample: one of `PARSIMONY` or your own; all if None.
      order: which children to try first, such as `by_gain(gains)`, instead of random
        ones.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> search = Evolution(population_size=2)
    >>> state = search.init(eq.Architecture.uniform(D4, 3))
    >>> [str(child.architecture) for child in search.ask(state, jax.random.key(0))]
    ['D4 D4 D4']
    """

    population_size: int = 5
    select: Selection = select_pareto
    candidates: tuple[Group, ...] | None = None
    children: int | None = None
    propose: Policy = relax_from_output
    parsimony: Parsimony | None = None
    order: Order | None = None

    def __post_init__(self):
        """Reject sizes that leave nothing to search."""
        for name in ("population_size", "children"):
            value = getattr(self, name)
            if value is not None:
                check_whole(name, value)
        if self.candidates is not None:
            candidates = several("candidates", self.candidates, "Groups")
            object.__setattr__(self, "candidates", candidates)
            self._check_candidates()
        check_callable("select", self.select, "eq.search.select_pareto")
        check_callable("propose", self.propose, "eq.search.relax_from_output")

    def _check_candidates(self) -> None:
        if not self.candidates:
            raise ValueError("candidates are empty; None stands for all subgroups")
        first = self.candidates[0]
        for group in self.candidates:
            if not isinstance(group, Group):
                raise TypeError(f"candidates must be Groups, got {group!r}")
            if group.ambient != first.ambient:
                raise ValueError(
                    f"candidates need one ambient group; {group!r} lives over "
                    f"{group.ambient!r}, {first!r} over {first.ambient!r}"
                    f"{difference(group.ambient, first.ambient)}"
                )
            if self.candidates.count(group) > 1:
                raise ValueError(f"candidate {group!r} is given twice")

    def init(self, architecture: Architecture) -> SearchState:
        """Start from one architecture, whose first training is generation 0.

        Raises:
          ValueError: the candidates live over another ambient group.
        """
        check_architecture("architecture", architecture)
        ambient = architecture.ambient
        if self.candidates is not None and self.candidates[0].ambient != ambient:
            other = self.candidates[0].ambient
            raise ValueError(
                f"the architecture lives over {ambient!r}, the candidates over "
                f"{other!r}; take them from the architecture's ambient.subgroups"
                f"{difference(ambient, other)}"
            )
        return SearchState(0, (architecture,), (), 0)

    def ask(self, state: SearchState, key: jax.Array) -> tuple[Proposal, ...]:
        """Return the children to train, the copies of the members among them."""
        if not state.scores:
            return tuple(Proposal(a, i) for i, a in enumerate(state.architectures))
        proposals = []
        rng = host_generator(key)
        for parent, member in enumerate(state.architectures):
            copy, *others = self.propose(member, self.candidates)
            if self.order is not None:
                others = self._ordered(member, others)
            elif self.children is not None and len(others) >= self.children:
                drawn = rng.permutation(len(others))[: self.children - 1]
                others = [others[i] for i in sorted(drawn.tolist())]
            proposals += [Proposal(child, parent) for child in (copy, *others)]
        return tuple(proposals)

    def _ordered(
        self, member: Architecture, children: Sequence[Architecture]
    ) -> list[Architecture]:
        """Return the children to try of a member, the most promising first."""
        assert self.order is not None
        found = list(self.order(member, children))
        for child in found:
            if child not in children:
                raise ValueError(f"order returned {child!r}, no child of {member!r}")
        return found if self.children is None else found[: self.children - 1]

    def tell(
        self,
        state: SearchState,
        proposals: Sequence[Proposal],
        scores: Sequence[Score],
        key: jax.Array,
        losses: np.ndarray | None = None,
    ) -> tuple[SearchState, tuple[int, ...]]:
        """Select the next population from the trained proposals.

        Args:
          state: as passed to `ask`.
          proposals: as returned by `ask`.
          scores: one per proposal; those with an error that is not finite diverged.
          key: for selections that draw.
          losses: (proposals, samples), those of every validation sample, for
            `parsimony`.

        Returns:
          The next state, and the positions of its members among the proposals. Where
          every proposal diverged, the population stays and no position is returned.
        """
        if len(scores) != len(proposals):
            raise ValueError(
                f"expected {len(proposals)} scores, one per proposal, got {len(scores)}"
            )
        scores = [
            score._replace(age=_age(state, proposal))
            for score, proposal in zip(scores, proposals, strict=True)
        ]
        finite = [i for i, score in enumerate(scores) if math.isfinite(score.error)]
        diverged = state.diverged + len(scores) - len(finite)
        if self.parsimony is not None and finite:
            finite = self._allowed(self.parsimony, proposals, finite, losses)
        kept: tuple[int, ...] = ()
        architectures, kept_scores = state.architectures, state.scores
        if finite:
            chosen = self.select(
                [proposals[i].architecture for i in finite],
                [scores[i] for i in finite],
                self.population_size,
                key,
            )
            kept = tuple(finite[i] for i in chosen)
            architectures = tuple(proposals[i].architecture for i in kept)
            kept_scores = tuple(scores[i] for i in kept)
        state = SearchState(state.generation + 1, architectures, kept_scores, diverged)
        return state, kept

    @staticmethod
    def _allowed(
        parsimony: Parsimony,
        proposals: Sequence[Proposal],
        finite: Sequence[int],
        losses: np.ndarray | None,
    ) -> list[int]:
        """Return the positions of the finite proposals that may survive."""
        if losses is None or len(losses) != len(proposals):
            got = "none" if losses is None else len(losses)
            raise ValueError(
                f"parsimony needs the losses of {len(proposals)} proposals on every "
                f"validation sample, got {got}"
            )
        architectures = [proposals[i].architecture for i in finite]
        return [finite[i] for i in parsimony(architectures, losses[list(finite)])]


def _age(state: SearchState, proposal: Proposal) -> int:
    """Return for how many generations the architecture of a proposal has stayed."""
    if proposal.architecture != state.architectures[proposal.parent]:
        return 0
    return state.scores[proposal.parent].age + 1 if state.scores else 0
