"""Hill climbing by morphisms (NASH): networks that grow, and are relaxed, in turns.

From one trained network several children are made by random morphisms, which leave what
it computes as it is; all of them and the unchanged network are trained for some steps,
and the best on validation samples goes on (Elsken, Metzen and Hutter 2017). Here moves
are of two kinds: to another group for a layer, and to a wider, deeper or larger kernel.
Its control is the same with no moves at all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from eqjax.constraints.collections import PARAMS
from eqjax.groups.checks import check_callable, check_whole, several
from eqjax.groups.text import Echoed, Rows
from eqjax.models.cnn import EquivariantCNN
from eqjax.morphism.growing import grow
from eqjax.morphism.matching import Path
from eqjax.morphism.variables import morph
from eqjax.search.proposals import neighbors
from eqjax.training.batches import Split, batches
from eqjax.training.checks import check_model, check_pair
from eqjax.training.evaluation import evaluate
from eqjax.training.loop import train as train_on
from eqjax.training.losses import LossFn, cross_entropy
from eqjax.training.state import count_parameters, init_state, pack_state

Rng = np.random.Generator


class Moved(NamedTuple):
    """What a move makes of a model.

    Attributes:
      model: the new one.
      paths: of its layers that are called otherwise in the one before, as in `grow`.
      grown: its parameters are more for the same groups; else groups alone changed.
    """

    model: nn.Module
    paths: Mapping[str | Path, str | Path] = {}
    grown: bool = True


# Model, random numbers -> a neighbour of it, or None where there is none of this kind.
ModelMove = Callable[[Any, Rng], Moved | None]


def regroup(model: EquivariantCNN, rng: Rng) -> Moved | None:
    """Move one layer to a neighbouring group, larger or smaller."""
    _, *others = neighbors(model.architecture)
    if not others:
        return None
    chosen = others[rng.integers(len(others))]
    return Moved(model.clone(architecture=chosen), grown=False)


def widen(model: EquivariantCNN, rng: Rng) -> Moved:
    """Give one convolution half as many channels again, one at the least."""
    features = list(model.features)
    layer = rng.integers(len(features))
    features[layer] += max(1, features[layer] // 2)
    return Moved(model.clone(features=tuple(features)))


def deepen(model: EquivariantCNN, rng: Rng) -> Moved:
    """Put a convolution behind another one, with its channels and its group."""
    layer = int(rng.integers(len(model.features)))
    features = (*model.features[: layer + 1], *model.features[layer:])
    groups = model.architecture.groups
    groups = (*groups[: layer + 1], *groups[layer:])
    # A pooling stays behind the convolution that it follows.
    pooled = tuple(n if n <= layer + 1 else n + 1 for n in model.pool_after)
    paths: dict[str | Path, str | Path] = {
        f"{kind}{n + 1}": f"{kind}{n}"
        for kind in ("conv", "norm")
        for n in range(layer + 2, len(model.features) + 1)
    }
    architecture = type(model.architecture)(groups)
    larger = model.clone(
        features=features, architecture=architecture, pool_after=pooled
    )
    return Moved(larger, paths)


def enlarge(model: EquivariantCNN, rng: Rng) -> Moved:
    """Give all kernels two taps more per axis."""
    del rng
    return Moved(model.clone(kernel_size=tuple(k + 2 for k in model.kernel_sizes)))


MOVES: tuple[ModelMove, ...] = (regroup, widen, deepen)


class Climber(NamedTuple):
    """A network on the way.

    Attributes:
      model: of a child.
      variables: trained.
      error: share of wrong answers on the validation samples.
      moves: that led to it from the one before, by name.
    """

    model: Any
    variables: Any
    error: float
    moves: tuple[str, ...]


@dataclasses.dataclass(frozen=True, repr=False)
class Climbed(Echoed):
    """What a climb has come to; prints as a table of its steps.

    Attributes:
      best: the network.
      history: all children of every climb, in order.
    """

    best: Climber
    history: tuple[tuple[Climber, ...], ...]

    def parts(self) -> Sequence[str | Rows]:
        """Return a table with a row per climb."""
        rows = [("climb", "moves", "parameters", "error")]
        for number, children in enumerate(self.history):
            child = min(children, key=lambda c: c.error)
            count = count_parameters(child.variables[PARAMS])
            moves = " ".join(child.moves) or "none"
            rows.append((str(number), moves, f"{count:,}", f"{child.error:.4g}"))
        return (Rows(rows),)


def hill_climb(
    model: nn.Module,
    train: tuple[Any, Any],
    validation: tuple[Any, Any],
    *,
    optimizer: Callable[[int], optax.GradientTransformation],
    moves: Sequence[ModelMove] = MOVES,
    climbs: int = 4,
    children: int = 8,
    moves_per_child: int = 5,
    first_steps: int = 500,
    steps: int = 125,
    batch_size: int = 64,
    loss_fn: LossFn = cross_entropy,
    call_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    resume: tuple[int, Climber] | None = None,
    on_climb: Callable[[int, Sequence[Climber], Climber], None] | None = None,
) -> Climbed:
    """Climb from a network to better ones by morphisms.

    Args:
      model: to start from, any linen module that the moves know, called as
        model(x, train=...).
      train: samples (n, ...) and targets (n, ...) to train on.
      validation: samples and targets to select by.
      optimizer: of the weights, for a training of so many steps, which starts anew with
        every climb.
      moves: to draw from; those of an `EquivariantCNN` by default, without `enlarge`.
      climbs: after the first training.
      children: of every climb, the unchanged network among them.
      moves_per_child: how many are drawn for each. All but a move to a larger group,
        which projects, leave the function as it is.
      first_steps: of the first training.
      steps: of every child.
      batch_size: samples per step, fewer where there are no more.
      loss_fn: (outputs, targets) -> a loss per sample, or `Metrics`.
      call_kwargs: keyword arguments of the models' calls, for morphisms.
      seed: of weights, batches and moves.
      resume: the number of a finished climb, and its best network, to go on from.
      on_climb: called after each climb, and the first training as climb 0, with its
        number, all children and the best.

    Returns:
      The best network, and all on the way, from where it was resumed.

    Raises:
      ValueError: a number is too small, or all children diverged.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> small = eq.exact(eq.Architecture.uniform(D4, 2), features=(1,), kernel_size=3,
    ...     pool_after=(), classes=2)
    >>> images = np.random.default_rng(0).normal(size=(8, 6, 6, 1)).astype("float32")
    >>> data = images, np.arange(8) % 2
    >>> found = hill_climb(small, data, data, optimizer=optax.adam, climbs=1,
    ...     children=2, moves_per_child=1, first_steps=2, steps=2)
    >>> len(found.history)
    2
    """
    for name, value, least in (
        ("climbs", climbs, 0),
        ("children", children, 1),
        ("moves_per_child", moves_per_child, 0),
        ("first_steps", first_steps, 1),
        ("steps", steps, 1),
        ("batch_size", batch_size, 1),
        ("seed", seed, 0),
    ):
        check_whole(name, value, least)
    check_model("model", model)
    check_pair("train", train)
    check_pair("validation", validation)
    for move in several("moves", moves, "functions"):
        check_callable("moves", move, "eq.search.widen")
    check_callable("optimizer", optimizer, "lambda steps: optax.adam(1e-3)")
    key = jax.random.key(seed)
    size = min(batch_size, len(train[0]))
    some = train[0][:size]

    def trained(child: Any, variables: Any, moved: tuple[str, ...], climb: int):
        length = steps if climb else first_steps
        tuned = optimizer(length)
        if variables is None:
            x = np.zeros(some.shape, some.dtype)
            state = init_state(jax.random.fold_in(key, 0), child, tuned, x)
        else:
            state = pack_state(variables, tuned.init(variables[PARAMS]))
        order = np.random.default_rng([seed, climb])
        drawn = batches(Split(*train), size, length, order)
        kind: dict[str, Any] = {"model": child, "loss_fn": loss_fn}
        own = jax.random.fold_in(key, 1)
        state, _ = train_on(state, drawn, optimizer=tuned, key=own, **kind)
        error = float(evaluate(state.variables, *validation, **kind).error)
        error = error if math.isfinite(error) else math.inf
        return Climber(child, state.variables, error, moved)

    history: list[tuple[Climber, ...]] = []
    if resume is None:
        done, best = 0, trained(model, None, (), 0)
        history.append((best,))
        if on_climb is not None:
            on_climb(0, history[0], best)
    else:
        done, best = resume
    for climb in range(done + 1, climbs + 1):
        tried = [trained(best.model, best.variables, (), climb)]
        for child in range(1, children):
            rng = np.random.default_rng([seed, climb, child])
            changed = _moved(best, moves, moves_per_child, some, rng, call_kwargs)
            tried.append(trained(*changed, climb))
        history.append(tuple(tried))
        best = min(tried, key=lambda each: each.error)
        if not math.isfinite(best.error):
            raise ValueError(f"all networks of climb {climb} diverged")
        if on_climb is not None:
            on_climb(climb, tried, best)
    return Climbed(best, tuple(history))


def _moved(
    parent: Climber,
    moves: Sequence[ModelMove],
    count: int,
    inputs: Any,
    rng: Rng,
    call_kwargs: Mapping[str, Any] | None,
) -> tuple[Any, Any, tuple[str, ...]]:
    """Return a child of a network, what it computes, and which moves led to it."""
    model, variables, names = parent.model, parent.variables, []
    kind: dict[str, Any] = {"inputs": inputs, "call_kwargs": call_kwargs}
    for _ in range(count if moves else 0):
        move = moves[int(rng.integers(len(moves)))]
        moved = move(model, rng)
        if moved is None:
            continue
        if moved.grown:
            variables = grow(
                variables,
                source=model,
                target=moved.model,
                key=jax.random.key(rng.integers(2**31)),
                paths=moved.paths,
                **kind,
            )
        else:
            variables, _ = morph(variables, source=model, target=moved.model, **kind)
        model = moved.model
        names.append(getattr(move, "__name__", type(move).__name__))
    return model, variables, tuple(names)
