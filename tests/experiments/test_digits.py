import numpy as np
import pytest

from eqjax_experiments.data import digits


@pytest.fixture(scope="module")
def tasks():
    return {task: digits.load(task) for task in digits.VARIANTS}


def test_splits(tasks):
    for dataset in tasks.values():
        assert [len(s.labels) for s in dataset.splits] == [8000, 2000, 2000]
        for split in dataset.splits:
            assert split.images.shape[1:] == (28, 28, 1)
            assert split.images.dtype == np.float32
            assert split.labels.dtype == np.int32
            assert set(split.labels) == set(range(10))
        np.testing.assert_allclose(dataset.train.images.mean(), 0, atol=1e-5)
        np.testing.assert_allclose(dataset.train.images.std(), 1, atol=1e-5)


def test_known_counts_of_the_first_test_digits(tasks):
    # The first 2,000 labels of MNIST's test set, as published.
    counts = np.bincount(tasks["upright"].test.labels)
    assert counts.tolist() == [175, 234, 219, 207, 217, 179, 178, 205, 192, 194]


def test_no_digit_is_in_two_splits(tasks):
    images = [s.images.reshape(len(s.images), -1) for s in tasks["upright"].splits]
    assert len(np.unique(np.concatenate(images), axis=0)) == 12_000


def test_reduced_digits_are_means_of_2_x_2_pixels(tasks):
    for task, whole in tasks.items():
        small = digits.load(task, size=14)
        assert small.image_shape == (14, 14, 1)
        assert small.train.images.std() == pytest.approx(1, abs=1e-5)
        means = whole.test.images.reshape(-1, 14, 2, 14, 2).mean((2, 4))
        found = small.test.images[..., 0]
        slope, offset = np.polyfit(means[:50].ravel(), found[:50].ravel(), 1)
        np.testing.assert_allclose(found, slope * means + offset, atol=1e-4)
        assert np.array_equal(small.test.labels, whole.test.labels)
    with pytest.raises(
        ValueError, match="28 or 14 pixels per side, .* 16; nearest: 14"
    ):
        digits.load("upright", size=16)


def test_half_of_the_flipped_digits_are_upside_down(tasks):
    upright, flipped = tasks["upright"].test.images, tasks["flipped"].test.images
    same, turned = (
        np.abs(flipped - x).max((1, 2, 3)) < 1e-5 for x in (upright, upright[:, ::-1])
    )
    assert np.all(same | turned)
    assert 0.45 < turned.mean() < 0.55


def test_quarter_turns_are_exact(tasks):
    upright, quarter = tasks["upright"].test.images, tasks["quarter"].test.images
    for before, after in zip(upright, quarter, strict=True):
        turns = [np.rot90(before, k) for k in range(4)]
        # The normalization differs in the last digits: its mean is summed elsewhere.
        assert min(np.abs(after - turn).max() for turn in turns) < 1e-5
    still = np.abs(upright - quarter).max((1, 2, 3)) < 1e-5
    assert 0.2 < still.mean() < 0.3


def test_rotations_cover_the_circle_and_keep_labels(tasks):
    upright, rotated = tasks["upright"], tasks["rotated"]
    assert np.array_equal(upright.train.labels, rotated.train.labels)
    # Any angle: hardly a digit stays where it is, and ink is kept but for the corners.
    still = np.abs(upright.test.images - rotated.test.images).max((1, 2, 3)) < 0.1
    assert still.mean() < 0.01
    # The principal axes of ones, which lean a little when upright, point everywhere.
    ones = rotated.test.images[rotated.test.labels == 1, ..., 0]
    ink = ones - ones.min()
    row, column = np.mgrid[:28, :28] - 13.5
    second = [(ink * m).sum((1, 2)) for m in (row * row, row * column, column * column)]
    angle = np.arctan2(2 * second[1], second[0] - second[2]) / 2
    counts, _ = np.histogram(angle, bins=6, range=(-np.pi / 2, np.pi / 2))
    assert counts.min() > 0.5 * counts.mean()


def test_turns_depend_on_the_seed_alone():
    a, b, c = (digits.load("quarter", seed=s).test.images for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_bad_task_and_bad_file(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="got 'rotate'; nearest: 'rotated'"):
        digits.load("rotate")
    monkeypatch.setattr(digits, "FILE", tmp_path / "digits.npz")
    with pytest.raises(FileNotFoundError, match="digits are missing"):
        digits.load("upright")
    (tmp_path / "digits.npz").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="damaged: expected sha256"):
        digits.load("upright")
