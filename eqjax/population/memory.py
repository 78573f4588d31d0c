"""How many members of a population a device holds, and the strategy that follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

from eqjax.groups.checks import check_whole
from eqjax.population.devices import Strategy, device_mesh
from eqjax.population.stack import (
    CLASS_NUMBER,
    Population,
    lower_evaluation,
    lower_training,
)
from eqjax.training.losses import LossFn, cross_entropy

_STEPS_PER_CALL = 8  # by default: a call then costs little beside its steps


def choose_strategy(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    inputs: jax.ShapeDtypeStruct,
    members: int,
    *,
    devices: Sequence[jax.Device] | None = None,
    data: int = 1,
    memory: int | None = None,
    loss_fn: LossFn = cross_entropy,
    target: jax.ShapeDtypeStruct = CLASS_NUMBER,
) -> Strategy:
    """Return a strategy that suits platform and memory.

    On CPUs every device trains one member at a time, and on accelerators stacks are as
    wide as fits into memory. Steps run in a loop on the device, except for models
    with a convolution that has no form made of matrix products, on CPUs: its gradient
    is slow in loops there.

    Args:
      model: as in `Population`.
      optimizer: as in `Population`, where one made anew is compiled anew.
      inputs: as in `Population`.
      members: the largest population to expect.
      devices: all of all hosts if None.
      data: devices that share every batch.
      memory: bytes per device to stay below; of an accelerator, nine tenths of what it
        has if None; on CPUs, a number makes stacks as wide as it allows.
      loss_fn: as in `Population`.
      target: shape and dtype of the target of one sample; a class number by default.

    Raises:
      ValueError: not even one member fits, or there is none.

    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=())
    >>> x = jax.ShapeDtypeStruct((2, 8, 8, 1), float)
    >>> choose_strategy(model, optax.sgd(0.1), x, members=1).width >= 1
    True
    """
    check_whole("members", members)
    mesh = device_mesh(devices, data)
    here = jax.process_index()
    mine = [d for d in devices or jax.devices() if d.process_index == here]
    on_cpu = mine[0].platform == "cpu"
    narrow = Strategy(steps_per_call=_STEPS_PER_CALL, mesh=mesh)

    def population(strategy: Strategy) -> Population:
        return Population(model, optimizer, inputs, strategy, loss_fn)

    if on_cpu:
        program = lower_training(population(narrow), target)
        if "stablehlo.convolution" in program.as_text():
            narrow = Strategy(mesh=mesh)
    if memory is None:
        if on_cpu:
            return narrow
        memory = _usable_memory(mine)
    need = bytes_per_device(population(narrow), target)
    if need > memory:
        raise ValueError(
            f"one member's training step needs {need} bytes per device, and {memory} "
            "are there; use smaller batches or fewer features"
        )
    wide = -(-min(members, memory // need * narrow.width) // narrow.width)
    while wide > 1:
        strategy = dataclasses.replace(narrow, width=wide * narrow.width)
        if bytes_per_device(population(strategy), target) <= memory:
            return strategy
        wide //= 2
    return narrow


def _usable_memory(devices: Sequence[jax.Device]) -> int:
    """Return nine tenths of the memory of the smallest device of all hosts."""
    stats = [device.memory_stats() for device in devices]
    if not all(stats):
        raise ValueError(f"{devices[0]} does not tell its memory; pass memory=")
    smallest = np.float64(min(s["bytes_limit"] for s in stats))  # the same everywhere
    return int(0.9 * np.min(multihost_utils.process_allgather(smallest)))


def bytes_per_device(
    population: Population, target: jax.ShapeDtypeStruct = CLASS_NUMBER
) -> int:
    """Return what training and evaluation take at most, arguments and results in."""
    programs = lower_training(population, target), lower_evaluation(population, target)
    sizes: list[Any] = [p.compile().memory_analysis() for p in programs]
    return max(
        s.argument_size_in_bytes
        + s.output_size_in_bytes
        + s.temp_size_in_bytes
        - s.alias_size_in_bytes
        for s in sizes
    )
