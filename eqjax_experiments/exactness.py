"""Say which symmetry a trained network keeps, layer by layer and on images.

Every layer is tested by itself on random fields (`eqjax.symmetry`). With images, every
element of the group moves them, and what changes in the answers is counted.

python -m experiments exactness first
python -m experiments exactness first image.png folder/of/images
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.table import Table

import eqjax as eq
from eqjax.saving import Saved
from eqjax_experiments import shell
from eqjax_experiments.data.splits import counted
from eqjax_experiments.predict import network_of, prepared_images
from eqjax_experiments.reports.printing import percent


@dataclasses.dataclass(frozen=True)
class ExactnessSettings:
    """Say which symmetry a trained network keeps."""

    run: tyro.conf.Positional[Path]
    """Folder of a run, its name, or the folder of a saved network."""
    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Image files, .npy arrays, or folders of images, to try the network on."""
    member: str | None = None
    """Which network of the run; the one of least validation error if not given."""


ROUNDING = 1e-3  # of the largest logit, what float32 may change
OPTIONS = (shell.Output, ExactnessSettings)


def layers_of(network: Saved) -> eq.SymmetryReport:
    """Return what every layer of a network keeps.

    Raises:
      ValueError: the network does not say which inputs it takes.
    """
    shape = network.preprocessing.shape
    if shape is None:
        raise ValueError(
            f"{network.folder} does not say which images it reads; save it with "
            "preprocessing={'shape': (height, width, channels), ...}"
        )
    inputs = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return eq.symmetry(network.model, inputs, variables=network.variables)


def changes(
    network: Saved, images: np.ndarray, group: eq.Group
) -> list[dict[str, Any]]:
    """Return what moving images changes in the answers of a network.

    Args:
      network: to ask.
      images: (n, *space, channels) as the network reads them.
      group: whose elements move them.

    Returns:
      A row per element: the largest change of a logit over the largest logit, and the
      share of images whose class changes.
    """
    before = network.logits(images)
    rows = []
    for element, name in zip(group.elements, group.element_names, strict=True):
        moved = eq.transform(jnp.asarray(images), element, group=group)
        after = network.logits(np.asarray(moved))
        rows.append(
            {
                "element": name,
                "change": float(abs(after - before).max() / abs(before).max()),
                "classes": float((after.argmax(-1) != before.argmax(-1)).mean()),
            }
        )
    return rows


def kept_on(rows: list[dict[str, Any]], group: eq.Group) -> eq.Group:
    """Return the largest group whose elements change no logit beyond rounding."""
    still = {row["element"] for row in rows if row["change"] <= ROUNDING}
    names = dict(zip(group.elements, group.element_names, strict=True))
    kept = [H for H in group.subgroups if {names[u] for u in H.elements} <= still]
    return max(kept, key=lambda H: H.order)


def answers_alike(network: Saved) -> bool:
    """Return whether a network says the same of images of noise, whatever they are.

    Its units then are in saturation, and what it makes of noise shows no symmetry.
    """
    shape = network.preprocessing.shape
    assert shape is not None
    noise = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
    logits = network.logits(noise)
    return bool(np.ptp(logits, axis=0).max() <= ROUNDING * abs(logits).max())


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    console = shell.console()
    with shell.errors_end_it(console):
        output, settings = shell.parse(console, __doc__, arguments, *OPTIONS)
        network = network_of(settings.run, settings.member)
        console.print(f"network: {network.folder}", markup=False)
        report = layers_of(network)
        console.print(str(report), markup=False, soft_wrap=True)
        rows: list[dict[str, Any]] = []
        kept = report.kept
        if answers_alike(network):
            console.print(
                "note: this network answers all images of noise alike, so the table "
                "may show more symmetry than there is; pass images of yours"
            )
        if settings.files:
            images = prepared_images(network, settings.files)
            rows = changes(network, images, report.group)
            table = Table("moved by", title=counted(len(images), "image", "images"))
            table.add_column("largest change over largest logit", justify="right")
            table.add_column("images whose class changes", justify="right")
            for row in rows:
                change = f"{row['change']:.1e}"
                table.add_row(row["element"], change, percent(row["classes"]))
            console.print(table)
            kept = kept.meet(kept_on(rows, report.group))
    console.print(f"the network keeps {kept.name}")
    layers = [
        {
            "path": row.path,
            "promised": row.promised.name,
            "kept": row.kept.name,
            "error": float(row.error),
            "repair": row.repair,
        }
        for row in (*report.rows, report.network)
    ]
    output.write(
        {
            "network": str(network.folder),
            "kept": kept.name,
            "layers": layers,
            "images": rows,
        }
    )


if __name__ == "__main__":
    main()
