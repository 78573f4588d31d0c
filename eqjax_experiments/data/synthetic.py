"""Volumes and sequences made by a formula, each with a symmetry that is known.

Every sample is a shape in noise, moved by a random element of the group that its name
stands for. So the distribution of samples with a label is invariant under this group
exactly, and under no larger one: the other elements turn shapes of one class into those
of another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

import eqjax as eq
from eqjax.groups import standard_group
from eqjax_experiments.data.moving import moved
from eqjax_experiments.data.splits import Dataset, Split

TRAIN, VALIDATION, TEST = 2_000, 500, 500
SIDE = 8  # voxels per axis of a volume
LENGTH = 32  # points of a sequence
DRAWS = 0x73796E74  # of a stream apart from those that order batches: see `digits`

Draw = Callable[[np.random.Generator, int], np.ndarray]  # rng, class -> a sample


@dataclasses.dataclass(frozen=True)
class Synthetic:
    """A kind of samples.

    Attributes:
      what: in words, for the command line.
      ambient: name of the group that networks are tied to at first.
      group: name of the subgroup that the samples are invariant under.
      names: of the classes.
      noise: standard deviation at every point.
      draw: one sample without noise.
    """

    what: str
    ambient: str
    group: str
    names: tuple[str, str]
    noise: float
    draw: Draw

    @property
    def symmetry(self) -> eq.Group:
        """The group that the samples are invariant under."""
        return standard_group(self.ambient).subgroup(self.group)


def _blocks(
    corners: list[tuple[int, int, int]], rng: np.random.Generator
) -> np.ndarray:
    """Return a volume with cubes of 2 x 2 x 2 voxels, somewhere in it."""
    volume = np.zeros((SIDE,) * 3)
    cells = 2 * np.array(corners)
    cells -= cells.min(0)
    room = SIDE - 2 - cells.max(0)
    for i, j, k in cells + rng.integers(0, room + 1):
        volume[i : i + 2, j : j + 2, k : k + 2] = 1
    return volume


def _screw(rng: np.random.Generator, label: int) -> np.ndarray:
    """Return four cubes in a row that turns twice: a screw and its mirror image."""
    last = (1, 1, 1) if label else (1, 1, -1)
    return _blocks([(0, 0, 0), (1, 0, 0), (1, 1, 0), last], rng)


def _rod(rng: np.random.Generator, label: int) -> np.ndarray:
    """Return a rod along axis i, or across it."""
    along = np.eye(3, dtype=int)[1 if label else 0]
    return _blocks([tuple(n * along) for n in range(3)], rng)


def _pair(rng: np.random.Generator, label: int) -> np.ndarray:
    """Return two cubes that touch at a face, or at an edge."""
    return _blocks([(0, 0, 0), (1, label, 0)], rng)


def _motif(rng: np.random.Generator, label: int) -> np.ndarray:
    """Return a word followed by another, or by itself read backwards."""
    word, other = rng.normal(size=(2, 6))
    return _placed(np.concatenate([word, word[::-1] if label else other]), rng)


def _ramp(rng: np.random.Generator, label: int) -> np.ndarray:
    """Return a slow rise and a sudden fall, or the other way round."""
    ramp = np.linspace(0, 2, rng.integers(6, 13))
    return _placed(ramp[::-1] if label else ramp, rng)


def _placed(word: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sequence = np.zeros(LENGTH)
    begin = rng.integers(0, LENGTH - len(word) + 1)
    sequence[begin : begin + len(word)] = word
    return sequence


KINDS = {
    "chirality": Synthetic(
        "screws against their mirror images, in any of the 24 orientations",
        "Oh",
        "O",
        ("left", "right"),
        0.3,
        _screw,
    ),
    "axis": Synthetic(
        "rods along the first axis against rods across it",
        "Oh",
        "D4h:i",
        ("along", "across"),
        0.3,
        _rod,
    ),
    "isotropic": Synthetic(
        "pairs of cubes that share a face against pairs that share an edge",
        "Oh",
        "Oh",
        ("face", "edge"),
        0.3,
        _pair,
    ),
    "palindromes": Synthetic(
        "sequences with a word and its mirror image against two words",
        "flip",
        "D1",
        ("words", "palindrome"),
        0.1,
        _motif,
    ),
    "direction": Synthetic(
        "sequences with a slow rise and sudden fall against the other way round",
        "flip",
        "C1",
        ("rise", "fall"),
        0.3,
        _ramp,
    ),
}


def load(name: str, *, seed: int = 0) -> Dataset:
    """Return one of the kinds.

    Args:
      name: one of `KINDS`.
      seed: of all draws.

    Returns:
      2,000 training, 500 validation and 500 test samples, (8, 8, 8, 1) or (32, 1),
      normalized by mean and deviation of the training samples.
    """
    kind = KINDS[name]
    rng = np.random.default_rng([seed, DRAWS, list(KINDS).index(name)])
    count = TRAIN + VALIDATION + TEST
    labels = rng.integers(2, size=count)
    group = kind.symmetry
    samples = []
    for label in labels:
        sample = kind.draw(rng, int(label))
        sample = sample + kind.noise * rng.normal(size=sample.shape)
        matrix = group.matrices[rng.integers(group.order)]
        samples.append(moved(sample, matrix))
    images = np.stack(samples)[..., None].astype(np.float32)
    mean, deviation = images[:TRAIN].mean(), images[:TRAIN].std()
    images = (images - mean) / deviation
    cuts = np.cumsum([TRAIN, VALIDATION])
    parts = zip(np.split(images, cuts), np.split(labels, cuts), strict=True)
    train, validation, test = (Split(x, y.astype(np.int32)) for x, y in parts)
    return Dataset(
        train,
        validation,
        test,
        classes=2,
        source=f"{name}, seed {seed}",
        names=kind.names,
        mean=(float(mean),),
        deviation=(float(deviation),),
    )
