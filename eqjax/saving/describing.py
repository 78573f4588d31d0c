"""Models and their settings as plain data, and back.

What is written is data alone, in words of JSON. What is read names classes of eqjax and
Flax, or such that the reader passes, and functions that compute with arrays; nothing is
imported that a file names.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from eqjax import constraints, fields, kernels, layers, models
from eqjax.exchange import plain
from eqjax.groups.closed import ClosedGroup, orthogonal
from eqjax.groups.group import Group
from eqjax.groups.standard import STANDARD, standard_group
from eqjax.morphism import regrouping

KIND = "is"  # the key that says what an object stands for
NUMBER = "#"  # that of a module
PLACES: dict[str, tuple[ModuleType, ...]] = {
    "eqjax": (layers, models, constraints, kernels, fields, regrouping, plain),
    "flax.linen": (nn,),
    "jax.nn": (jax.nn,),
    "jax.numpy": (jnp,),
}
# Other functions of jax.numpy read files, and some of these hold code.
ELEMENTWISE = "abs absolute arctan cos exp log maximum minimum sin sqrt square tanh"


def describe(value: Any) -> Any:
    """Return a model, or one of its settings, as plain data.

    A module that stands in several places is one module again when it is read.
    Initializers other than those of the class are left out: who reads a network does
    not draw its weights again.

    Raises:
      ValueError: there is no word for it; the message says what it is.
    """
    return _described(value, {})


def _described(value: Any, seen: dict[int, int]) -> Any:
    """Describe, with the numbers of the modules that were met before."""
    describe = functools.partial(_described, seen=seen)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return {KIND: type(value).__name__, "of": [describe(v) for v in value]}
    if isinstance(value, Mapping):
        pairs = [[describe(k), describe(v)] for k, v in value.items()]
        return {KIND: "dict", "of": pairs}
    if isinstance(value, Group):
        return _group(value)
    if isinstance(value, ClosedGroup):
        plane = {"dimension": 2} if value.dimension == 2 else {}
        return {KIND: "closed group", "name": value.name, **plane}
    if isinstance(value, lax.Precision):
        return {KIND: "precision", "name": value.name}
    if isinstance(value, functools.partial):
        parts = [value.func, value.args, value.keywords]
        return {KIND: "partial", "of": [describe(part) for part in parts]}
    if isinstance(value, slice):
        return {KIND: "slice", "of": [value.start, value.stop, value.step]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if id(value) in seen:
            return {KIND: "again", NUMBER: seen[id(value)]}
        number = {}
        if isinstance(value, nn.Module):
            number = {NUMBER: seen.setdefault(id(value), len(seen))}
        return {KIND: _class_name(type(value)), **number, **_settings(value, describe)}
    if (name := _dtype_name(value)) is not None:
        return {KIND: "dtype", "name": name}
    return {KIND: "function", "name": _function_name(value)}


def restore(
    data: Any, classes: Sequence[type] = (), made: dict[int, Any] | None = None
) -> Any:
    """Return what `describe` has described.

    Args:
      data: as read from JSON.
      classes: further classes that it may name, such as that of the model.
      made: modules that were made before, by their numbers.

    Raises:
      ValueError: it names a class or function that is not known.
    """
    made = {} if made is None else made
    again = functools.partial(restore, classes=classes, made=made)
    if not isinstance(data, Mapping):
        return data
    rest = {key: value for key, value in data.items() if key != KIND}
    kind = data[KIND]
    if kind in ("tuple", "list"):
        return {"tuple": tuple, "list": list}[kind](map(again, rest["of"]))
    if kind == "dict":
        return {again(key): again(value) for key, value in rest["of"]}
    if kind == "group":
        return _restored_group(**rest)
    if kind == "closed group":
        return orthogonal(rest.get("dimension", 3)).subgroup(rest["name"])
    if kind == "precision":
        return lax.Precision[rest["name"]]
    if kind == "partial":
        function, args, keywords = map(again, rest["of"])
        return functools.partial(function, *args, **keywords)
    if kind == "slice":
        return slice(*rest["of"])
    if kind == "dtype":
        dtype = jnp.dtype(rest["name"])
        return getattr(jnp, dtype.name, dtype)
    if kind == "function":
        return _found_function(rest["name"])
    number = rest.pop(NUMBER, None)
    if kind == "again":
        return made[number]
    found = _found_class(kind, classes)
    module = found(**{name: again(value) for name, value in rest.items()})
    if number is not None:
        made[number] = module
    return module


def _group(group: Group) -> dict[str, Any]:
    found: dict[str, Any] = {KIND: "group", "name": group.name}
    ambient = group.ambient
    known = [*STANDARD, *([ambient.family] if ambient.dimension == 2 else [])]
    named = [name for name in known if standard_group(name) == ambient]
    found["ambient"] = named[0] if named else ambient.matrices.tolist()
    return {**found, "elements": list(group.elements)}


def _restored_group(name: str, ambient: str | list, elements: Sequence[int]) -> Group:
    whole = standard_group(ambient) if isinstance(ambient, str) else Group(ambient)
    for group in (whole, *whole.subgroups):
        if group.elements == tuple(elements):
            return group
    raise ValueError(f"{whole!r} has no subgroup {name} of the elements {elements}")


def _settings(value: Any, describe: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the fields of a dataclass that are not as they are by default."""
    found = {}
    for field in dataclasses.fields(value):
        if not field.init or field.name == "parent":
            continue
        own = getattr(value, field.name)
        if field.default is not dataclasses.MISSING and _same(own, field.default):
            continue
        if field.name.endswith("_init") and callable(own):
            continue
        try:
            found[field.name] = describe(own)
        except ValueError as error:
            raise ValueError(f"{type(value).__name__}.{field.name}: {error}") from None
    return found


