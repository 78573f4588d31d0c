"""The architecture as data: groups as arrays, parameters of one shape for all groups.

A model's groups are static: each is a program of its own. Encoded, its orbit tables are
variables, the collection `orbits`, and every tied parameter is padded to as many orbits
as the smallest group has, one per entry. Members that differ in groups alone then have
one structure: they stack, one compiled program trains any of them, and a relaxation
changes numbers, not shapes. `model.apply` takes both forms; with `orbits`, it makes no
difference which groups the model itself has.

Members at rest are compact, without padding and tables: so they are counted and saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from eqjax.constraints.base import Tied
from eqjax.constraints.collections import ORBITS, PARAMS
from eqjax.kernels.orbits import OrbitTable
from eqjax.kernels.steered import SteeredTable
from eqjax.kernels.tied import Tie
from eqjax.morphism.carrying import carry, value_weight
from eqjax.morphism.matching import Move, Path, TiedModel, check_shape, show, tied_model
from eqjax.morphism.moments import carry_optimizer, owner_of, restart_optimizer
from eqjax.training.state import TrainState, pack_state

_PER_ORBIT = {*OrbitTable.PER_ORBIT, *SteeredTable.PER_ORBIT}


def orbit_variables(
    model: nn.Module, inputs: Any, call_kwargs: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the collection `orbits` of a model, padded for every group.

    Args:
      model: any linen model that holds eqjax layers.
      inputs: an input of the model, or a tuple of call arguments; shapes are enough.
      call_kwargs: keyword arguments of the call, such as {"train": False}.

    Returns:
      Nested as the parameters are; for each tied parameter a dictionary of the int32
      arrays of its table, such as index, size and representative.

    Raises:
      ValueError: the model stacks layers by `nn.scan` or `nn.vmap`.
    """
    found = _checked(model, inputs, call_kwargs)
    flat = {}
    for path, tie in found.ties.items():
        table = tie.numbered
        for name, array in table.arrays.items():
            padded = name in table.PER_ORBIT
            own = _pad(array, table.index.size) if padded else array
            flat[(*path[1:], name)] = own
    return unflatten_dict(flat)


