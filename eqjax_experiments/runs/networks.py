"""The trained networks of a run, each in a folder of its own, and the best of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import eqjax as eq
from eqjax.saving import Saved
from eqjax_experiments.data.splits import Dataset

FOLDER = "networks"


def inside(run: Path) -> Path:
    """Return the folder of the networks of a run."""
    return run / FOLDER


def save(
    folder: Path,
    model: nn.Module,
    variables: Mapping[str, Any],
    dataset: Dataset,
    inputs: jax.ShapeDtypeStruct,
    **measured: Any,
) -> None:
    """Save a network with what it takes to use it.

    Args:
      folder: of this network.
      model: called as model(images).
      variables: of the model.
      dataset: that it was trained on, for classes and preprocessing.
      inputs: shape of a batch.
      **measured: errors and the like.
    """
    eq.save(
        folder,
        model,
        jax.tree.map(np.asarray, variables),
        preprocessing=dataset.preprocessing,
        class_names=dataset.class_names,
        inputs=inputs,
        data=dataset.source,
        **measured,
    )


def every(run: Path) -> dict[str, Saved]:
    """Return all networks of a run, by the path of their folder within it."""
    folders = sorted(_folders(run))
    return {str(folder.relative_to(run)): eq.load(folder) for folder in folders}


def _folders(run: Path) -> Iterator[Path]:
    """Yield the folders of all networks, but of none that is being written."""
    for folder, inside, names in os.walk(run):  # what vanishes meanwhile is no error
        inside[:] = [name for name in inside if not name.startswith(".")]
        if "network.json" in names:
            yield Path(folder)


def find(run: Path, member: str | None = None) -> Saved:
    """Return a network of a run, or the one that a folder holds itself.

    Args:
      run: folder of the run, or of a saved network.
      member: which network, such as "member-2" or "retrained/networks/trained"; that of
        least validation error if None.

    Raises:
      FileNotFoundError: there is none; the message names those that there are.
    """
    if (run / "network.json").exists() and member is None:
        return eq.load(run)
    folders = sorted(_folders(run))
    if not folders:
        raise FileNotFoundError(
            f"{run} holds no trained network; is the run at its end? "
            f"It continues by its command with --name {run.name} --resume"
        )
    if member is None:
        return min(every(run).values(), key=_validation_error)
    names = {str(folder.relative_to(run)): folder for folder in folders}
    alike = [f for name, f in names.items() if member in (name, f.name)]
    if member in names or len(alike) == 1:
        return eq.load(names.get(member, alike[0]))
    raise FileNotFoundError(
        f"{run} has no network {member!r}, or several; there are {', '.join(names)}"
    )


def _validation_error(network: Saved) -> float:
    """Return what networks are chosen by; one that diverged or has none comes last."""
    error = network.extra.get("validation_error")
    return np.inf if error is None else error