def _same(a: Any, b: Any) -> bool:
    return a is b or (type(a) is type(b) and bool(np.all(a == b)))


def _class_name(kind: type) -> str:
    for place, modules in PLACES.items():
        if any(getattr(module, kind.__name__, None) is kind for module in modules):
            return f"{place}.{kind.__name__}"
    return kind.__name__


def _found_class(name: str, classes: Sequence[type]) -> type:
    own = {each.__name__: each for each in classes}
    if name in own:
        return own[name]
    place, _, word = name.rpartition(".")
    for module in PLACES.get(place, ()):
        found = getattr(module, word, None)
        if inspect.isclass(found) and dataclasses.is_dataclass(found):
            return found
    raise ValueError(
        f"it holds a {name}, which eqjax does not know; pass the class, "
        f"eq.load(folder, classes=[{word}])"
    )


def _dtype_name(value: Any) -> str | None:
    """Return the name of a dtype, or of one of the scalar types of numpy and JAX."""
    scalar = isinstance(value, type) and issubclass(value, np.generic)
    of_jax = hasattr(value, "dtype") and type(value).__name__ == "_ScalarMeta"
    if isinstance(value, np.dtype) or scalar or of_jax or value in (float, int, bool):
        return np.dtype(value).name
    return None


def _function_name(value: Any) -> str:
    for place, modules in PLACES.items():
        for module in modules:
            for name, known in vars(module).items():
                if known is value and _allowed(place, name):
                    return f"{place}.{name}"
    raise ValueError(
        f"{value!r} cannot be saved as data; use a number, a string, a group, or a "
        "function of eqjax, flax.linen or jax.nn, or a class that builds it itself"
    )


def _allowed(place: str, name: str) -> bool:
    return place != "jax.numpy" or name in ELEMENTWISE.split()


def _found_function(name: str) -> Callable[..., Any]:
    place, _, word = name.rpartition(".")
    for module in PLACES.get(place, ()):
        found = vars(module).get(word)
        if callable(found) and _allowed(place, word):
            return found
    known = [f"{p}.{n}" for p, ms in PLACES.items() for m in ms for n in vars(m)]
    near = difflib.get_close_matches(name, known, 1, 0)[0]
    raise ValueError(f"it holds a function {name!r} that is not known; nearest: {near}")
