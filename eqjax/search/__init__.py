"""Searches over architectures: EquiNAS_E, EquiNAS_D and the guided EquiNAS_S."""

from eqjax.search.climbing import (
    MOVES as MOVES,
    Climbed as Climbed,
    Climber as Climber,
    Moved as Moved,
    deepen as deepen,
    enlarge as enlarge,
    hill_climb,
    regroup as regroup,
    widen as widen,
)
from eqjax.search.differentiable import (
    DifferentiableSearch,
    MixtureSearchState as MixtureSearchState,
    random_gradients,
)
from eqjax.search.differentiating import (
    Differentiated as Differentiated,
    differentiate,
)
from eqjax.search.evolution import Evolution, SearchState as SearchState
from eqjax.search.evolving import Evolved as Evolved, Network as Network, evolve
from eqjax.search.generators import (
    GeneratorSearch as GeneratorSearch,
    GeneratorSpace as GeneratorSpace,
    search_generators,
)
from eqjax.search.guided import (
    Named as Named,
    Tightened as Tightened,
    evident_schedule as evident_schedule,
    guided_schedule as guided_schedule,
    named_group as named_group,
    tighten as tighten,
)
from eqjax.search.guiding import Guided as Guided, guide
from eqjax.search.loop import Checkpoint as Checkpoint, SearchLoop as SearchLoop
from eqjax.search.meta import (
    MetaLearning,
    MetaState as MetaState,
    Tasks as Tasks,
)
from eqjax.search.parsimony import (
    PARSIMONY as PARSIMONY,
    one_standard_error as one_standard_error,
)
from eqjax.search.perturbation import ReadOff as ReadOff, read_off
from eqjax.search.proposals import (
    POLICIES as POLICIES,
    Proposal as Proposal,
    by_gain as by_gain,
    neighbors as neighbors,
    relax_and_constrain as relax_and_constrain,
    relax_from_output as relax_from_output,
)
from eqjax.search.scoring import selecting_samples as selecting_samples
from eqjax.search.selection import (
    SELECTIONS as SELECTIONS,
    Score as Score,
    best_of_history as best_of_history,
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
    "MetaLearning",
    "differentiate",
    "evolve",
    "guide",
    "hill_climb",
    "random_gradients",
    "read_off",
    "search_generators",
]
