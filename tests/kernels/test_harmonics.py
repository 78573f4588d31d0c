"""Filters of circular harmonics: what turns, and what the taps see of it."""

import math

import numpy as np
import pytest

import eqjax as eq
from eqjax import kernels
from eqjax.fields.irreps import representations
from eqjax.kernels.orbits import tap_permutations

HARMONICS = eq.CircularHarmonics()
SIZES = [1, 2, 3, 4, 5, 7, 9]


@pytest.mark.parametrize("size", SIZES)
def test_right_angles_and_flips_turn_coefficients_as_they_move_taps(size):
    D4 = eq.dihedral(4)
    sampled = HARMONICS.sampled(size)
    turned = representations(HARMONICS.fiber(size).irreps, D4.matrices)
    taps = tap_permutations(D4.matrices, (size, size))
    for u in D4.elements:
        moved = np.empty_like(sampled)
        moved[taps[u]] = sampled  # B(u^-1 y)
        np.testing.assert_allclose(moved, sampled @ turned[u], atol=1e-14)


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.5])
def test_any_angle_turns_the_functions_of_the_plane(angle):
    """Of which the taps are samples: a fine grid tells what they are in between."""
    wide = eq.CircularHarmonics((0.0, 2.0), (0.7, 0.8), (0, 3))
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]])
    turned = representations(wide.fiber(5).irreps, matrix[None])[0]
    rng = np.random.default_rng(0)
    coefficients = rng.normal(size=len(turned))

    def function(weights, points):
        radius, phi = np.hypot(*points), np.arctan2(points[1], points[0])
        terms = [
            np.exp(-0.5 * ((radius - r) / w) ** 2) for r, w in ((0, 0.7), (2, 0.8))
        ]
        waves = [terms[0], terms[1]]
        for m in (1, 2, 3):
            waves += [terms[1] * np.cos(m * phi), terms[1] * np.sin(m * phi)]
        return np.einsum("b,b...->...", weights, np.stack(waves))

    points = rng.normal(size=(2, 50))
    back = matrix.T @ points
    np.testing.assert_allclose(
        function(turned @ coefficients, points),
        function(coefficients, back),
        atol=1e-12,
    )


@pytest.mark.parametrize("size", SIZES)
def test_taps_of_unit_coefficients_have_unit_variance_in_the_mean(size):
    sampled = HARMONICS.sampled(size)
    assert np.sum(sampled**2) == pytest.approx(sampled.shape[1])


@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_kernel_that_the_basis_holds_is_fitted_exactly(size):
    rng = np.random.default_rng(0)
    given = rng.normal(size=(HARMONICS.fiber(size).size, 2, 3))
    kernel = kernels.sample(given, HARMONICS, (size, size))
    np.testing.assert_allclose(kernels.fit(kernel, HARMONICS), given, atol=1e-12)
    other = rng.normal(size=kernel.shape)
    nearest = kernels.sample(kernels.fit(other, HARMONICS), HARMONICS, (size, size))
    rest = (other - nearest).reshape(size * size, -1)
    np.testing.assert_allclose(HARMONICS.sampled(size).T @ rest, 0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radii": (0.0, 1.0), "widths": (0.5,)}, "one number for each ring"),
        ({"widths": (0.5, 0.5)}, "widths need the radii"),
        ({"radii": (-1.0,)}, "radii should be at least 0"),
        ({"radii": (1.0,), "frequencies": (-1,)}, "frequencies should be at least 0"),
        ({"radii": ()}, "radii should be"),
        ({"radii": (float("nan"),)}, "radii should be at least 0"),
        ({"radii": (1.0,), "widths": (float("inf"),)}, "widths should be at least"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        eq.CircularHarmonics(**settings)


def test_a_ring_that_no_tap_sees():
    with pytest.raises(ValueError, match="no tap of a 3x3 kernel.*radius 9"):
        eq.CircularHarmonics((9.0,), (0.3,), (0,)).sampled(3)
