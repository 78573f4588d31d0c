"""Every method of a comparison by its name, for an ambient group.

A method is a function of the settings that all methods share: epochs, and those of
`Task`. Constraints and searches are here by what `eqjax` knows of them.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import eqjax as eq
from eqjax.constraints import CONSTRAINTS
from eqjax.groups import standard_group
from eqjax.search import SEARCHES
from eqjax_experiments.tasks.baseline import BaselineTask, ConstraintSettings
from eqjax_experiments.tasks.climb import ClimbTask
from eqjax_experiments.tasks.differentiate import SHARING, DifferentiationTask
from eqjax_experiments.tasks.evolve import EvolutionTask
from eqjax_experiments.tasks.generate import GeneratorTask
from eqjax_experiments.tasks.guide import GuidedTask
from eqjax_experiments.tasks.task import MethodTask

GENERATIONS = 4


class Method(NamedTuple):
    """How a network gets its symmetry.

    Attributes:
      configure: settings that all methods share -> task.
      what: it does, in a line.
      source: who proposed it.
    """

    configure: Callable[..., MethodTask]
    what: str
    source: str

    def __call__(self, **task: Any) -> MethodTask:
        """Return the task of the method."""
        return self.configure(**task)


ELLA = "van der Ouderaa et al. 2023 (ELLA), conditional"
PAPER = "Maile et al. 2023"
CONTROL = "control"
MIXTURES: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("random mixture", {"mixture": "random"}, "mixtures drawn at random", CONTROL),
    (
        "EquiNAS_D by perturbation",
        {"read_off": "perturbation"},
        "the group whose removal costs most, layer by layer",
        "Wang et al. 2021 (DARTS-PT)",
    ),
    (
        "EquiNAS_D by fine-tuning",
        {"read_off": "fine-tuning"},
        "the group that is best after some steps of its own",
        "Wang et al. 2021 (DARTS-PT)",
    ),
    (
        "uniform mixture by perturbation",
        {"mixture": "uniform", "read_off": "perturbation"},
        "the same of mixtures that are not learned",
        "Wang et al. 2021 (DARTS-PT)",
    ),
    (
        "learned sharing, bilevel",
        {"relaxation": "sharing", "mixture_images": "held-out", "implicit_steps": 3},
        "entries shared as held-out images ask for, by implicit derivatives",
        "Yeh et al. 2022",
    ),
    (
        "symmetry matrix",
        {
            "relaxation": "sharing",
            "sharing": dataclasses.replace(
                SHARING, matrix="free", trace=0.0, entropy=0.0
            ),
            "mixture_images": "held-out",
            "unrolled_step": 0.1,
        },
        "a free matrix learned through a step of the weights, for one task",
        "Zhou et al. 2021 (MSR)",
    ),
)
GAMMAS = {
    "annealed": ("gammas up and back to 0", "Pertigkiozoglou et al. 2024"),
    "dual": ("gammas closed by dual variables", "ACE, 2025"),
    "resilient": ("dual variables that let gammas stay open at a cost", "ACE, 2025"),
}


def _baseline(method: str, *groups: str, **fixed: Any) -> Callable[..., BaselineTask]:
    return lambda **task: BaselineTask(
        **{**task, "method": method, "groups": groups or None, **fixed}
    )


def _relaxed(group: str, larger: str) -> Callable[..., BaselineTask]:
    """Half of the passes with the larger group, half with the other."""

    def configure(epochs: float, **task: Any) -> BaselineTask:
        fixed = {
            "groups": (group,),
            "relaxed_from": larger,
            "relaxed_after": epochs / 2,
        }
        return BaselineTask(**{**task, "epochs": epochs, **fixed})

    return configure


def _rounds(kind: Callable[..., MethodTask], **fixed: Any) -> Callable[..., MethodTask]:
    """A first training for half of the passes, and four rounds of children."""

    def configure(epochs: float, **task: Any) -> MethodTask:
        lengths = {"first_epochs": epochs / 2, "epochs": epochs / 2 / GENERATIONS}
        return kind(**{**task, **lengths, **fixed})

    return configure


def _evolve(**fixed: Any) -> Callable[..., MethodTask]:
    return _rounds(EvolutionTask, generations=GENERATIONS, **fixed)


def _climb(moves: str) -> Callable[..., MethodTask]:
    return _rounds(ClimbTask, climbs=GENERATIONS, moves=moves)


def _constraint(
    word: str, gammas: str = "trained", **settings: Any
) -> Callable[..., BaselineTask]:
    """A registered constraint with the settings that it is compared with, and more."""
    kind = CONSTRAINTS[word]
    chosen = kind(**{**kind.compared_with, **settings})
    constraints = ConstraintSettings(**{word: chosen})
    return _baseline(word, constraints=constraints, gammas=gammas)


def title(kind: type[eq.Constraint]) -> str:
    """Return what a constraint is called in tables: its class in words."""
    return " ".join(re.findall("[A-Z][a-z]*", kind.__name__)).lower()


@functools.cache
def methods(ambient: str = "D4") -> dict[str, Method]:
    """Return all methods over an ambient group, by name.

    Args:
      ambient: name of the ambient group G. Networks of fixed symmetry have G, its
        largest proper subgroup, and the trivial group.

    >>> list(methods("C4"))[:3]
    ['C4', 'C2', 'C1']
    """
    group = standard_group(ambient)
    full = group.name
    smaller = [H.name for H in dict.fromkeys((*group.covers[:1], group.smallest))]
    smaller = [name for name in smaller if name != full]
    found: dict[str, Method] = {}

    def add(name: str, configure: Callable[..., MethodTask], what: str, source: str):
        found[name] = Method(configure, what, source)

    for name in (full, *smaller):
        what = f"{name} in all layers, from scratch"
        add(name, _baseline("static", name), what, "Cohen and Welling 2016")
    for name in smaller:
        fixed = _baseline("static", name, relaxed_from=full)
        what = f"{name}, begun at weights of {full}"
        add(f"{name} from {full}", fixed, what, PAPER)
    for name in smaller:
        what = f"{full} for half of the steps, relaxed to {name} for the rest"
        add(f"{name} from trained {full}", _relaxed(name, full), what, PAPER)
    families = tuple(dict.fromkeys(H.family for H in group.subgroups))
    what = "a random group for every layer"
    add("random static", _baseline("random", *families), what, CONTROL)
    for name in (full, *smaller[:-1]):
        what = f"a plain network on images moved by {name}"
        add(f"augmented by {name}", _baseline("augmented", name), what, CONTROL)
    for word, kind in CONSTRAINTS.items():
        what = str(kind.__doc__).partition(".\n")[0].partition(" (")[0]
        what = what[0].lower() + what[1:]
        add(title(kind), _constraint(word), what, kind.source)
    what = "entries shared by a doubly stochastic matrix, trained with the weights"
    doubly = _constraint("sharing", matrix="doubly stochastic")
    add("doubly stochastic sharing", doubly, what, "WSCNN, 2024")
    for moved, (what, source) in GAMMAS.items():
        start = 0.0 if moved == "annealed" else 1.0
        configure = _constraint("gamma", gammas=moved, start=start)
        add(f"gamma projection, {moved}", configure, what, source)
    what = "a mixture of groups per layer, learned, discretized and retrained"
    add("EquiNAS_D", DifferentiationTask, what, PAPER)
    for name, fixed_settings, what, source in MIXTURES:
        add(name, partial(DifferentiationTask, **fixed_settings), what, source)
    for search in SEARCHES:
        what = "evolution of the groups of all layers, the best retrained"
        add(search, _evolve(search=search, retrain=True), what, PAPER)
    what = "an exact test of one network names the group of the late layers"
    add("EquiNAS_S", GuidedTask, what, "eqjax")
    what = "the same, the tested network relaxed"
    add("EquiNAS_S, continued", partial(GuidedTask, use="continued"), what, "eqjax")
    what = "the same network, each layer relaxed by its evidence"
    add("layer-wise evidence", partial(GuidedTask, criterion="evidence"), what, ELLA)
    what = "generators of groups put in and out by deep Q-learning"
    add("autoequivariant search", GeneratorTask, what, "Basu et al. 2021")
    what = "generators of groups put in and out at random"
    add("random generators", partial(GeneratorTask, agent="random"), what, CONTROL)
    what = "hill climbing by relaxing, widening and deepening"
    add("NASH", _climb("all"), what, "Elsken et al. 2017")
    what = "the same without any moves"
    add("NASH, restarts alone", _climb("none"), what, CONTROL)
    what = "an evolution whose survivors are drawn at random"
    add("random selection", _evolve(selection="random"), what, CONTROL)
    return found
