"""Many models that differ in groups alone: one program trains them, on many devices.

Members at rest are compact states on the host. To work on them, `load` encodes as many
as the strategy's width, stacks them along a leading axis and places the stack on the
devices; `unload` undoes it. What is done to the stack is compiled once: members differ
in numbers only, whatever their groups. No member sees another, so that its result does
not depend on width, devices or company, except for the order of sums: rounding.

    for part in population.split(len(members)):
        stack = population.load(members[part], sources[part])
        stack = population.relax(stack, targets[part])
        stack, fitted = population.train(stack, batches)
        trained += population.unload(stack, targets[part])
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from eqjax import training
from eqjax.groups.checks import check_array, check_callable
from eqjax.groups.text import WithSettings
from eqjax.population import encoding
from eqjax.population.devices import DATA, MEMBERS, Strategy, fetch, over_members, place
from eqjax.training.checks import (
    check_batches,
    check_images,
    check_labels,
    check_model,
    check_optimizer,
    check_samples,
)
from eqjax.training.evaluation import batch_slices
from eqjax.training.loop import run_steps
from eqjax.training.losses import (
    LossFn,
    Metrics,
    count_classes,
    cross_entropy,
    measure,
)
from eqjax.training.state import TrainState

_check_encodable = functools.lru_cache(maxsize=64)(encoding.check_encodable)
Batch = tuple[np.ndarray, np.ndarray]
CLASS_NUMBER = jax.ShapeDtypeStruct((), jnp.int32)  # the target of a sample


@dataclasses.dataclass(frozen=True, repr=False)
class Population(WithSettings):
    """The programs of a population.

    Attributes:
      model: the members' model, in any groups; a linen module with a `train` argument.
      optimizer: of every member. It sees parameters padded by zeros: what averages over
        their entries, such as `optax.clip_by_block_rms`, is another than for one model.
        Programs are kept for populations of the same optimizer and loss, as objects:
        one made anew, even of equal settings, is compiled anew.
      inputs: a batch of inputs, or its `jax.ShapeDtypeStruct`.
      strategy: how stacks are worked on.
      loss_fn: (outputs, y) -> a loss per sample, or `Metrics`; see `training.losses`.
      restart: layers that are relaxed start with zero moments; see
        `morphism.optimizer.restart_optimizer`.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=())
    >>> x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    >>> population = Population(model, optax.adam(1e-3), x, eq.Strategy(width=2))
    >>> list(population.split(3))  # the members of each stack
    [slice(0, 2, None), slice(2, 3, None)]
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    inputs: jax.ShapeDtypeStruct
    strategy: Strategy = Strategy()
    loss_fn: LossFn = cross_entropy
    restart: bool = False

    def __post_init__(self):
        """Keep no more of the inputs than their shape; check them and the model."""
        check_model("model", self.model)
        check_optimizer("optimizer", self.optimizer)
        check_array("inputs", self.inputs)
        check_callable("loss_fn", self.loss_fn, "eq.training.cross_entropy")
        if not isinstance(self.strategy, Strategy):
            raise TypeError(
                f"strategy must be a Strategy, such as eq.Strategy(), got "
                f"{self.strategy!r}"
            )
        inputs = jax.ShapeDtypeStruct(self.inputs.shape, self.inputs.dtype)
        object.__setattr__(self, "inputs", inputs)
        check_images(inputs)
        batch, devices = inputs.shape[0], self._data_devices
        if batch < 1:
            raise ValueError("a batch needs at least one sample, got inputs of none")
        if batch % devices:
            raise ValueError(
                f"a batch of {batch} cannot be spread over {devices} devices; the "
                f"nearest multiple is {max(1, round(batch / devices)) * devices}"
            )
        _check_encodable(self.model, inputs)

    def split(self, members: int) -> Iterator[slice]:
        """Yield the positions of the members that make up each stack."""
        width = self.strategy.width
        return (slice(i, min(i + width, members)) for i in range(0, members, width))

    def load(
        self, members: Sequence[TrainState], models: Sequence[nn.Module]
    ) -> TrainState:
        """Encode compact members, stack them and place the stack on the devices.

        Args:
          members: at most as many as the strategy is wide; copies of the first fill up
            the stack.
          models: the model of each, in its groups.

        Returns:
          A state whose arrays all have a leading axis of members.
        """
        encoded = [
            encoding.encode(member, model=model, inputs=self.inputs)
            for member, model in zip(members, models, strict=True)
        ]
        return place(self._stack(encoded), self.strategy.mesh, MEMBERS)

    def unload(
        self, stack: TrainState, models: Sequence[nn.Module]
    ) -> list[TrainState]:
        """Return the compact members of a stack, as numpy arrays on every host."""
        arrays = fetch(stack)
        return [
            encoding.decode(
                jax.tree.map(lambda leaf, i=i: np.array(leaf[i]), arrays),
                model=model,
                inputs=self.inputs,
            )
            for i, model in enumerate(models)
        ]

    def init(self, keys: jax.Array, models: Sequence[nn.Module]) -> TrainState:
        """Return a stack of untrained members, one per key and model."""
        if len(keys) != len(models):
            raise ValueError(
                f"expected a key per model, got {len(keys)} keys, {len(models)} models"
            )
        data = self._stack(list(np.asarray(jax.random.key_data(keys))))
        return _init(
            place(data, self.strategy.mesh, MEMBERS),
            self._orbits(models),
            population=self,
            impl=str(jax.random.key_impl(keys)),
        )

    def relax(self, stack: TrainState, models: Sequence[nn.Module]) -> TrainState:
        """Carry members, weights and optimizer state, to the groups of their models.

        Args:
          stack: of members.
          models: one for each member that was loaded.
        """
        orbits = self._orbits(models)
        return _relax(stack, orbits, population=self)

    def train(
        self,
        stack: TrainState,
        batches: Iterable[Batch],
        key: jax.Array | None = None,
        on_call: Callable[[int, Metrics], None] | None = None,
    ) -> tuple[TrainState, Metrics]:
        """Take one step per batch, the same batches for every member.

        Args:
          stack: before the first step; its memory is used for what is returned.
          batches: pairs (x, y), each x like the inputs.
          key: for models with dropout; the same for every member.
          on_call: called after every call of the compiled program with the steps taken
            so far and the call's mean metrics, arrays (width,) on the devices.

        Returns:
          The stack after the last step, and its metrics averaged over the batches,
          numpy arrays (width,) each.

        Raises:
          ValueError: there is no batch, a batch has not the shape of the inputs or not
            as many x as y, or a label is not one of the model's classes.
        """
        taken = 0

        def call(stack, arguments):
            nonlocal taken
            x, y, count = arguments
            stack, sums = _train(stack, x, y, count, key, population=self)
            taken += count
            if on_call is not None:
                on_call(taken, jax.tree.map(lambda total: total / count, sums))
            return stack, (sums, count)

        stack, calls = run_steps(call, stack, self._calls(batches))
        steps = sum(count for _, count in calls)
        fetched = [fetch(sums) for sums, _ in calls]
        return stack, jax.tree.map(lambda *values: sum(values) / steps, *fetched)

    def evaluate(
        self,
        stack: TrainState,
        x: Any,
        y: np.ndarray,
        batch_size: int | None = None,
    ) -> Metrics:
        """Return the metrics over all samples, numpy arrays (width,) each.

        Args:
          stack: of members.
          x: array (samples, ...), or anything of that length whose slices are arrays.
          y: targets, such as class numbers (samples,).
          batch_size: four training batches if None.

        Returns:
          The means of loss and error; not finite for a member for which those of any
          sample are not.

        Raises:
          ValueError: there are no samples or not as many targets, a label is not one of
            the model's classes, or batch_size is below 1.
        """
        sums = [
            _evaluate(stack, *placed, population=self)
            for placed in self._evaluation_calls(x, y, batch_size)
        ]
        fetched = [fetch(metrics) for metrics in sums]
        return jax.tree.map(lambda *values: sum(values) / len(y), *fetched)

    def evaluate_samples(
        self,
        stack: TrainState,
        x: Any,
        y: np.ndarray,
        batch_size: int | None = None,
    ) -> Metrics:
        """Return the metrics of every sample, numpy arrays (width, samples) each.

        Their means are those of `evaluate` up to the order of sums; differences between
        members, sample by sample, say more than those of their means.

        Args:
          stack: of members.
          x: as in `evaluate`.
          y: as in `evaluate`.
          batch_size: as in `evaluate`.

        Raises:
          ValueError: as in `evaluate`.
        """
        measured = [
            _evaluate_samples(stack, *placed, population=self)
            for placed in self._evaluation_calls(x, y, batch_size)
        ]
        fetched = [fetch(metrics) for metrics in measured]
        return jax.tree.map(
            lambda *parts: np.concatenate(parts, axis=1)[:, : len(y)], *fetched
        )

    def _evaluation_calls(
        self, x: Any, y: np.ndarray, batch_size: int | None
    ) -> Iterator[tuple[Any, Any, Any]]:
        """Yield x, y and weights of batches of one size, filled up by zeros."""
        self.check_samples(x, y)
        if batch_size is None:
            batch_size = self._evaluation_batch
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        batch_size = -(-batch_size // self._data_devices) * self._data_devices
        for part in batch_slices(x, y, batch_size):
            missing = batch_size - len(y[part])
            first, second, weight = (
                np.pad(a, [(0, missing), *[(0, 0)] * (a.ndim - 1)])
                for a in (x[part], y[part], np.ones(len(y[part]), np.float32))
            )
            mesh = self.strategy.mesh
            yield (
                place(first, mesh, DATA),
                place(second, mesh, DATA),
                place(weight, mesh, DATA),
            )

    def check_samples(self, x: Any, y: Any) -> None:
        """Raise unless samples fit the model: as many x as y, labels among its classes.

        Args:
          x: (samples, ...), anything with a length.
          y: targets, such as class numbers (samples,).
        """
        check_samples(x, y)
        if (classes := self._classes) is not None:
            check_labels(y, len(x), classes)

    @property
    def _classes(self) -> int | None:
        return count_classes(self.loss_fn, _outputs(self.model, self.inputs))

    @property
    def _data_devices(self) -> int:
        mesh = self.strategy.mesh
        return 1 if mesh is None else mesh.shape[DATA]

    @property
    def _evaluation_batch(self) -> int:
        return 4 * self.inputs.shape[0]

    def _orbits(self, models: Sequence[nn.Module]) -> Any:
        tables = [encoding.orbit_variables(model, self.inputs) for model in models]
        return place(self._stack(tables), self.strategy.mesh, MEMBERS)

    def _stack(self, trees: list) -> Any:
        """Stack trees of arrays, the first one again where some are missing."""
        width = self.strategy.width
        if not 1 <= len(trees) <= width:
            raise ValueError(f"a stack holds 1 to {width} members, got {len(trees)}")
        filled = trees + trees[:1] * (width - len(trees))
        return jax.tree.map(lambda *leaves: np.stack(leaves), *filled)

    def _calls(self, batches: Iterable[Batch]) -> Iterator[tuple[Any, Any, int]]:
        """Yield the arrays of each call, and how many steps they hold."""
        size = self.strategy.steps_per_call
        waiting: list[Batch] = []

        def call() -> tuple[Any, Any, int]:
            filled = waiting + waiting[:1] * (size - len(waiting))
            x, y = (np.stack(arrays) for arrays in zip(*filled, strict=True))
            placed = (place(a, self.strategy.mesh, None, DATA) for a in (x, y))
            return (*placed, len(waiting))

        for x, y in check_batches(batches, lambda _: self._classes):
            if np.shape(x) != self.inputs.shape or len(x) != len(y):
                raise ValueError(
                    f"expected batches of shape {self.inputs.shape} with as many "
                    f"labels, got {np.shape(x)} with {len(y)}"
                )
            waiting.append((np.asarray(x), np.asarray(y)))
            if len(waiting) == size:
                yield call()
                waiting.clear()
        if waiting:
            yield call()


@functools.lru_cache(maxsize=64)
def _outputs(model: nn.Module, inputs: jax.ShapeDtypeStruct) -> Any:
    """Return the shapes of what a model makes of a batch."""
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    outputs, _ = jax.eval_shape(lambda x: model.init_with_output(rngs, x), inputs)
    return outputs


# --- what is compiled ---------------------------------------------------------------

_compiled = functools.partial(jax.jit, static_argnames=("population",))


@functools.partial(jax.jit, static_argnames=("population", "impl"))
def _init(keys, orbits, *, population: Population, impl: str):
    x = jnp.zeros(population.inputs.shape, population.inputs.dtype)

    def one(key, orbits):
        key = jax.random.wrap_key_data(key, impl=impl)
        kind = {"model": population.model, "optimizer": population.optimizer}
        return encoding.init(key, orbits, inputs=x, **kind)

    return over_members(one, population.strategy, keys, orbits)


@_compiled
def _relax(stack, orbits, *, population: Population):
    one = functools.partial(
        encoding.relax,
        model=population.model,
        inputs=population.inputs,
        restart=population.restart,
    )
    return over_members(one, population.strategy, stack, orbits)


@functools.partial(_compiled, donate_argnums=0)
def _train(stack, xs, ys, count, key, *, population: Population):
    """Take `count` steps; return the sums of their metrics."""

    def step_once(state, x, y, key):
        kind = {
            "model": population.model,
            "optimizer": population.optimizer,
            "loss_fn": population.loss_fn,
        }
        new, metrics = training.train_step(state, x, y, key=key, **kind)
        # A loop needs one dtype; a network in double precision promotes statistics.
        return jax.tree.map(lambda a, b: a.astype(b.dtype), new, state), metrics

    def one(state, xs, ys, count, key):
        def step(i, carry):
            state, sums = carry
            x, y = (lax.dynamic_index_in_dim(a, i, keepdims=False) for a in (xs, ys))
            state, metrics = step_once(state, x, y, key)
            return state, jax.tree.map(jnp.add, sums, metrics)

        if population.strategy.steps_per_call == 1:
            return step_once(state, xs[0], ys[0], key)
        _, shapes = jax.eval_shape(step_once, state, xs[0], ys[0], key)
        zeros = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), shapes)
        return lax.fori_loop(0, count, step, (state, zeros))

    return over_members(one, population.strategy, stack, shared=(xs, ys, count, key))


