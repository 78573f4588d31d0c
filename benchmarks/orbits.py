"""Draw which entries of a kernel share a parameter, over D4, C4, C2, D1 and C1.

    python -m benchmarks.orbits [FOLDER]

Writes docs/orbits-lifting.png and docs/orbits-centre.png (or into FOLDER) from the
orbit tables of kernels of 3x3 taps: all taps of the lifting layer, and the centre tap
of a layer from field to field. Cells of one color and shade are one orbit; cells of one
color are one orbit of D4.
"""

from __future__ import annotations

import colorsys
import sys
from pathlib import Path
from typing import Any

import numpy as np

import eqjax as eq
from eqjax.kernels import kernel_table

D4 = eq.dihedral(4)
GROUPS = tuple(D4.subgroup(name) for name in ("D4", "C4", "C2", "D1:i", "C1"))
TAPS = (3, 3)
PALEST = 0.75  # share of white in the last shade


def lifting(group: eq.Group) -> np.ndarray:
    """Return (8, 3, 3), the orbit of every tap by the fiber element written."""
    table = kernel_table(group, TAPS, eq.trivial(D4), eq.regular(D4))
    return np.moveaxis(table.index[:, :, 0], -1, 0)


def centre(group: eq.Group) -> np.ndarray:
    """Return (1, 8, 8), the orbit of the centre tap by elements read and written."""
    return kernel_table(group, TAPS, eq.regular(D4), eq.regular(D4)).index[None, 1, 1]


def colors(orbits: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Return a color for every entry: a hue by coarse orbit, a shade by orbit in it.

    Args:
      orbits: of a group, one number for every entry.
      coarse: of a larger group, an array of the same shape.

    Returns:
      (*shape, 3) red, green and blue, equal where orbits are.
    """
    found = np.zeros((*orbits.shape, 3))
    whole = np.unique(coarse)
    for number, orbit in enumerate(whole):
        light = 0.85 if number % 2 else 0.6  # neighbors in hue differ in brightness
        hue = np.array(colorsys.hsv_to_rgb(number / len(whole), 0.85, light))
        parts = np.unique(orbits[coarse == orbit])
        for place, part in enumerate(parts):
            white = PALEST * place / max(1, len(parts) - 1)
            found[orbits == part] = (1 - white) * hue + white
    return found


def draw(figure: Any, index: Any, titles: tuple[str, ...], *, upright: bool) -> None:
    """Draw one panel a group: its blocks side by side, each a grid of cells.

    Args:
      figure: of matplotlib, to draw on.
      index: a function of a group, (blocks, rows, columns) orbit numbers.
      titles: of the blocks.
      upright: the panels one below the other.
    """
    coarse = index(D4)
    blocks = len(coarse)
    shape = (len(GROUPS), blocks) if upright else (blocks, len(GROUPS))
    grid = figure.subplots(*shape, squeeze=False)
    for row, group in enumerate(GROUPS):
        orbits = index(group)
        shown = colors(orbits, coarse)
        label = f"{group.name}: {len(np.unique(orbits))} of {orbits.size}"
        for block in range(blocks):
            axes = grid[row, block] if upright else grid[block, row]
            axes.imshow(shown[block])
            axes.set_xticks(np.arange(orbits.shape[2] + 1) - 0.5, labels=[])
            axes.set_yticks(np.arange(orbits.shape[1] + 1) - 0.5, labels=[])
            axes.grid(color="white", linewidth=1)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            if upright and row == 0:
                axes.set_title(titles[block], fontsize=9)
            if block == 0:
                (axes.set_ylabel if upright else axes.set_title)(label, fontsize=10)


def main() -> None:
    """Draw both pictures."""
    from matplotlib.figure import Figure  # slow to import

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    titles = tuple(name.replace(" ", "\n", 1) for name in D4.element_names)
    tall = Figure(figsize=(9, 6.6), layout="constrained")
    draw(tall, lifting, titles, upright=True)
    tall.savefig(folder / "orbits-lifting.png", dpi=110)
    wide = Figure(figsize=(9, 2.2), layout="constrained")
    draw(wide, centre, ("",), upright=False)
    wide.savefig(folder / "orbits-centre.png", dpi=110)


if __name__ == "__main__":
    main()
