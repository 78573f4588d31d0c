"""Every method of a comparison by its name, for an ambient group.

A method is a function of the settings that all methods share: epochs, and those of
`Task`. Constraints and searches are here by what `eqjax` knows of them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import eqjax as eq
from eqjax.constraints import CONSTRAINTS
from eqjax.groups import standard_group
from eqjax.search import SEARCHES
from experiments.tasks.baseline import BaselineTask, ConstraintSettings
from experiments.tasks.differentiate import DifferentiationTask
from experiments.tasks.evolve import EvolutionTask
from experiments.tasks.guide import GuidedTask
from experiments.tasks.task import MethodTask

GENERATIONS = 4


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


def _evolve(**fixed: Any) -> Callable[..., EvolutionTask]:
    """A first training for half of the passes, and four generations."""

    def configure(epochs: float, **task: Any) -> EvolutionTask:
        lengths = {"first_epochs": epochs / 2, "epochs": epochs / 2 / GENERATIONS}
        fixed_lengths = {**lengths, "generations": GENERATIONS}
        return EvolutionTask(**{**task, **fixed_lengths, **fixed})

    return configure


def _constraint(word: str) -> Callable[..., BaselineTask]:
    """A registered constraint with the settings that it is compared with."""
    kind = CONSTRAINTS[word]
    chosen = ConstraintSettings(**{word: kind(**kind.compared_with)})
    return _baseline(word, constraints=chosen)


def title(kind: type[eq.Constraint]) -> str:
    """Return what a constraint is called in tables: its class in words."""
    return " ".join(re.findall("[A-Z][a-z]*", kind.__name__)).lower()


@functools.cache
def methods(ambient: str = "D4") -> dict[str, Callable[..., MethodTask]]:
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
    found: dict[str, Callable[..., MethodTask]] = {
        name: _baseline("static", name) for name in (full, *smaller)
    }
    for name in smaller:
        fixed = _baseline("static", name, relaxed_from=full)
        found[f"{name} from {full}"] = fixed
    for name in smaller:
        found[f"{name} from trained {full}"] = _relaxed(name, full)
    families = tuple(dict.fromkeys(H.family for H in group.subgroups))
    found["random static"] = _baseline("random", *families)
    for name in (full, *smaller[:-1]):
        found[f"augmented by {name}"] = _baseline("augmented", name)
    for word, kind in CONSTRAINTS.items():
        found[title(kind)] = _constraint(word)
    found["EquiNAS_D"] = DifferentiationTask
    found["random mixture"] = lambda **task: DifferentiationTask(
        mixture="random", **task
    )
    found["EquiNAS_D by perturbation"] = lambda **task: DifferentiationTask(
        read_off="perturbation", **task
    )
    found["EquiNAS_D by fine-tuning"] = lambda **task: DifferentiationTask(
        read_off="fine-tuning", **task
    )
    found["uniform mixture by perturbation"] = lambda **task: DifferentiationTask(
        mixture="uniform", read_off="perturbation", **task
    )
    for search in SEARCHES:
        found[search] = _evolve(search=search, retrain=True)
    found["EquiNAS_S"] = GuidedTask
    found["EquiNAS_S, continued"] = lambda **task: GuidedTask(
        **{**task, "use": "continued"}
    )
    found["random selection"] = _evolve(selection="random")
    return found