@_compiled
def _evaluate_samples(stack, x, y, weight, *, population: Population):
    """Return the metrics of every sample of a batch, those of weight 0 among them."""
    del weight

    def one(state, x, y):
        outputs: Any = population.model.apply(state.variables, x)
        return measure(population.loss_fn, outputs, y)

    return over_members(one, population.strategy, stack, shared=(x, y))


@_compiled
def _evaluate(stack, x, y, weight, *, population: Population):
    """Return the sums of the metrics of a batch, over samples of weight one."""

    def one(state, x, y, weight):
        outputs: Any = population.model.apply(state.variables, x)
        per_sample = measure(population.loss_fn, outputs, y)
        counted = jax.tree.map(lambda m: jnp.where(weight > 0, m, 0), per_sample)
        return jax.tree.map(jnp.sum, counted)

    return over_members(one, population.strategy, stack, shared=(x, y, weight))


def _abstract_stack(population: Population) -> TrainState:
    width = population.strategy.width
    key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    keys = jax.ShapeDtypeStruct((width, *key.shape), key.dtype)
    orbits = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((width, *a.shape), a.dtype),
        encoding.orbit_variables(population.model, population.inputs),
    )
    impl = str(jax.random.key_impl(jax.random.key(0)))
    init = functools.partial(_init, population=population, impl=impl)
    return jax.eval_shape(init, keys, orbits)


