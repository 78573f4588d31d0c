"""From images to class names: preparation of pixels, and what a network says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eqjax.groups.html import Shaded
from eqjax.groups.text import Echoed, Rows

SHOWN = 3  # classes of an image that are printed


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What is done to pixels before a network reads them.

    Bytes are scaled to [0, 1]; then the mean of every channel is taken off, and the
    rest is divided by its deviation.

    Attributes:
      mean: one for all channels, or one for each.
      deviation: the same.
      shape: (height, width, channels) of the images, where the network asks for one.
    """

    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Take lists for tuples, as they come out of JSON."""
        for name in ("mean", "deviation"):
            values = np.atleast_1d(getattr(self, name))
            if values.dtype.kind not in "iuf":
                raise ValueError(f"{name} must be numbers, got {getattr(self, name)!r}")
            values = values.tolist()
            object.__setattr__(self, name, tuple(map(float, values)))
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(map(int, self.shape)))
        if not np.all(np.asarray(self.deviation) > 0):
            raise ValueError(f"deviations must be positive, got {self.deviation}")

    def __call__(self, images: Any) -> np.ndarray:
        """Return (n, *space, channels) in float32, for bytes or numbers in [0, 1].

        One image (*space, channels), or images (n, height, width) without a channel
        axis where the network reads one channel, are taken for a batch.

        Raises:
          ValueError: images of another shape.
        """
        pixels = np.asarray(images)
        if self.shape is not None:
            if pixels.shape == self.shape:
                pixels = pixels[None]
            space, channels = self.shape[:-1], self.shape[-1]
            if channels == 1 and pixels.shape == space:
                pixels = pixels[None, ..., None]
            elif channels == 1 and pixels.shape[1:] == space:
                pixels = pixels[..., None]
            if pixels.shape[1:] != self.shape:
                raise ValueError(
                    f"the network reads images of shape {self.shape}, one or a batch "
                    f"of them, got shape {pixels.shape}"
                )
        whole = np.issubdtype(pixels.dtype, np.integer)
        if whole and pixels.dtype != np.uint8:
            raise ValueError(
                f"expected bytes, or numbers in [0, 1], got {pixels.dtype}; divide "
                "16 bits by 65535"
            )
        unit = pixels.astype(np.float32) / np.float32(255 if whole else 1)
        mean = np.asarray(self.mean, np.float32)
        deviation = np.asarray(self.deviation, np.float32)
        return (unit - mean) / deviation


@dataclasses.dataclass(frozen=True, repr=False)
class Prediction(Echoed):
    """What a network says of some images; prints as a table.

    Attributes:
      class_names: of all classes.
      probabilities: (images, classes), the softmax of the logits.
      sources: what the images are called; numbers if not known.
    """

    class_names: tuple[str, ...]
    probabilities: np.ndarray
    sources: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The most probable class of every image."""
        return tuple(self.class_names[i] for i in self.probabilities.argmax(-1))

    def __len__(self) -> int:
        return len(self.probabilities)

    def parts(self) -> Sequence[str | Rows]:
        """Return a table with a row per image and its most probable classes."""
        rows: list[list[str]] = [["image", "class", "probability"]]
        sources = self.sources or tuple(map(str, range(len(self))))
        for source, own in zip(sources, self.probabilities, strict=True):
            best = np.argsort(-own, kind="stable")[:SHOWN]
            others = [f"{self.class_names[i]} {own[i]:.3f}" for i in best[1:]]
            probability = Shaded(f"{own[best[0]]:.3f}", -own[best[0]])
            rows.append([source, self.class_names[best[0]], probability])
            rows[-1] += [f"then {', '.join(others)}"] if others else [""]
        rows[0].append("")
        return (Rows(rows),)


def class_names_of(names: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """Return a name for every class, their numbers where none are known.

    Raises:
      ValueError: there are not as many names as classes.
    """
    if not names:
        return tuple(map(str, range(classes)))
    if len(names) != classes:
        raise ValueError(
            f"{len(names)} class names for a network of {classes} outputs: "
            f"{', '.join(names)}"
        )
    return tuple(names)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (..., classes) in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(-1, keepdims=True)
    return np.exp(shifted) / np.exp(shifted).sum(-1, keepdims=True)


def preprocessing_of(given: Preprocessing | Mapping[str, Any] | None) -> Preprocessing:
    """Return what is given as one, by its fields or whole; none leaves images alone."""
    if isinstance(given, Preprocessing):
        return given
    known = {field.name for field in dataclasses.fields(Preprocessing)}
    unknown = set(given or {}) - known
    if unknown:
        raise ValueError(
            f"preprocessing has {', '.join(sorted(known))}, got {', '.join(unknown)}"
        )
    return Preprocessing(**(given or {}))
