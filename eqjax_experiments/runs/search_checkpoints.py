"""The checkpoint of a search: a whole generation, written in a single step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
from flax import serialization

import eqjax as eq
from eqjax.search import Checkpoint, Score, SearchState
from eqjax.training import TrainState
from eqjax_experiments.runs import files


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all."""
    state = checkpoint.state
    tree = {
        "generation": state.generation,
        "diverged": state.diverged,
        "architectures": [list(a.names) for a in state.architectures],
        "scores": [[float(s.error), *map(int, s[1:])] for s in state.scores],
        "members": [
            serialization.to_state_dict(jax.device_get(m)) for m in checkpoint.members
        ],
    }
    files.write_atomically(path, files.pack_checkpoint(tree))


def load_checkpoint(
    path: Path,
    ambient: eq.Group,
    templates: Callable[[eq.Architecture], TrainState],
) -> Checkpoint:
    """Read a checkpoint.

    Args:
      path: of the file.
      ambient: group that the saved names are subgroups of.
      templates: architecture -> TrainState of the right structure (abstract will do).

    Raises:
      ValueError: the file is damaged.
    """
    tree = files.read_checkpoint(path)
    architectures = tuple(
        eq.Architecture.parse(ambient, names) for names in tree["architectures"]
    )
    members = tuple(
        serialization.from_state_dict(templates(architecture), saved)
        for architecture, saved in zip(architectures, tree["members"], strict=True)
    )
    scores = tuple(Score(*score) for score in tree["scores"])
    state = SearchState(tree["generation"], architectures, scores, tree["diverged"])
    return Checkpoint(state, members)
