"""Every data set by its name, and your own by their path."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import numpy as np

import eqjax as eq
from eqjax_experiments.data import cache, digits, synthetic
from eqjax_experiments.data.cache import Contents, Source
from eqjax_experiments.data.moving import moved
from eqjax_experiments.data.splits import Dataset

ROOT_VARIABLE = "EQJAX_DATA"

# The module of every named data set. It has a function `source(name, folder, size)`,
# which returns a `cache.Source`, and `HOLDS`: by name, what belongs into the folder.
# Modules are imported when they are asked for: some need h5py or Pillow.
DATASETS = {
    "mnist": "idx",
    "fashion": "idx",
    "rotmnist": "rotmnist",
    "galaxy10": "galaxy10",
    "isic2019": "isic2019",
}


KNOWN = (*digits.VARIANTS, *synthetic.KINDS, *DATASETS)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"eqjax_experiments.data.{name}")


@dataclasses.dataclass(frozen=True)
class Augmented:
    """Another source with a random element of a group applied to each of its images.

    Attributes:
      source: the other one.
      group: of the elements, acting on as many axes as the images have.
      seed: of the elements.
      elements: which they are, where the group's name does not tell: outside of D4.
    """

    source: Source
    group: eq.Group
    seed: int = 0

    def __post_init__(self) -> None:
        """Say which elements they are, as a part of what the data are described by."""
        if self.group.ambient != eq.dihedral(4):
            object.__setattr__(self, "elements", self.group.matrices.tolist())

    def checksum(self) -> str:
        """Return the checksum of the other source."""
        return self.source.checksum()

    def listing(self) -> dict[str, str]:
        """Return the checksum of every file of the other source, if there are many."""
        return getattr(self.source, "listing", dict)()

    def read(self) -> Contents:
        """Return the images of all three parts, rotated and reflected."""
        contents = self.source.read()
        axes = contents.shape[:-1]
        if len(axes) != self.group.dimension or len(set(axes)) > 1:
            raise ValueError(
                f"--data-group {self.group.name} needs samples of "
                f"{self.group.dimension} equal sides, got {contents.shape}: only square"
                " images can be rotated"
            )
        rng = np.random.default_rng([self.seed, digits.MOVES])
        matrices = self.group.ambient.matrices[
            rng.choice(self.group.elements, len(contents.labels))
        ]
        images = map(moved, contents.images, matrices)
        return dataclasses.replace(contents, images=images)


@functools.lru_cache(maxsize=2)
def load(name: str, group: eq.Group | None = None, size: int | None = None) -> Dataset:
    """Return a data set by its name, or by the path of an .npz file or a folder.

    Args:
      name: "upright", "flipped", "quarter", "rotated" for the embedded digits; one of
        `synthetic.KINDS` for volumes and sequences that are made by a formula; one of
        `DATASETS` for what lies in a folder of this name under data/, or where the
        variable EQJAX_DATA says; else a path.
      group: a random element is applied to every image of all splits, if given.
      size: pixels per side, where images are scaled; 64 if None, of the embedded digits
        28, or 14.

    Raises:
      ValueError: no such data set, or a file is damaged.
      FileNotFoundError: a file is missing.
    """
    root = Path(os.environ.get(ROOT_VARIABLE, "data"))
    _check_one_meaning(name, root)
    augmented = group is not None and group.order > 1
    if augmented and name in (*digits.VARIANTS, *synthetic.KINDS):
        raise ValueError(
            "--data-group does nothing with the embedded digits, "
            f"{', '.join(digits.VARIANTS)}, nor with what is made by a formula, "
            f"{', '.join(synthetic.KINDS)}; --data mnist takes a group"
        )
    if name in synthetic.KINDS:
        cache.fixed_size(name, size)
        return synthetic.load(name)
    if name in digits.VARIANTS:
        return digits.load(name, size=digits.SIZES[0] if size is None else size)
    source = find(name, root, size)
    if group is not None and augmented:
        source = Augmented(source, group)
    try:
        return cache.load(source, root / "cache")
    except FileNotFoundError as error:
        if name not in DATASETS:
            raise
        holds = _module(DATASETS[name]).HOLDS[name]
        raise FileNotFoundError(f"{error}; {root / name} should hold {holds}") from None


def axes_of(name: str) -> int | None:
    """Return how many axes the samples of a data set have, where its name tells."""
    if name in synthetic.KINDS:
        return synthetic.KINDS[name].symmetry.dimension
    return 2 if name in (*digits.VARIANTS, *DATASETS) else None


def find(name: str, root: Path, size: int | None = None) -> Source:
    """Return the source of a data set; arguments and errors as for `load`."""
    path = Path(name)
    if name not in DATASETS and not path.exists():
        _refuse(name)
    if size is not None and size < 1:
        raise ValueError(f"--image-size must be at least 1, got {size}")
    if name in DATASETS:
        return _module(DATASETS[name]).source(name, root / name, size)
    if path.is_dir():
        return _module("image_folders").source(name, path, size)
    if path.suffix == ".npz":
        return _module("archives").source(name, path, size)
    raise ValueError(
        f"--data {name} is a file of another kind; expected an .npz file, or a folder "
        "with a subfolder per class"
    )


def _check_one_meaning(name: str, root: Path) -> None:
    """Raise ValueError for a name of known data that a folder here has, too."""
    here = Path(name)
    if name in KNOWN and here.is_dir() and here.resolve() != (root / name).resolve():
        raise ValueError(
            f"--data {name} are known data, and a folder here has this name, too; "
            f"write --data ./{name} for the folder, or rename it for the others"
        )


def _refuse(name: str) -> NoReturn:
    """Raise for data that are not there, and name the nearest that are."""
    folder = Path(name).parent
    there = [str(path) for path in folder.iterdir()] if folder.is_dir() else []
    near = difflib.get_close_matches(name, (*KNOWN, *there), 1)
    nearest = f", nearest: {near[0]!r}" if near else ""
    raise (FileNotFoundError if Path(name).suffix == ".npz" else ValueError)(
        f"there is no --data {name!r}{nearest}; known are {', '.join(KNOWN)}, and "
        "paths of folders with a subfolder per class and of .npz files"
    )