def init(
    key: jax.Array,
    orbits: Mapping[str, Any],
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
) -> TrainState:
    """Return the encoded state of an untrained member; tables may be traced.

    Args:
      key: of the weights; the member equals the compact model drawn with this key.
      orbits: the member's tables, as from `orbit_variables`.
      model: the model in any groups.
      optimizer: any optax transformation.
      inputs: an input, or a tuple of call arguments.
      call_kwargs: keyword arguments of the call.
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)

    def call(scope):  # as `model.init` does, but with orbits there
        return model.clone(parent=scope)(*arguments, **(call_kwargs or {}))

    initialize = flax.core.apply(
        call,
        mutable=flax.core.DenyList((ORBITS, "intermediates")),
        flags={"initializing": True},
    )
    _, drawn = initialize({ORBITS: orbits}, rngs={"params": key})
    variables = {**nn.meta.unbox(drawn), ORBITS: orbits}
    return pack_state(variables, optimizer.init(variables[PARAMS]))


def encode(
    state: TrainState,
    *,
    model: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
) -> TrainState:
    """Pad a compact state and add its orbit tables, as numpy arrays.

    Args:
      state: of a model with these groups.
      model: the model.
      inputs: as in `orbit_variables`.
      call_kwargs: as in `orbit_variables`.

    Raises:
      ValueError: the state does not fit the model; the message names the path.
    """
    found = _checked(model, inputs, call_kwargs)
    state = nn.meta.unbox(state)
    _check_params(state, found.shapes)
    state = _map_tied(
        lambda leaf, tie: _pad(leaf, tie.numbered.most),
        state,
        found,
        lambda tie: tie.table.num_orbits,
    )
    tables = orbit_variables(model, inputs, call_kwargs)
    return state._replace(collections={**state.collections, ORBITS: tables})


def decode(
    state: TrainState,
    *,
    model: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
) -> TrainState:
    """Return the compact state of an encoded one, as numpy arrays: undo `encode`.

    Args:
      state: encoded, with the tables of this model.
      model: the model with the member's groups.
      inputs: as in `orbit_variables`.
      call_kwargs: as in `orbit_variables`.

    Raises:
      ValueError: the tables are those of other groups; the message names the path.
    """
    found = _checked(model, inputs, call_kwargs)
    tables = flatten_dict(flax.core.unfreeze(state.collections[ORBITS]))
    for path, tie in found.ties.items():
        index = tables[(*path[1:], "index")]
        if not np.array_equal(index, tie.numbered.index):
            raise ValueError(
                f"{show(path)} is not tied along the orbits of {tie.table.group!r}; "
                "decode with the model whose groups the member has"
            )
    state = _map_tied(
        lambda leaf, tie: leaf[: tie.table.num_orbits].copy(),
        state,
        found,
        lambda tie: tie.numbered.most,
    )
    rest = {name: v for name, v in state.collections.items() if name != ORBITS}
    state = state._replace(collections=rest)
    _check_params(state, found.shapes)
    return state


def check_encodable(
    model: nn.Module, inputs: Any, call_kwargs: Mapping[str, Any] | None = None
) -> None:
    """Raise unless every tied layer of a model finds its orbits.

    Raises:
      ValueError: a layer is stacked by `nn.scan` or `nn.vmap`, or hidden in another
        lifted module that does not pass the collection `orbits` on.
    """
    found = _checked(model, inputs, call_kwargs)
    longer = jax.tree_util.tree_map_with_path(  # than any model would have them
        lambda keys, a: np.append(a, 0) if keys[-1].key in _PER_ORBIT else a,
        orbit_variables(model, inputs, call_kwargs),
    )
    none = optax.GradientTransformation(lambda params: (), lambda *a: a)

    def draw(x):
        key = jax.random.key(0)
        kind = {"model": model, "optimizer": none, "inputs": x}
        return init(key, longer, call_kwargs=call_kwargs, **kind).params

    try:
        params = flatten_dict(jax.eval_shape(draw, inputs))
    except flax.errors.FlaxError as error:
        raise ValueError(
            f"a layer does not take its groups from data: {error}"
        ) from None
    for path, tie in found.ties.items():
        per_orbit = tie.numbered.most // tie.numbered.index.size
        if params[path[1:]].shape[0] != tie.numbered.most + per_orbit:
            raise ValueError(
                f"{show(path)} does not see the collection {ORBITS!r}; let lifted "
                "modules pass it on, as by variable_axes={'orbits': None}"
            )


def relax(
    state: TrainState,
    orbits: Mapping[str, Any],
    *,
    model: nn.Module,
    inputs: Any,
    call_kwargs: Mapping[str, Any] | None = None,
    restart: bool = False,
) -> TrainState:
    """Carry an encoded member to other groups: `morph` and `morph_optimizer`, traced.

    Args:
      state: encoded.
      orbits: the tables of the groups to go to, as from `orbit_variables`.
      model: the model in any groups.
      inputs: as in `orbit_variables`.
      call_kwargs: as in `orbit_variables`.
      restart: what the optimizer keeps of a layer that changes is zero, instead of
        carried: as if it had never taken a step.

    Returns:
      The encoded state over the new groups; parameters whose table stays are kept bit
      by bit.
    """
    found = _checked(model, inputs, call_kwargs)
    before = flatten_dict(flax.core.unfreeze(state.collections[ORBITS]))
    after = flatten_dict(flax.core.unfreeze(dict(orbits)))
    moves, same = {}, {}
    for path, tie in found.ties.items():
        old, new = (_traced_tie(tables, path, tie) for tables in (before, after))
        moves[path] = Move(old, new, stacked=0)
        same[path[1:]] = jnp.all(old.numbered.index == new.numbered.index)
    params = flatten_dict(flax.core.unfreeze(state.params))
    moved: dict[Path, jax.Array] = {
        path: carry(leaf, moves[PARAMS, *path], value_weight) if path in same else leaf
        for path, leaf in params.items()
    }
    shapes = {path: leaf.shape for path, leaf in params.items()}
    opt_state = carry_optimizer(state.opt_state, shapes, moves)
    if restart:
        opt_state = restart_optimizer(opt_state, shapes, moves)

    def keep(keys: tuple, old: jax.Array, new: jax.Array) -> jax.Array:
        path = owner_of(keys, params)
        return jnp.where(same[path], old, new) if path in same else new

    relaxed = state._replace(params=unflatten_dict(moved), opt_state=opt_state)
    kept = jax.tree_util.tree_map_with_path(keep, state, relaxed)
    return kept._replace(collections={**state.collections, ORBITS: orbits})


def _traced_tie(tables: dict[Path, Any], path: Path, tie: Tie) -> Tie:
    names = tie.numbered.arrays
    arrays = {name: jnp.asarray(tables[(*path[1:], name)]) for name in names}
    return Tie(tie.numbered.of_data(arrays), tie.parametrization)


def _checked(
    model: nn.Module, inputs: Any, call_kwargs: Mapping[str, Any] | None
) -> TiedModel:
    found = tied_model(model, inputs, call_kwargs)
    for path, layer in found.layers.items():
        if layer.constraint != Tied():
            raise ValueError(
                f"{show(path)} has the constraint {type(layer.constraint).__name__}; "
                "only the group of a Tied layer can be data"
            )
    for path, axes in found.stacked.items():
        if axes:
            raise ValueError(
                f"{show(path)} is stacked by nn.scan or nn.vmap, whose layers share "
                "one group; write the layers out to give each a group of its own"
            )
    return found


def _check_params(state: TrainState, shapes: Mapping[Path, Any]) -> None:
    params = flatten_dict(flax.core.unfreeze(state.params))
    expected = {path[1:]: s for path, s in shapes.items() if path[0] == PARAMS}
    for path in params.keys() ^ expected.keys():
        side = "state" if path in expected else "model"
        raise ValueError(f"the {side} has no parameter {show(path)}")
    for path, leaf in params.items():
        check_shape(path, leaf, expected[path])


def _map_tied(
    fn: Callable[[np.ndarray, Tie], np.ndarray],
    state: TrainState,
    found: TiedModel,
    length: Callable[[Tie], int],
) -> TrainState:
    """Apply a function to tied parameters and what the optimizer keeps of them.

    All of them must have the shape of their parameter, its first axis of this length.
    """
    params = {p[1:]: s.shape for p, s in found.shapes.items() if p[0] == PARAMS}

    def change(keys: tuple, leaf: Any) -> np.ndarray:
        path = owner_of(keys, params)
        tie = found.ties.get((PARAMS, *path))
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
            raise ValueError(
                f"{jax.tree_util.keystr(keys)} is a typed random key, which has no "
                "encoding; keep jax.random.key_data of it"
            )
        if tie is None:
            return np.asarray(leaf)
        if np.shape(leaf) == () and not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return np.asarray(leaf)  # a flag, such as that of optax.zero_nans
        shape = (length(tie), *found.shapes[PARAMS, *path].shape[1:])
        if np.shape(leaf) != shape:
            raise ValueError(
                f"{jax.tree_util.keystr(keys)} has shape {np.shape(leaf)}, expected "
                f"{shape}, that of its parameter: what an optimizer keeps in other "
                "shapes has no encoding"
            )
        return fn(np.asarray(leaf), tie)

    moved, opt_state = jax.tree_util.tree_map_with_path(
        change, (flax.core.unfreeze(state.params), _unfreeze(state.opt_state))
    )
    collections = jax.tree.map(np.asarray, flax.core.unfreeze(state.collections))
    return state._replace(
        params=moved,
        collections=collections,
        opt_state=opt_state,
        step=jax.device_get(state.step),
    )


def _unfreeze(tree: Any) -> Any:
    """Replace the frozen dictionaries anywhere in a tree."""
    frozen = lambda node: isinstance(node, flax.core.FrozenDict)  # noqa: E731
    return jax.tree.map(flax.core.unfreeze, tree, is_leaf=frozen)


def _pad(array: np.ndarray, length: int) -> np.ndarray:
    """Pad the first axis with zeros."""
    return np.pad(array, [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)])