def lower_training(
    population: Population, target: jax.ShapeDtypeStruct = CLASS_NUMBER
) -> jax.stages.Lowered:
    """Return the program of `Population.train`, lowered for compilation.

    Args:
      population: whose program.
      target: shape and dtype of the target of one sample; a class number by default.
    """
    stack = _abstract_stack(population)
    steps = population.strategy.steps_per_call
    xs, ys = (
        jax.ShapeDtypeStruct((steps, *shape), dtype)
        for shape, dtype in (
            (population.inputs.shape, population.inputs.dtype),
            ((population.inputs.shape[0], *target.shape), target.dtype),
        )
    )
    return _train.lower(stack, xs, ys, steps, None, population=population)


def lower_evaluation(
    population: Population, target: jax.ShapeDtypeStruct = CLASS_NUMBER
) -> jax.stages.Lowered:
    """Return the program of `Population.evaluate`, lowered for compilation.

    Args:
      population: whose program.
      target: shape and dtype of the target of one sample; a class number by default.
    """
    batch, inputs = population._evaluation_batch, population.inputs
    x, y, weight = (
        jax.ShapeDtypeStruct((batch, *shape), dtype)
        for shape, dtype in (
            (inputs.shape[1:], inputs.dtype),
            (target.shape, target.dtype),
            ((), jnp.float32),
        )
    )
    stack = _abstract_stack(population)
    return _evaluate.lower(stack, x, y, weight, population=population)
