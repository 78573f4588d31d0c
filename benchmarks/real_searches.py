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
import numpy as np

import eqjax as eq
from benchmarks.truth import NETWORK, SIZE, six_groups
from eqjax.constraints.collections import PARAMS
from eqjax.search import SEARCHES, SELECTIONS, pareto_front
from eqjax.search.perturbation import By
from eqjax.training import batches, pack_state, train
from eqjax_experiments.data.schedules import Schedule
from eqjax_experiments.data.splits import Dataset
from eqjax_experiments.engine.trial import fit, piece_lengths, weights_of
from eqjax_experiments.tasks.differentiate import DifferentiationTask, fine_tunings
from eqjax_experiments.tasks.evolve import EvolutionTask, make_loop
from eqjax_experiments.tasks.guide import GuidedTask

RealSearch = Callable[[str, int], tuple[Schedule, int]]


class Mixed(NamedTuple):
    """A trained network of mixtures.

    Attributes:
      variables: of the model.
      model: with a mixture in every layer.
      inputs: shape of a batch.
      dataset: that it was trained on.
      config: the settings of the search.
    """

    variables: Any
    model: eq.EquivariantCNN
    inputs: jax.ShapeDtypeStruct
    dataset: Dataset
    config: DifferentiationTask


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
    found = Mixed(variables, experiment.trial.model, inputs, dataset, config)
    return found, 2 * experiment.steps


def heaviest(found: Mixed) -> tuple[Schedule, int]:
    """Read off the group of the largest weight of every layer: no further step."""
    _, model, _ = eq.discretize(found.variables, model=found.model, inputs=found.inputs)
    return model.architecture.names, 0


def layer_by_layer(by: By, found: Mixed) -> tuple[Schedule, int]:
    """Read off the largest group that held-out losses can do with, layer by layer."""
    config, dataset = found.config, found.dataset
    optimizer = config.weight_optimizer(config.fine_tuning_steps)

    def fine_tune(variables: Any, model: Any, key: jax.Array) -> Any:
        state = pack_state(variables, optimizer.init(variables[PARAMS]))
        rng = np.random.default_rng(np.ravel(jax.random.key_data(key)).tolist())
        steps = config.fine_tuning_steps
        drawn = batches(dataset.train, config.batch_size, steps, rng)
        return train(state, drawn, model=model, optimizer=optimizer)[0].variables

    key = jax.random.key(config.seed)
    x, y = dataset.validation
    _, model, report = eq.read_off(
        found.variables,
        model=found.model,
        x=x,
        y=y,
        fine_tune=fine_tune,
        key=key,
        by=by,
    )
    steps = fine_tunings(report) * config.fine_tuning_steps
    return model.architecture.names, steps


def guided(task: str, seed: int, *, quick: bool) -> tuple[Schedule, int]:
    """Return what EquiNAS_S trains; a gradient of the test counts as one of a step."""
    config = GuidedTask(
        data=task,
        image_size=SIZE,
        seed=seed,
        groups=tuple(group.name for group in six_groups()),
        epochs=0.1 if quick else None,
        **NETWORK,
    )
    dataset = config.load()
    inputs = config.inputs(dataset)
    probe = config.prepare(dataset)
    lengths = piece_lengths(probe.steps, config.steps(1, dataset))
    *_, (state, _) = fit(probe.trial, dataset, inputs, seed, lengths)
    found = probe.follow(state)  # type: ignore[misc]
    tested = min(config.tested_images, len(dataset.train.labels)) // config.batch_size
    return found.trial.model.architecture.names, probe.steps + tested + found.steps


# Each returns a schedule, and the gradient steps that it takes besides.
READ_OFFS: dict[str, Callable[[Mixed], tuple[Schedule, int]]] = {
    "heaviest": heaviest,
    "perturbation": functools.partial(layer_by_layer, "removal"),
    "fine-tuning": functools.partial(layer_by_layer, "fine-tuning"),
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
    found: dict[str, RealSearch] = {"EquiNAS_S": functools.partial(guided, quick=quick)}
    for selection in SELECTIONS:
        kind: dict[str, Any] = {"selection": selection, "quick": quick}
        found[f"EquiNAS_E, {selection}"] = functools.partial(evolved, **kind)
    back: dict[str, Any] = {
        "proposals": "relax_and_constrain",
        "parsimony": "one-standard-error",
        "rescore": True,
        "quick": quick,
    }
    found["EquiNAS_E, ways back"] = functools.partial(evolved, **back)
    for search in SEARCHES:
        if search != "EquiNAS_E":
            kind = {"search": search, "quick": quick}
            found[search] = functools.partial(evolved, **kind)
    for name in READ_OFFS:
        found[f"EquiNAS_D, {name}"] = functools.partial(read_off, name, quick=quick)
    return found
