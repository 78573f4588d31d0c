"""Name the classes of images with the best network of a run.

python -m experiments predict first image.png folder/of/images
python -m experiments predict runs/first image.png --json found.json

In Python: `predict("runs/NAME", "image.png")`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro

from eqjax.saving import Prediction, Saved
from eqjax_experiments import shell
from eqjax_experiments.data.decoding import Kind, complain, decode
from eqjax_experiments.data.image_folders import images_below
from eqjax_experiments.runs import networks, reading, run_folder

BATCH = 256  # images that are decoded before they are predicted


@dataclasses.dataclass(frozen=True)
class PredictSettings:
    """Name the classes of images with the best network of a run."""

    run: tyro.conf.Positional[Path]
    """Folder of a run, its name, or the folder of a saved network."""
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, .npy arrays (n, height, width, channels), or folders of images."""
    member: str | None = None
    """Which network of the run; the one of least validation error if not given."""


OPTIONS = (shell.Output, PredictSettings)


def predict(
    run: str | Path, *images: str | Path | np.ndarray, member: str | None = None
) -> Prediction:
    """Return what the best network of a run says of images.

    Args:
      run: folder of a run, its name, or the folder of a saved network.
      *images: files, folders of files, .npy arrays, or arrays as `Saved.predict` takes
        them. Files are cut square, scaled, and made gray or coloured, as those of the
        training were.
      member: which network of the run; that of least validation error if None.

    Raises:
      FileNotFoundError: there is no such run or file.
      ValueError: a file is no image, a folder holds none, or nothing was given.
    """
    if not images:
        raise ValueError("expected at least one image file, array or folder")
    network = network_of(run, member)
    found = []
    for each in images:
        if isinstance(each, np.ndarray):
            own = network.predict(each)
            names = tuple(f"array[{i}]" for i in range(len(own)))
            found.append(dataclasses.replace(own, sources=names))
        else:
            found += predictions(network, (Path(each),))
    return dataclasses.replace(
        found[0],
        probabilities=np.concatenate([each.probabilities for each in found]),
        sources=tuple(source for each in found for source in each.sources),
    )


def network_of(run: str | Path, member: str | None = None) -> Saved:
    """Return the best network of a run, or a member of it, by folder or by name."""
    folder = run_folder.by_path_or_name(run)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{run} holds no trained network: {reading.missing(run)}"
        )
    return networks.find(folder, member)


def predictions(network: Saved, paths: tuple[Path, ...]) -> Iterator[Prediction]:
    """Yield what a network says of files, of arrays and of the images in folders.

    Images are cut square, scaled, and made gray or coloured, as those of the training.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a folder holds no images; or, once all others are predicted, files
        that cannot be read.
    """
    for images, sources in _prepared_batches(network, paths):
        found = network.predict(images, prepared=True)
        yield dataclasses.replace(found, sources=sources)


def prepared_images(network: Saved, paths: tuple[Path, ...]) -> np.ndarray:
    """Return files, arrays and the images in folders as a network reads them.

    Raises:
      FileNotFoundError: as `predictions`.
      ValueError: the same.
    """
    return np.concatenate([each for each, _ in _prepared_batches(network, paths)])


def _prepared_batches(
    network: Saved, paths: tuple[Path, ...]
) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
    """Yield images as a network reads them, some at a time, and where they are from.

    Files that cannot be read are told at the end, as an error.
    """
    waiting: list[Path] = []
    broken: list[str] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        if path.suffix == ".npy":
            images = network.preprocessing(np.load(path, allow_pickle=False))
            yield images, tuple(f"{path}[{i}]" for i in range(len(images)))
            continue
        inside = list(images_below(path)) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} holds no images")
        waiting += inside
    if waiting:
        side, kind = _side_and_kind(network)
    for begin in range(0, len(waiting), BATCH):
        pixels, sources = [], []
        for file in waiting[begin : begin + BATCH]:
            try:
                pixels.append(decode(file, kind, side))
                sources.append(str(file))
            except ValueError as error:
                broken.append(str(error))
        if pixels:
            yield network.preprocessing(np.stack(pixels)), tuple(sources)
    complain(broken)


def _side_and_kind(network: Saved) -> tuple[int, Kind]:
    """Return the pixels per side and the kind of the images that a network reads."""
    shape = network.preprocessing.shape
    if shape is None or shape[0] != shape[1]:
        raise ValueError(
            f"{network.folder} does not say which square images it reads; save it with "
            "preprocessing={'shape': (height, width, channels), ...}, or pass arrays"
        )
    channels = shape[-1]
    return shape[0], Kind(color=channels > 2, alpha=channels in (2, 4), deep=True)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with shell.errors_end_it(console):
        output, settings = shell.parse(console, __doc__, arguments, *OPTIONS)
        if not settings.files:
            raise ValueError("expected at least one image file, array or folder")
        network = network_of(settings.run, settings.member)
        console.print(f"network: {network.folder}", markup=False)
        rows = []
        try:
            for found in predictions(network, settings.files):
                console.print(str(found), markup=False, soft_wrap=True)
                for source, name, each in zip(
                    found.sources, found.names, found.probabilities, strict=True
                ):
                    own = dict(zip(found.class_names, each.tolist(), strict=True))
                    rows.append({"image": source, "class": name, "probabilities": own})
        finally:  # where files cannot be read, those that can are told
            if rows:
                output.write(rows)


if __name__ == "__main__":
    main()
