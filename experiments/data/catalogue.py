"""Every data set by its name, and your own by their path."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import eqjax as eq
from experiments.data import cache, digits
from experiments.data.archives import Archive
from experiments.data.cache import Contents, Source
from experiments.data.folders import Folder
from experiments.data.galaxy10 import FILE as GALAXY10_FILE, Galaxy10
from experiments.data.idx import MnistLike
from experiments.data.isic2019 import Isic2019
from experiments.data.rotmnist import RotMnistArchives, RotMnistMade, RotMnistText
from experiments.data.splits import Dataset

ROOT_VARIABLE = "EQJAX_DATA"
D4 = eq.dihedral(4)
PUBLISHED = {  # under the root: the folder, and what belongs there
    "mnist": "the four IDX files of MNIST, raw or .gz; `make mnist` fetches them",
    "fashion": "the four IDX files of Fashion-MNIST, raw or .gz",
    "rotmnist": "the .amat files of RotMNIST, their .zip, or copies as .npz; without "
    "them it is made from mnist, which `make mnist` fetches",
    "galaxy10": GALAXY10_FILE,
    "isic2019": "the folder of images and both tables of ISIC 2019",
}


@dataclasses.dataclass(frozen=True)
class Augmented:
    """Another source with a random element of a group applied to each of its images.

    Attributes:
      source: the other one.
      group: name of a subgroup of D4.
      seed: of the elements.
    """

    source: Source
    group: str
    seed: int = 0

    def checksum(self) -> str:
        """Return the checksum of the other source."""
        return self.source.checksum()

    def read(self) -> Contents:
        """Return the images of all three parts turned and mirrored."""
        contents = self.source.read()
        if contents.shape[0] != contents.shape[1]:
            raise ValueError(f"only square images can be turned, got {contents.shape}")
        elements = D4.subgroup(self.group).elements
        rng = np.random.default_rng([self.seed, 3])
        chosen = rng.choice(elements, len(contents.labels))
        return dataclasses.replace(contents, images=_turned(contents.images, chosen))


def _turned(images: Iterator[np.ndarray], elements: np.ndarray) -> Iterator[np.ndarray]:
    """Yield every image after an element of D4, as `eqjax.transform` does it."""
    for image, element in zip(images, elements, strict=True):
        matrix = D4.matrices[element]
        source = np.abs(matrix).argmax(1)  # output axis i reads input axis source[i]
        signs = matrix.sum(1)
        yield np.flip(
            image.transpose(*source, 2), tuple(i for i in (0, 1) if signs[i] < 0)
        )


@functools.lru_cache(maxsize=2)
def load(name: str, group: str = "C1", size: int | None = None) -> Dataset:
    """Return a data set by its name, or by the path of an .npz file or a folder.

    Args:
      name: "upright", "flipped", "quarter", "rotated" for the embedded digits; "mnist",
        "fashion", "rotmnist", "galaxy10", "isic2019" for what lies in a folder of this
        name under data/, or where the variable EQJAX_DATA says; else a path.
      group: subgroup of D4; a random element is applied to every image of all splits.
      size: pixels per side, where images are scaled; 64 if None.

    Raises:
      ValueError: no such data set or group, or a file is damaged.
      FileNotFoundError: a file is missing.
    """
    symmetry = D4.subgroup(group)
    if name in digits.TASKS:
        if symmetry.order > 1 or size is not None:
            raise ValueError(
                "--data-group and --image-size do nothing with the embedded digits, "
                f"{', '.join(digits.TASKS)}; --data mnist takes a group"
            )
        return digits.load(name)
    root = Path(os.environ.get(ROOT_VARIABLE, "data"))
    source = find(name, root, size)
    if symmetry.order > 1:
        source = Augmented(source, symmetry.name)
    try:
        return cache.load(source, root / "cache")
    except FileNotFoundError as error:
        if name not in PUBLISHED:
            raise
        raise FileNotFoundError(
            f"{error}; {root / name} should hold {PUBLISHED[name]}"
        ) from None


def find(name: str, root: Path, size: int | None = None) -> Source:
    """Return the source of a data set; arguments and errors as for `load`."""
    if size is not None and size < 1:
        raise ValueError(f"--image-size must be at least 1, got {size}")
    scaled = {} if size is None else {"size": size}
    path, folder = Path(name), root / name
    if name == "galaxy10":
        return Galaxy10(folder / GALAXY10_FILE, **scaled)
    if name == "isic2019":
        return Isic2019(folder, **scaled)
    if path.is_dir() and name not in PUBLISHED:
        return Folder(path, **scaled)
    if size is not None:
        raise ValueError(f"--image-size does nothing with --data {name}")
    if name in ("mnist", "fashion"):
        return MnistLike(folder, name)
    if name == "rotmnist":
        return _rotmnist(folder)
    if path.suffix == ".npz":
        return Archive(path)
    known = (*digits.TASKS, *PUBLISHED)
    near = difflib.get_close_matches(name, known, 1, 0)[0]
    raise ValueError(
        f"--data knows no {name!r}, nearest: {near!r}; there are {', '.join(known)}, "
        "and paths of .npz files and of folders with a subfolder per class"
    )


def _rotmnist(folder: Path) -> Source:
    """Return copies as .npz, else the published files, else one made from MNIST."""
    if any(folder.glob("*.npz")):
        return RotMnistArchives(folder)
    if any(folder.glob("*.amat")) or any(folder.glob("*.zip")):
        return RotMnistText(folder)
    return RotMnistMade(folder.with_name("mnist"))
