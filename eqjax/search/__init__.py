"""Searches over architectures: EquiNAS_E and EquiNAS_D."""

from eqjax.search.differentiable import (
    DifferentiableSearch,
    MixtureSearchState as MixtureSearchState,
    random_gradients,
)
from eqjax.search.evolution import Evolution, SearchState as SearchState
from eqjax.search.evolving import Evolved as Evolved, Network as Network, evolve
from eqjax.search.loop import Checkpoint as Checkpoint, SearchLoop as SearchLoop
from eqjax.search.perturbation import ReadOff as ReadOff, read_off
from eqjax.search.proposals import (
    POLICIES as POLICIES,
    Proposal as Proposal,
    neighbors as neighbors,
    relax_from_output as relax_from_output,
)
from eqjax.search.selection import (
    SELECTIONS as SELECTIONS,
    Score as Score,
    pareto_front as pareto_front,
)
from eqjax.search.verdicts import Verdict as Verdict, verdict as verdict

# The searches that `experiments.evolve --search` and comparisons know.
SEARCHES: dict[str, type[Evolution]] = {
    "EquiNAS_E": Evolution,
}

__all__ = [
    "DifferentiableSearch",
    "Evolution",
    "evolve",
    "random_gradients",
    "read_off",
]
