"""ISIC 2019: 25,331 dermoscopic images of skin lesions in eight classes."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np

from eqjax_experiments.data.cache import (
    Contents,
    contents_checksum,
    file_checksum,
    list_contents,
)
from eqjax_experiments.data.decoding import Kind, decode_all
from eqjax_experiments.data.splits import counted, random_parts

HOLDS = {"isic2019": "the folder of images and both tables of ISIC 2019"}
IMAGES = "ISIC_2019_Training_Input"
TRUTH = "ISIC_2019_Training_GroundTruth.csv"
METADATA = "ISIC_2019_Training_Metadata.csv"
CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
UNKNOWN = "UNK"  # a column of the truth that no training image is in
NORMALIZATION = ([0.684, 0.531, 0.526], [0.121, 0.140, 0.153])


@dataclasses.dataclass(frozen=True)
class Isic2019:
    """ISIC 2019: a tenth of the lesions for the test, a tenth of the rest to validate.

    Several images may show one lesion, so lesions are split, not images. An image
    without `lesion_id` is a lesion of its own.

    Attributes:
      folder: of the images' folder and both tables.
      size: pixels per side that the centre square is scaled to.
      seed: of the split.
    """

    folder: Path
    size: int = 64
    seed: int = 0

    def checksum(self) -> str:
        """Return a checksum of both tables, and of names and contents of images."""
        tables = [file_checksum(self.folder / name) for name in (TRUTH, METADATA)]
        return " ".join([*tables, contents_checksum(self.listing())])

    def listing(self) -> dict[str, str]:
        """Return the checksum of every image, by its name."""
        images = self.folder / IMAGES
        return list_contents(sorted(images.iterdir()), images)

    def read(self) -> Contents:
        """Return all lesions.

        Raises:
          FileNotFoundError: images of the table are missing.
          ValueError: a table or an image is damaged; the error names it.
        """
        truth = self._table(TRUTH, ("image", *CLASSES))
        names = [row["image"] for row in truth]
        files = [self.folder / IMAGES / f"{name}.jpg" for name in names]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{self.folder / IMAGES} lacks {len(missing)} of the {len(files)} "
                f"images in {TRUTH}, such as {missing[0]}"
            )
        extra = {file.name for file in (self.folder / IMAGES).glob("*.jpg")}
        extra -= {file.name for file in files}
        if extra:
            raise ValueError(
                f"{self.folder / TRUTH} lacks {len(extra)} of the images in {IMAGES}, "
                f"such as {min(extra)}; it may be cut"
            )
        return Contents(
            images=decode_all(files, Kind(color=True), self.size),
            labels=np.array([self._label(row) for row in truth]),
            parts=self._split(names),
            shape=(self.size, self.size, 3),
            dtype=np.uint8,
            classes=len(CLASSES),
            normalization=NORMALIZATION,
            names=CLASSES,
        )

    def _table(self, name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
        file = self.folder / name
        try:
            with file.open(newline="", encoding="utf-8-sig") as opened:
                rows = list(csv.DictReader(opened))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is not a table: {error}") from None
        found = tuple(rows[0]) if rows else ()
        if not set(columns) <= set(found):
            raise ValueError(
                f"{file} should have the columns {', '.join(columns)}, found "
                f"{', '.join(map(str, found)) or 'nothing'}"
            )
        short = [row for row in rows if None in row.values() or None in row]
        if short:
            raise ValueError(f"{file}: the row of {short[0]['image']} is cut or broken")
        return rows

    def _label(self, row: dict[str, str]) -> int:
        values = [row[name] for name in CLASSES]
        try:
            ones = [i for i, value in enumerate(values) if float(value) == 1]
            rest = sum(map(float, values)) + float(row.get(UNKNOWN, 0)) - 1
        except ValueError:
            ones, rest = [], 0.0
        if len(ones) != 1 or rest:
            raise ValueError(
                f"{self.folder / TRUTH}: {row['image']} should have 1 in one of "
                f"{', '.join(CLASSES)} and 0 elsewhere, found {', '.join(values)}"
            )
        return ones[0]

    def _split(self, names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the images of every part, all images of a lesion in the same one."""
        table = self._table(METADATA, ("image", "lesion_id"))
        lesion = {row["image"]: row["lesion_id"].strip() for row in table}
        unknown = [name for name in names if name not in lesion]
        if unknown:
            images = counted(len(unknown), "image", "images")
            raise ValueError(
                f"{self.folder / METADATA} lacks {images} of {TRUTH}, such as "
                f"{unknown[0]}"
            )
        owners = [("lesion", lesion[name]) if lesion[name] else name for name in names]
        number = {owner: i for i, owner in enumerate(dict.fromkeys(owners))}
        of_image = np.array([number[owner] for owner in owners])
        rng = np.random.default_rng(self.seed)
        train, validation, test = (
            np.flatnonzero(np.isin(of_image, part))
            for part in random_parts(len(number), (0.1, 0.1), rng)
        )
        return train, validation, test


def source(name: str, folder: Path, size: int | None = None) -> Isic2019:
    """Return ISIC 2019 in a folder."""
    del name
    return Isic2019(folder) if size is None else Isic2019(folder, size)
