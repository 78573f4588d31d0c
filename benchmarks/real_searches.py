"""Searches that are run on the digits, with the network of a table of schedules.

Each is a function (task, seed) -> (schedule, gradient steps of all that is trained).
Another search is a line in `real_searches`, another way to read a schedule off the
mixture of EquiNAS_D a line in `READ_OFFS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

import eqjax as eq
from benchmarks.truth import NETWORK, SIZE
from eqjax.search import SEARCHES, SELECTIONS, pareto_front
from experiments.data.schedules import Schedule
from experiments.data.splits import Dataset
from experiments.engine.trial import fit, piece_lengths, weights_of
from experiments.tasks.differentiate import DifferentiationTask
from experiments.tasks.evolve import EvolutionTask, make_loop

RealSearch = Callable[[str, int], tuple[Schedule, int]]


class Mixed(NamedTuple):
    """A trained network of mixtures.

    Attributes:
      variables: of the model.
      model: with a mixture in every layer.
      inputs: shape of a batch.
      dataset: that it was trained on.
    """

    variables: Any
    model: eq.EquivariantCNN
    inputs: jax.ShapeDtypeStruct
    dataset: Dataset


def evolved(
    task: str, seed: int, *, quick: bool, **settings: Any
) -> tuple[Schedule, int]:
    """Return the member of the last front with the least validation error."""
    if quick:
        short = {"generations": 1, "first_epochs": 0.04, "epochs": 0.02}
        settings = {**settings, **short}
    config = EvolutionTask(data=task, image_size=SIZE, seed=seed, **NETWORK, **settings)
    loop = make_loop(config, config.load(), jax.devices()[:1])
    point, steps = loop.start(config.first_architecture), 0
    while point.state.generation <= config.generations:
        length = loop.steps if point.state.scores else loop.first_steps
        point, record = loop.generation(point, lambda done, total: None)
        steps += length * len(record["children"])
    if not point.state.scores:
        raise RuntimeError(f"every member diverged on {task} with seed {seed}")
    best = pareto_front(point.state.scores)[0]
    return point.state.architectures[best].names, steps


@functools.lru_cache(maxsize=1)  # of all ways to read it off, one after another
def mixed(task: str, seed: int, *, quick: bool) -> tuple[Mixed, int]:
    """Return what EquiNAS_D learns, and its gradient steps: two for every batch."""
    config = DifferentiationTask(
        data=task,
        image_size=SIZE,
        seed=seed,
        retrain=False,
        epochs=0.04 if quick else None,
        **NETWORK,
    )
    dataset = config.load()
    experiment = config.prepare(dataset)
    inputs = config.inputs(dataset)
    lengths = piece_lengths(experiment.steps, config.steps(1, dataset))
    *_, (state, _) = fit(experiment.trial, dataset, inputs, seed, lengths)
    variables = weights_of(state).variables
    return Mixed(
        variables, experiment.trial.model, inputs, dataset
    ), 2 * experiment.steps


def heaviest(found: Mixed) -> tuple[Schedule, int]:
    """Read off the group of the largest weight of every layer: no further step."""
    _, model, _ = eq.discretize(found.variables, model=found.model, inputs=found.inputs)
    return model.architecture.names, 0


# Each returns a schedule, and the gradient steps that it takes besides.
READ_OFFS: dict[str, Callable[[Mixed], tuple[Schedule, int]]] = {
    "heaviest": heaviest,
}


def read_off(name: str, task: str, seed: int, *, quick: bool) -> tuple[Schedule, int]:
    """Return the schedule that is read off a mixture; the steps are those of both."""
    found, steps = mixed(task, seed, quick=quick)
    schedule, more = READ_OFFS[name](found)
    return not_growing(schedule), steps + more


def not_growing(schedule: Schedule) -> Schedule:
    """Return a schedule whose layers keep what they have in common with those before.

    >>> not_growing(("D4", "C4", "D4", "D2:i", "C1"))
    ('D4', 'C4', 'C4', 'C2', 'C1')
    """
    groups = list(eq.Architecture.parse(eq.dihedral(4), schedule).groups)
    for layer in range(1, len(groups)):
        groups[layer] = groups[layer].meet(groups[layer - 1])
    return tuple(group.name for group in groups)


def real_searches(*, quick: bool = False) -> dict[str, RealSearch]:
    """Return the searches by name.

    Args:
      quick: far fewer steps.
    """
    found: dict[str, RealSearch] = {}
    for selection in SELECTIONS:
        kind: dict[str, Any] = {"selection": selection, "quick": quick}
        found[f"EquiNAS_E, {selection}"] = functools.partial(evolved, **kind)
    for search in SEARCHES:
        if search != "EquiNAS_E":
            kind = {"search": search, "quick": quick}
            found[search] = functools.partial(evolved, **kind)
    for name in READ_OFFS:
        found[f"EquiNAS_D, {name}"] = functools.partial(read_off, name, quick=quick)
    return found
