"""The layers that a model calls, and each of them called with inputs of our choice.

A layer is a module that calls no other: those of eqjax and Flax as they are, whatever
they hold inside. What happens between them is called the functions.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.core.tracers import current_trace

Key = tuple[tuple[str, ...], int]  # path of a layer, and how often it was called before
Arrays = list[jax.Array]
Apply = Callable[..., Any]  # (variables, *arguments) -> output


@dataclasses.dataclass(frozen=True)
class Tree:
    """The arrays of a tree, and what is needed to put others in their place."""

    arrays: Arrays
    fill: Callable[[Arrays], Any]

    @classmethod
    def of(cls, tree: Any) -> Tree:
        """Take a tree apart."""
        leaves, structure = jax.tree.flatten(tree)
        places = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]

        def fill(arrays: Arrays) -> Any:
            new = list(leaves)
            for i, array in zip(places, arrays, strict=True):
                new[i] = array
            return jax.tree.unflatten(structure, new)

        return cls([leaves[i] for i in places], fill)


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a layer.

    Attributes:
      key: which one.
      layer: the module, unbound.
      inputs: its arguments.
      output: what it returned.
    """

    key: Key
    layer: nn.Module
    inputs: Tree
    output: Tree


def record(apply: Apply, *arguments: Any) -> tuple[list[Call], Tree]:
    """Return the calls of all layers in their order, and the model's output."""
    calls: list[Call] = []

    def on_call(key, module, call, args, kwargs):
        before = len(calls)
        output = call(*args, **kwargs)
        if len(calls) == before:  # it called no other
            layer = module.clone(parent=None)
            trees = Tree.of((args, kwargs)), Tree.of(output)
            calls.append(Call(key, layer, *trees))
        return output

    return calls, Tree.of(_watched(apply, on_call, arguments))


def play(
    apply: Apply, calls: list[Call], arguments: tuple, inputs: list, outputs: list
) -> tuple[list[Arrays], list[Arrays], Arrays]:
    """Run a model while every layer is given its inputs, and outputs are replaced.

    Args:
      apply: the model.
      calls: as recorded.
      arguments: of the model.
      inputs: the arrays that each layer is called with.
      outputs: the arrays that the model goes on with in place of its output.

    Returns:
      What the functions before each layer made of the outputs that were put in; what
      each layer made of its inputs; and the model's output.
    """
    position = {call.key: i for i, call in enumerate(calls)}
    reached: list[Arrays] = [[] for _ in calls]
    made: list[Arrays] = [[] for _ in calls]

    def on_call(key, module, call, args, kwargs):
        if key not in position:
            return call(*args, **kwargs)
        i = position[key]
        reached[i] = Tree.of((args, kwargs)).arrays
        own_args, own_kwargs = calls[i].inputs.fill(inputs[i])
        made[i] = Tree.of(call(*own_args, **own_kwargs)).arrays
        return calls[i].output.fill(outputs[i])

    output = _watched(apply, on_call, arguments)
    return reached, made, Tree.of(output).arrays


def _watched(apply: Apply, on_call: Callable, arguments: tuple) -> Any:
    """Run a model, and hand over every call of a module that is not inside a layer."""
    level, inside = current_trace(), False
    counts: collections.Counter = collections.Counter()

    def intercept(call, args, kwargs, context):
        nonlocal inside
        module = context.module
        # What a lifted module holds, as by nn.scan, runs elsewhere: no array gets out.
        elsewhere = inside or current_trace() != level
        if context.method_name != "__call__" or elsewhere:
            return call(*args, **kwargs)
        key = module.path, counts[module.path]
        counts[module.path] += 1
        inside = _is_layer(module)
        try:
            return on_call(key, module, call, args, kwargs)
        finally:
            inside = False

    with nn.intercept_methods(intercept):
        return apply(*arguments)


def _is_layer(module: nn.Module) -> bool:
    where = type(module).__module__
    return where.startswith(("eqjax.layers", "flax.")) and not isinstance(
        module, nn.Sequential
    )


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray) and not jax.dtypes.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )
