"""A whole search in one call, for models of your own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from eqjax.groups.checks import check_callable, check_whole
from eqjax.groups.text import Echoed, Rows, WithSettings
from eqjax.models.architecture import Architecture, check_architecture
from eqjax.population.devices import Strategy
from eqjax.population.memory import choose_strategy
from eqjax.population.stack import Population
from eqjax.search.evolution import Evolution, SearchState
from eqjax.search.loop import Checkpoint, SearchLoop
from eqjax.search.verdicts import Verdict, verdict
from eqjax.training.batches import Split
from eqjax.training.checks import check_model, check_optimizer, check_pair
from eqjax.training.losses import LossFn, cross_entropy


@dataclasses.dataclass(frozen=True, repr=False)
class Network(WithSettings):
    """A network that a search has found.

    Attributes:
      model: in its groups.
      variables: trained: what `model.apply` takes.
      error: share of wrong answers on the validation samples, in [0, 1].
      parameters: how many are trained.
    """

    model: nn.Module
    variables: Any
    error: float
    parameters: int


@dataclasses.dataclass(frozen=True, repr=False)
class Evolved(Echoed):
    """What a search has found; prints as a table of its networks.

    Attributes:
      state: of the search after its last generation.
      networks: its members, in the order of the selection.
      verdict: which group the data have, or that the search cannot tell.
      records: of all generations, for plots.
    """

    state: SearchState
    networks: tuple[Network, ...]
    verdict: Verdict
    records: tuple[dict, ...]

    @property
    def best(self) -> Network:
        """The network of the smallest error, the smaller one of two alike."""
        return min(self.networks, key=lambda net: (net.error, net.parameters))

    def parts(self) -> Sequence[str | Rows]:
        """Return the members, and the verdict."""
        return [*self.state.parts(), *self.verdict.parts()]


def evolve(
    make_model: Callable[[Architecture], nn.Module],
    start: Architecture,
    train: tuple[Any, np.ndarray],
    validation: tuple[Any, np.ndarray],
    *,
    optimizer: optax.GradientTransformation,
    search: Evolution = Evolution(),  # noqa: B008
    generations: int = 4,
    first_steps: int = 500,
    steps: int = 125,
    batch_size: int = 64,
    loss_fn: LossFn = cross_entropy,
    restart: bool = False,
    rescore: bool = False,
    strategy: Strategy | None = None,
    seed: int = 0,
    on_generation: Callable[[SearchState], None] | None = None,
) -> Evolved:
    """Search the groups of a model by EquiNAS_E, and train what it proposes.

    The model is any linen module called as model(x, train=...), whose layers take their
    groups from an architecture.

    Args:
      make_model: architecture -> model, such as a class with that field alone.
      start: the groups to begin with, as a rule the whole symmetry everywhere.
      train: samples (n, ...) and targets (n, ...) to train on.
      validation: samples and targets to select by.
      optimizer: of the weights.
      search: how many members it keeps, which groups they may have, how it selects.
      generations: after the first training, of relaxed children.
      first_steps: training steps of the first network.
      steps: training steps of every child.
      batch_size: samples per training step, fewer where there are no more.
      loss_fn: (outputs, targets) -> a loss per sample, or `Metrics`.
      restart: the optimizer's moments of relaxed layers start at zero, not carried.
      rescore: half of the validation samples, drawn anew for every generation, select,
        and the others score the networks that survive; see `SearchLoop`.
      strategy: how networks are worked on; `eq.choose_strategy` if None.
      seed: of weights, batches and selection.
      on_generation: called with the state of the search after every generation.

    Returns:
      The networks, and which group the search names.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> class Mine(nn.Module):
    ...     architecture: eq.Architecture
    ...
    ...     @nn.compact
    ...     def __call__(self, x, train=False):
    ...         stem, head = self.architecture.groups
    ...         x = nn.relu(eq.LiftingConv(2, 3, group=stem)(x))
    ...         return eq.InvariantHead(2, group=head)(x)
    >>> images = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype("float32")
    >>> data = images, np.arange(8) % 2
    >>> start = eq.Architecture.uniform(D4, 2)
    >>> lengths = {"generations": 1, "first_steps": 1, "steps": 1}
    >>> found = evolve(Mine, start, data, data, optimizer=optax.sgd(0.1), **lengths)
    >>> found.best.model.apply(found.best.variables, images).shape
    (8, 2)
    """
    _check(make_model, start, train, validation, optimizer, search)
    for name, value, least in (
        ("generations", generations, 0),
        ("first_steps", first_steps, 1),
        ("steps", steps, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        check_whole(name, value, least)
    size = min(batch_size, len(train[1]))
    inputs = jax.ShapeDtypeStruct((size, *train[0].shape[1:]), train[0].dtype)
    model = make_model(start)
    check_model("make_model(start)", model)
    if strategy is None:
        targets = np.asarray(train[1][:1])
        strategy = choose_strategy(
            model,
            optimizer,
            inputs,
            search.population_size,
            loss_fn=loss_fn,
            target=jax.ShapeDtypeStruct(
                targets.shape[1:], jax.dtypes.canonicalize_dtype(targets.dtype)
            ),
        )
    loop = SearchLoop(
        search=search,
        make_model=make_model,
        population=Population(model, optimizer, inputs, strategy, loss_fn, restart),
        train=Split(*train),
        validation=Split(*validation),
        first_steps=first_steps,
        steps=steps,
        seed=seed,
        rescore=rescore,
    )
    point, records = loop.start(start), []
    for _ in range(1 + generations):
        point, record = loop.generation(point, lambda done, total: None)
        records.append(record)
        if on_generation is not None:
            on_generation(point.state)
    candidates = search.candidates or start.ambient.subgroups
    named = verdict(records, start.ambient, candidates, loop.selecting_samples)
    return Evolved(point.state, _networks(point, make_model), named, tuple(records))


def _check(
    make_model: Any,
    start: Any,
    train: Any,
    validation: Any,
    optimizer: Any,
    search: Any,
) -> None:
    """Raise TypeError unless all of these are what they are taken for."""
    such_as = "lambda groups: eq.exact(groups)"
    check_callable("make_model", make_model, such_as)
    if isinstance(make_model, nn.Module):
        raise TypeError(
            f"make_model must be a function, such as {such_as}, got a module"
        )
    check_architecture("start", start)
    check_pair("train", train)
    check_pair("validation", validation)
    if not isinstance(search, Evolution):
        raise TypeError(
            f"search must be an Evolution, such as eq.Evolution(), got {search!r}"
        )
    check_optimizer("optimizer", optimizer)


def _networks(
    point: Checkpoint, make_model: Callable[[Architecture], nn.Module]
) -> tuple[Network, ...]:
    found = zip(
        point.state.architectures, point.members, point.state.scores, strict=False
    )
    return tuple(
        Network(
            make_model(architecture), member.variables, score.error, score.parameters
        )
        for architecture, member, score in found
    )
