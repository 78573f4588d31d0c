"""Slow definitions from numpy's own rotations and flips, with no tables of ours.

Elements of D4 are numbered rotations first, then each rotation after a left-right
flip, as `eqjax.dihedral` documents.
"""

import numpy as np


def act(image, u):
    """Turn a (height, width, ...) array by element u of D4."""
    return np.rot90(np.fliplr(image) if u >= 4 else image, u % 4)


def product(u, v):
    """Number of the element that first does v, then u."""
    probe = np.arange(9).reshape(3, 3)
    wanted = act(act(probe, v), u)
    return next(w for w in range(8) if np.array_equal(act(probe, w), wanted))


def inverse(u):
    return next(v for v in range(8) if product(u, v) == 0)


def act_on_field(field, u):
    """(u . f)(p, a) = f(u^-1 p, u^-1 a) for one (height, width, 8, ...) field."""
    moved = np.empty_like(field)
    for a in range(8):
        moved[:, :, a] = act(field[:, :, product(inverse(u), a)], u)
    return moved


def correlate(image, kernel):
    """Correlate (height, width, c_in) with (k, k, c_in, c_out), zeros around."""
    k = len(kernel)
    height, width = image.shape[:2]
    before, after = (k - 1) // 2, k // 2
    padded = np.pad(image, ((before, after), (before, after), (0, 0)))
    out = np.zeros((height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            window = padded[i : i + k, j : j + k]
            out[i, j] = np.einsum("abi,abio->o", window, kernel)
    return out


def group_convolution(field, filters, elements):
    """The textbook group convolution over a group of plane symmetries.

    Args:
      field: (height, width, group order, c_in).
      filters: (k, k, group order, c_in, c_out), read at the identity.
      elements: numbers of the group's elements in D4.

    Returns:
      (height, width, group order, c_out), out_g = sum_h f_h * (g . filter_(g^-1 h)).
    """
    out = []
    for g in elements:
        total = 0
        for b, h in enumerate(elements):
            moved = act(filters[:, :, elements.index(product(inverse(g), h))], g)
            total = total + correlate(field[:, :, b], moved)
        out.append(total)
    return np.stack(out, axis=2)
