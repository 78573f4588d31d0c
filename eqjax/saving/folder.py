"""A trained network in a folder: what it is, its weights, and how to use it.

| file | |
|---|---|
| `network.json` | the model with its settings, preprocessing, class names, versions |
| `weights.safetensors` | variables, and the optimizer's state if it was given |

Reading runs no code that the folder brings.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import save_file

from eqjax.constraints.collections import PARAMS
from eqjax.groups.checks import check_array, check_path
from eqjax.groups.text import Echoed, Rows
from eqjax.morphism.variables import morph
from eqjax.saving.describing import describe, restore
from eqjax.saving.prediction import (
    Prediction,
    Preprocessing,
    class_names_of,
    preprocessing_of,
    softmax,
)
from eqjax.saving.storage import (
    DESCRIPTION,
    DIGEST,
    FORMAT,
    VERSION,
    WEIGHTS,
    beside,
    digest,
    plain_array,
    read,
    restored_array,
)
from eqjax.training.checks import check_model, check_variables

BATCH = 256  # images that are predicted at a time
VARIABLES, OPTIMIZER = "variables", "optimizer"


@dataclasses.dataclass(frozen=True, repr=False)
class Saved(Echoed):
    """A network that was read from a folder.

    The model reads what `preprocessing` makes of pixels: `predict(pixels)` does both,
    and `model.apply(variables, preprocessing(pixels))` gives the logits.

    Attributes:
      model: the linen module.
      variables: of the model.
      preprocessing: of the images that `predict` takes.
      class_names: empty where none were saved.
      extra: what was saved besides.
      versions: of the packages that it was saved with.
      folder: where it was.
      optimizer_leaves: the optimizer's state by paths, see `optimizer_state`.
    """

    model: nn.Module
    variables: dict[str, Any]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    extra: dict[str, Any]
    versions: dict[str, str]
    folder: Path
    optimizer_leaves: dict[str, np.ndarray]

    def parts(self) -> Sequence[str | Rows]:
        """Return what was saved, without the weights themselves."""
        leaves = jax.tree.leaves(self.variables.get(PARAMS, {}))
        rows = {
            "model": type(self.model).__name__,
            "groups": str(getattr(self.model, "architecture", "")),
            "parameters": f"{sum(map(np.size, leaves)):,}",
            "classes": ", ".join(self.class_names),
            "preprocessing": str(self.preprocessing),
            **{name: str(value) for name, value in self.extra.items()},
            "versions": ", ".join(f"{n} {v}" for n, v in self.versions.items()),
        }
        known = [(name, value) for name, value in rows.items() if value]
        return [f"Saved in {self.folder}", Rows([("", "network"), *known])]

    def logits(self, images: Any) -> np.ndarray:
        """Return what the model makes of prepared images, (n, classes)."""
        apply = jax.jit(self.model.apply)  # the model need not be hashable
        parts = [
            np.asarray(apply(self.variables, images[begin : begin + BATCH]))
            for begin in range(0, len(images), BATCH)
        ]
        return np.concatenate(parts)

    def predict(self, images: Any, *, prepared: bool = False) -> Prediction:
        """Return class names and probabilities of images.

        Args:
          images: (n, height, width, channels), or one of them: bytes, or numbers in
            [0, 1], as `preprocessing` takes them.
          prepared: they are what the model reads already, as the images of a loaded
            data set are.
        """
        ready = np.asarray(images) if prepared else self.preprocessing(images)
        logits = self.logits(ready)
        names = class_names_of(self.class_names, logits.shape[-1])
        return Prediction(names, softmax(logits))

    def optimizer_state(self, optimizer: optax.GradientTransformation) -> Any:
        """Return the state that was saved, for the optimizer that it belongs to.

        Raises:
          ValueError: none was saved, or it is that of another optimizer.
        """
        params = jax.tree.map(jnp.asarray, self.variables[PARAMS])
        template = jax.eval_shape(optimizer.init, params)
        paths, structure = jax.tree_util.tree_flatten_with_path(template)
        names = [jax.tree_util.keystr(path) for path, _ in paths]
        if set(names) != set(self.optimizer_leaves):
            raise ValueError(
                f"{self.folder} holds the optimizer's state "
                f"{', '.join(self.optimizer_leaves) or '(none)'}; this optimizer has "
                f"{', '.join(names)}"
            )
        leaves = []
        for name, (_, kind) in zip(names, paths, strict=True):
            leaf = self.optimizer_leaves[name]
            if leaf.shape != kind.shape:
                raise ValueError(
                    f"{name} of the optimizer has shape {leaf.shape} in {self.folder}, "
                    f"{kind.shape} in this one"
                )
            leaves.append(jnp.asarray(leaf, kind.dtype))
        return jax.tree.unflatten(structure, leaves)


def save(
    folder: str | os.PathLike[str],
    model: nn.Module,
    variables: Mapping[str, Any],
    *,
    optimizer_state: Any = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    class_names: Sequence[str] = (),
    inputs: Any = None,
    **extra: Any,
) -> None:
    """Save a trained network, so that it is read without knowing how it was built.

    The folder is written whole or not at all, and takes the place of a network that was
    saved there before. Initializers are not kept, and boxes of partitioned variables
    (`nn.Partitioned`) are taken off.

    Args:
      folder: that is to hold it.
      model: of eqjax and Flax, or of a class of yours, whose fields are numbers,
        strings, groups, constraints, models, and functions of eqjax, Flax and `jax.nn`.
      variables: of the model.
      optimizer_state: of optax, if training is to go on.
      preprocessing: what is done to pixels: a `Preprocessing`, or its fields by name.
      class_names: one for every output.
      inputs: a batch of inputs, of which shape and dtype are kept; `load` needs them to
        relax the network into another.
      **extra: whatever JSON can hold.

    Raises:
      ValueError: the model cannot be described, or the folder holds something else.
      OSError: it cannot be written, as on a full disk; what was there before stays.

    >>> import tempfile
    >>> import eqjax as eq
    >>> layer = eq.LiftingConv(2, 3, group=eq.dihedral(4).subgroup("D1:i"))
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder + "/layer", layer, variables, note="untrained")
    ...     saved = eq.load(folder + "/layer")
    >>> saved.model == layer, saved.extra
    (True, {'note': 'untrained'})
    """
    check_path("folder", folder)
    check_model("model", model)
    if inputs is not None:
        check_array("inputs", inputs)
    check_variables("variables", variables)
    if isinstance(class_names, str):
        raise TypeError(f"class_names must be several strings, got {class_names!r}")
    path = Path(folder)
    if path.exists() and not (path / DESCRIPTION).exists() and any(path.iterdir()):
        raise ValueError(f"{path} holds something else; save into another folder")
    nested = flax.core.unfreeze(nn.meta.unbox(dict(variables)))
    arrays = {
        f"{VARIABLES}/{'/'.join(p)}": np.asarray(v)
        for p, v in flatten_dict(nested).items()
    }
    leaves = jax.tree_util.tree_flatten_with_path(nn.meta.unbox(optimizer_state))[0]
    for place, leaf in leaves:
        name = jax.tree_util.keystr(place)
        arrays[f"{OPTIMIZER}/{name}"] = np.asarray(leaf)
    try:
        text = {
            "format": FORMAT,
            "version": VERSION,
            "model": describe(model),
            "inputs": None
            if inputs is None
            else [list(inputs.shape), inputs.dtype.name],
            "preprocessing": dataclasses.asdict(preprocessing_of(preprocessing)),
            "class_names": list(class_names),
            "extra": extra,
            "versions": {n: version(n) for n in ("eqjax", "jax", "flax", "optax")},
            "dtypes": {name: array.dtype.name for name, array in arrays.items()},
        }
        json.dumps(text)
    except TypeError as error:
        raise ValueError(f"what is saved besides must be plain data: {error}") from None
    part, old = beside(path, "part"), beside(path, "old")
    _put_back(path, old)
    shutil.rmtree(part, ignore_errors=True)
    try:
        _write(part, text, {name: plain_array(a) for name, a in arrays.items()})
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if path.exists():
        path.replace(old)
    part.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, text: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a description and arrays into a new folder."""
    folder.mkdir(parents=True)
    try:
        save_file(arrays, folder / WEIGHTS)
    except SafetensorError as error:
        raise OSError(f"{folder / WEIGHTS} cannot be written: {error}") from error
    text["sha256"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    text[DIGEST] = digest(text)
    (folder / DESCRIPTION).write_text(json.dumps(text, indent=1) + "\n")


def load(
    folder: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    inputs: Any = None,
    classes: Sequence[type] = (),
) -> Saved:
    """Read a network that `eq.save` has written.

    Args:
      folder: that holds it.
      model: the same network with other groups or constraints, which the variables are
        carried to by `eq.morph`; the saved one if None.
      inputs: of that model, where none were saved; shapes are enough.
      classes: of models that are yours, where it holds some.

    Returns:
      Model, variables, and `predict`.

    Raises:
      FileNotFoundError: there is no such folder, or a file of it is missing.
      ValueError: the folder holds something else, or is damaged, or was written by a
        newer eqjax; or the variables cannot be carried to the model.

    >>> import tempfile
    >>> import eqjax as eq
    >>> D4 = eq.dihedral(4)
    >>> layer, x = eq.LiftingConv(2, 3, group=D4), jnp.ones((1, 8, 8, 3))
    >>> variables = layer.init(jax.random.key(0), x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     eq.save(folder + "/layer", layer, variables, inputs=x)
    ...     C4 = layer.clone(group=D4.subgroup("C4"))
    ...     relaxed = load(folder + "/layer", model=C4)
    >>> relaxed.variables["params"]["kernel"].shape
    (18, 3, 2)
    """
    check_path("folder", folder)
    path = Path(folder)
    text, stored = read(path)
    changed = text.get(DIGEST, "") not in ("", digest(text))
    try:
        own = restore(text["model"], classes)
        kept = text["inputs"]
        if inputs is None and kept is not None:
            inputs = jax.ShapeDtypeStruct(tuple(kept[0]), jnp.dtype(kept[1]))
        prepared = Preprocessing(**text["preprocessing"])
        arrays = {n: restored_array(a, text["dtypes"][n]) for n, a in stored}
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path / DESCRIPTION} is damaged: {error!r}") from error
    except ValueError as error:
        note = f" ({DESCRIPTION} is not what was written)" if changed else ""
        raise ValueError(f"{path}: {error}{note}") from error
    if changed:
        raise ValueError(
            f"{path / DESCRIPTION} is damaged: it is not what was written; put a copy "
            f"back, or take its {DIGEST!r} out if you have changed it yourself"
        )
    variables = unflatten_dict(
        {
            tuple(name.split("/")[1:]): jnp.asarray(array)
            for name, array in arrays.items()
            if name.startswith(f"{VARIABLES}/")
        }
    )
    if model is not None and model != own:
        variables = _carried(path, variables, own, model, inputs)
        own = model
    return Saved(
        own,
        variables,
        prepared,
        tuple(text["class_names"]),
        text["extra"],
        text["versions"],
        path,
        {
            name.removeprefix(f"{OPTIMIZER}/"): array
            for name, array in arrays.items()
            if name.startswith(f"{OPTIMIZER}/")
        },
    )


def _carried(
    path: Path, variables: dict[str, Any], own: nn.Module, model: nn.Module, inputs: Any
) -> dict[str, Any]:
    """Return the variables for another model."""
    if inputs is None:
        raise ValueError(
            f"{path} was saved without inputs=; pass them to carry it to another model"
        )
    try:
        return morph(variables, source=own, target=model, inputs=inputs)[0]
    except ValueError as error:
        raise ValueError(
            f"{error}; {path} holds\n  {own!r}\nand it is to become\n  {model!r}"
        ) from error


def _put_back(path: Path, old: Path) -> None:
    """Undo what a save that was killed between two renames has left."""
    if old.exists() and not path.exists():
        old.replace(path)
