"""12,000 embedded MNIST digits in four variants of known symmetry."""

from __future__ import annotations

import difflib
import hashlib
import zipfile
from pathlib import Path

import numpy as np

from eqjax_experiments.data.splits import Dataset, Split

VARIANTS = ("upright", "flipped", "quarter", "rotated")
FILE = Path(__file__).with_name("digits.npz")
SHA256 = "0017c68b73fb9cc29e1b68706b629c4df91c2268a8a5776ebc46a692686052c9"
SIZES = (28, 14)  # pixels per side
TRAIN, VALIDATION, TEST = 8_000, 2_000, 2_000
MOVES = 0x6D6F7665  # of a stream apart from those that order batches: see `_move`


def load(variant: str, *, seed: int = 0, size: int = SIZES[0]) -> Dataset:
    """Return one of the variants.

    Args:
      variant: "upright" as they are, "flipped" upside down at random (reflected along
        axis 0, the group D1:i), "quarter" rotated by random right angles (exactly, C4),
        "rotated" by any angle about the centre (bilinear, zeros outside).
      seed: of the flips and rotations.
      size: pixels per side; 14 for the means of 2 x 2 pixels each, after the rotation.

    Returns:
      8,000 training, 2,000 validation and 2,000 test digits, normalized by mean and
      deviation of the training images. The test digits come from MNIST's test set, the
      others from its training set.

    Raises:
      ValueError: no such variant or size, or the data file is damaged.
      FileNotFoundError: the data file is missing.
    """
    if variant not in VARIANTS:
        near = difflib.get_close_matches(variant, VARIANTS, n=1, cutoff=0)[0]
        raise ValueError(
            f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}; nearest: "
            f"{near!r}"
        )
    if size not in SIZES:
        closest = min(SIZES, key=lambda each: abs(each - size))
        raise ValueError(
            f"the embedded digits have {' or '.join(map(str, SIZES))} pixels per side, "
            f"got a size of {size}; nearest: {closest}"
        )
    images, labels = _read()
    rng = np.random.default_rng([seed, MOVES])
    moved = _move(images.astype(np.float32) / 255, variant, rng)
    if (block := SIZES[0] // size) > 1:
        moved = moved.reshape(len(moved), size, block, size, block).mean((2, 4))
    mean, deviation = moved[:TRAIN].mean(), moved[:TRAIN].std()
    normalized = ((moved - mean) / deviation)[..., None]

    reduced = f", {size} x {size}" if block > 1 else ""

    def split(begin: int, end: int) -> Split:
        part = slice(begin, end)
        return Split(normalized[part], labels[part].astype(np.int32))

    return Dataset(
        split(0, TRAIN),
        split(TRAIN, TRAIN + VALIDATION),
        split(TRAIN + VALIDATION, TRAIN + VALIDATION + TEST),
        source=f"embedded digits, {variant}, seed {seed}{reduced}",
        mean=(float(mean),),
        deviation=(float(deviation),),
    )


def _read() -> tuple[np.ndarray, np.ndarray]:
    if not FILE.exists():
        raise FileNotFoundError(f"the embedded digits are missing: {FILE}")
    found = hashlib.sha256(FILE.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{FILE} is damaged: expected sha256 {SHA256}, found {found}; "
            "check it out again"
        )
    try:
        with np.load(FILE, allow_pickle=False) as data:
            return data["images"], data["labels"]
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{FILE} is not an archive of images and labels") from error


def _move(images: np.ndarray, variant: str, rng: np.random.Generator) -> np.ndarray:
    """Move every image of a variant at random.

    The numbers must have nothing to do with those that order the batches of a training:
    a network whose training depends on how images are oriented can tell symmetric data
    from unsymmetric ones that are not there. Short seeds are filled up by zeros, so
    that default_rng(0) is default_rng([0, 0]): hence a number of their own.
    """
    if variant == "upright":
        return images
    if variant == "flipped":
        chosen = rng.integers(2, size=len(images)).astype(bool)
        return np.where(chosen[:, None, None], images[:, ::-1], images)
    if variant == "quarter":
        rotations = rng.integers(4, size=len(images))
        return np.stack(
            [np.rot90(x, k) for x, k in zip(images, rotations, strict=True)]
        )
    from scipy import ndimage  # slow to import, and of use here alone

    angles = rng.uniform(0, 360, size=len(images))
    return np.stack(
        [
            ndimage.rotate(x, angle, reshape=False, order=1)
            for x, angle in zip(images, angles, strict=True)
        ]
    )
