"""Many models that differ in groups alone: one program trains them, on many devices.

Members at rest are compact states on the host. To work on them, `load` encodes as many
as the strategy's width, stacks them along a leading axis and places the stack on the
devices; `unload` undoes it. What is done to the stack is compiled once: members differ
in numbers only, whatever their groups. No member sees another, so that its result does
not depend on width, devices or company.

    for part in population.split(len(members)):
        stack = population.load(members[part], sources[part])
        stack = population.relax(stack, targets[part])
        stack, fitted = population.train(stack, batches)
        trained += population.unload(stack, targets[part])
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from eqjax import encoding, training
from eqjax.devices import (
    DATA,
    MEMBERS,
    Strategy,
    device_mesh,
    fetch,
    over_members,
    place,
)
from eqjax.training import Metrics, TrainState

_STEPS_PER_CALL = 8  # by default: a call then costs little beside its steps
Batch = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Population:
    """The programs of a population.

    Attributes:
      model: the members' model, in any groups; a linen module with a `train` argument.
      optimizer: of every member.
      inputs: a batch of inputs, or its `jax.ShapeDtypeStruct`.
      strategy: how stacks are worked on.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    inputs: jax.ShapeDtypeStruct
    strategy: Strategy = Strategy()

    def __post_init__(self):
        """Keep no more of the inputs than their shape."""
        inputs = jax.ShapeDtypeStruct(self.inputs.shape, self.inputs.dtype)
        object.__setattr__(self, "inputs", inputs)

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
        filled = self._stack(list(jax.random.key_data(keys)))
        orbits = self._orbits(models)
        return _init(
            place(filled, self.strategy.mesh, MEMBERS), orbits, population=self
        )

    def relax(self, stack: TrainState, models: Sequence[nn.Module]) -> TrainState:
        """Carry members, weights and optimizer state, to the groups of the models."""
        orbits = self._orbits(models)
        return _relax(stack, orbits, population=self)

    def train(
        self,
        stack: TrainState,
        batches: Iterable[Batch],
        key: jax.Array | None = None,
    ) -> tuple[TrainState, Metrics]:
        """Take one step per batch, the same batches for every member.

        Args:
          stack: before the first step.
          batches: pairs (x, y) of equal shapes.
          key: for models with dropout; the same for every member.

        Returns:
          The stack after the last step, and its metrics averaged over the batches,
          numpy arrays (width,) each.
        """
        sums, steps = [], 0
        for x, y, count in self._calls(batches):
            stack, metrics = _train(stack, x, y, count, key, population=self)
            sums.append(metrics)
            steps += count
        if not steps:
            raise ValueError("train needs at least one batch; is batch_size too large?")
        fetched = [fetch(metrics) for metrics in sums]
        return stack, jax.tree.map(lambda *parts: sum(parts) / steps, *fetched)

    def evaluate(
        self,
        stack: TrainState,
        x: np.ndarray,
        y: np.ndarray,
        batch_size: int | None = None,
    ) -> Metrics:
        """Return the metrics over all samples, numpy arrays (width,) each.

        Args:
          stack: of members.
          x: inputs.
          y: class numbers.
          batch_size: four training batches if None, which take less memory than one
            training step.
        """
        samples = len(y)
        if samples == 0 or len(x) != samples:
            raise ValueError(f"evaluate needs as many x as y, got {len(x)}, {samples}")
        batch_size = batch_size or 4 * self.inputs.shape[0]
        batch_size = -(-batch_size // self._data_devices) * self._data_devices
        sums = []
        for begin in range(0, samples, batch_size):
            part = slice(begin, begin + batch_size)
            missing = batch_size - len(y[part])
            filled = (
                np.pad(a, [(0, missing), *[(0, 0)] * (a.ndim - 1)])
                for a in (x[part], y[part], np.ones(len(y[part]), np.float32))
            )
            placed = (place(a, self.strategy.mesh, DATA) for a in filled)
            sums.append(_evaluate(stack, *placed, population=self))
        fetched = [fetch(metrics) for metrics in sums]
        return jax.tree.map(lambda *parts: sum(parts) / samples, *fetched)

    @property
    def _data_devices(self) -> int:
        mesh = self.strategy.mesh
        return 1 if mesh is None else mesh.shape[DATA]

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
            if x.shape[1] % self._data_devices:
                raise ValueError(
                    f"a batch of {x.shape[1]} cannot be spread over "
                    f"{self._data_devices} devices; the nearest multiple is "
                    f"{-(-x.shape[1] // self._data_devices) * self._data_devices}"
                )
            placed = (place(a, self.strategy.mesh, None, DATA) for a in (x, y))
            return (*placed, len(waiting))

        for x, y in batches:
            waiting.append((np.asarray(x), np.asarray(y)))
            if len(waiting) == size:
                yield call()
                waiting.clear()
        if waiting:
            yield call()


def choose_strategy(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    inputs: jax.ShapeDtypeStruct,
    members: int,
    *,
    devices: Sequence[jax.Device] | None = None,
    data: int = 1,
    memory: int | None = None,
) -> Strategy:
    """Return a strategy that suits platform and memory.

    On CPUs every device trains one member at a time, and on accelerators stacks are as
    wide as fits into memory. Steps run in a loop on the device, but for models with a
    convolution that has no form made of matrix products, on CPUs: its gradient is slow
    in loops there.

    Args:
      model: as in `Population`.
      optimizer: as in `Population`.
      inputs: as in `Population`.
      members: the largest population to expect.
      devices: all of all hosts if None.
      data: devices that share every batch.
      memory: bytes per device to stay below; of an accelerator, nine tenths of what it
        has if None; on CPUs, a number makes stacks as wide as it allows.

    Raises:
      ValueError: not even one member fits.
    """
    mesh = device_mesh(devices, data)
    device = (jax.devices() if devices is None else devices)[0]
    on_cpu = device.platform == "cpu"
    narrow = Strategy(steps_per_call=_STEPS_PER_CALL, mesh=mesh)
    if on_cpu:
        program = _lower_step(Population(model, optimizer, inputs, narrow))
        if "stablehlo.convolution" in program.as_text():
            narrow = Strategy(mesh=mesh)
    if memory is None:
        if on_cpu:
            return narrow
        memory = int(0.9 * device.memory_stats()["bytes_limit"])
    need = bytes_per_device(Population(model, optimizer, inputs, narrow))
    if need > memory:
        raise ValueError(
            f"one member's training step needs {need} bytes per device, and {memory} "
            "are there; use smaller batches or fewer features"
        )
    wide = -(-min(members, memory // need * narrow.width) // narrow.width)
    while wide > 1:
        strategy = dataclasses.replace(narrow, width=wide * narrow.width)
        if bytes_per_device(Population(model, optimizer, inputs, strategy)) <= memory:
            return strategy
        wide //= 2
    return narrow


def bytes_per_device(population: Population) -> int:
    """Return what the compiled training step takes, arguments and results included."""
    sizes: Any = _lower_step(population).compile().memory_analysis()
    return (
        sizes.argument_size_in_bytes
        + sizes.output_size_in_bytes
        + sizes.temp_size_in_bytes
        - sizes.alias_size_in_bytes
    )


def _lower_step(population: Population) -> jax.stages.Lowered:
    width = population.strategy.width
    keys = jax.ShapeDtypeStruct((width, 2), jnp.uint32)
    orbits = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((width, *a.shape), a.dtype),
        encoding.orbit_variables(population.model, population.inputs),
    )
    stack = jax.eval_shape(
        functools.partial(_init, population=population), keys, orbits
    )
    steps = population.strategy.steps_per_call
    xs, ys = (
        jax.ShapeDtypeStruct((steps, *shape), dtype)
        for shape, dtype in (
            (population.inputs.shape, population.inputs.dtype),
            (population.inputs.shape[:1], jnp.int32),
        )
    )
    return _train.lower(stack, xs, ys, steps, None, population=population)


# --- what is compiled ---------------------------------------------------------------

_compiled = functools.partial(jax.jit, static_argnames=("population",))


@_compiled
def _init(keys, orbits, *, population: Population):
    x = jnp.zeros(population.inputs.shape, population.inputs.dtype)

    def one(key, orbits):
        key = jax.random.wrap_key_data(key)
        kind = {"model": population.model, "optimizer": population.optimizer}
        return encoding.init(key, orbits, inputs=x, **kind)

    return over_members(one, population.strategy, keys, orbits)


@_compiled
def _relax(stack, orbits, *, population: Population):
    one = functools.partial(
        encoding.relax, model=population.model, inputs=population.inputs
    )
    return over_members(one, population.strategy, stack, orbits)


@functools.partial(_compiled, donate_argnums=0)
def _train(stack, xs, ys, count, key, *, population: Population):
    """Take `count` steps; return the sums of their metrics."""

    def step_once(state, x, y, key):
        kind = {"model": population.model, "optimizer": population.optimizer}
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
def _evaluate(stack, x, y, weight, *, population: Population):
    """Return the sums of the metrics of a batch, over samples of weight one."""

    def one(state, x, y, weight):
        logits: Any = population.model.apply(state.variables, x)
        per_sample = training.classification_metrics(logits, y)
        counted = jax.tree.map(lambda m: jnp.where(weight > 0, m, 0), per_sample)
        return jax.tree.map(jnp.sum, counted)

    return over_members(one, population.strategy, stack, shared=(x, y, weight))
