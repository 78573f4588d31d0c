"""Volumes and sequences that are made by a formula, and archives of real ones."""

import collections

import numpy as np
import pytest

import eqjax as eq
from eqjax_experiments import evolve
from eqjax_experiments.data import catalogue, synthetic
from eqjax_experiments.data.moving import moved
from eqjax_experiments.tasks.baseline import BaselineTask

OH = eq.full_octahedral()


@pytest.mark.parametrize("name", synthetic.KINDS)
def test_they_are_balanced_normalized_and_the_same_every_time(name):
    found, again = synthetic.load(name), synthetic.load(name)
    assert np.array_equal(found.train.images, again.train.images)
    assert [len(s.labels) for s in found.splits] == [2_000, 500, 500]
    assert abs(np.mean(found.train.labels) - 0.5) < 0.05
    assert abs(found.train.images.mean()) < 1e-4
    assert abs(found.train.images.std() - 1) < 1e-4
    axes = synthetic.KINDS[name].symmetry.dimension
    assert len(found.image_shape) == axes + 1
    other = synthetic.load(name, seed=1)
    assert not np.array_equal(found.train.images, other.train.images)


@pytest.mark.parametrize("name", ["chirality", "axis", "isotropic"])
def test_shapes_of_volumes_are_of_one_class_under_the_group_alone(name):
    kind = synthetic.KINDS[name]
    rng = np.random.default_rng(0)

    def seen(label):
        """All shapes of a class, cut out of what is around them, over the group."""
        shapes = set()
        for matrix in kind.symmetry.matrices:
            volume = moved(kind.draw(rng, label), matrix)
            where = np.argwhere(volume)
            low, high = where.min(0), where.max(0) + 1
            cut = volume[tuple(map(slice, low, high))]
            shapes.add((cut.shape, cut.tobytes()))
        return shapes

    classes = [seen(0), seen(1)]
    assert not classes[0] & classes[1]
    for label, shapes in enumerate(classes):
        for shape, data in shapes:
            cut = np.frombuffer(data).reshape(shape)
            for u in OH.elements:
                turned = moved(cut, OH.matrices[u])
                inside = (turned.shape, turned.tobytes()) in shapes
                if u in kind.symmetry:
                    assert inside
        outside = collections.Counter(
            (turned.shape, turned.tobytes()) in classes[1 - label]
            for shape, data in shapes
            for u in OH.elements
            if u not in kind.symmetry
            for turned in [moved(np.frombuffer(data).reshape(shape), OH.matrices[u])]
        )
        assert outside[True] > 0 or kind.symmetry == OH


def test_sequences_are_what_their_labels_say():
    rng = np.random.default_rng(0)
    palindrome = np.trim_zeros(synthetic.KINDS["palindromes"].draw(rng, 1))
    assert np.array_equal(palindrome, palindrome[::-1])
    words = np.trim_zeros(synthetic.KINDS["palindromes"].draw(rng, 0))
    assert not np.array_equal(words, words[::-1])
    rise = np.trim_zeros(synthetic.KINDS["direction"].draw(rng, 0))
    assert np.all(np.diff(rise) > 0)


@pytest.fixture
def medmnist3d(tmp_path):
    """A file in the layout of MedMNIST3D."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 40), ("val", 10), ("test", 10)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 8, 8, 8), np.uint8)
        labels = np.arange(count) % 3
        arrays[f"{part}_labels"] = labels[:, None].astype(np.uint8)
    np.savez(tmp_path / "organ.npz", **arrays)
    return tmp_path / "organ.npz"


def test_volumes_are_read_from_archives(medmnist3d, tmp_path, monkeypatch):
    monkeypatch.setenv(catalogue.ROOT_VARIABLE, str(tmp_path))
    found = catalogue.load(str(medmnist3d))
    assert found.image_shape == (8, 8, 8, 1)
    assert [len(s.labels) for s in found.splits] == [40, 10, 10]
    turned = catalogue.load(str(medmnist3d), OH.subgroup("O"))
    assert not np.array_equal(turned.train.images, found.train.images)
    assert np.isclose(turned.train.images.std(), found.train.images.std())


def test_sequences_are_read_from_archives(tmp_path, monkeypatch):
    monkeypatch.setenv(catalogue.ROOT_VARIABLE, str(tmp_path))
    x, y = np.random.default_rng(0).random((60, 30, 2)), np.arange(60) % 2
    np.savez(tmp_path / "ecg.npz", x=x, y=y)
    assert catalogue.load(str(tmp_path / "ecg.npz")).image_shape == (30, 2)


def test_a_network_has_the_size_that_is_usual_for_its_axes():
    sizes = {a: BaselineTask(ambient=a).size for a in ("D4", "Oh", "flip")}
    assert sizes["D4"] == ((2, 4, 4, 8), 5, (1, 2, 3))
    assert sizes["Oh"].kernel_size == 3
    short = BaselineTask(features=(2, 4)).size
    assert short.pool_after == (1, 2)


@pytest.mark.parametrize(
    ("data", "ambient", "group"),
    [("palindromes", "flip", "D1"), ("isotropic", "O", "T")],
)
def test_a_search_runs_on_them(data, ambient, group, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = "--generations 1 --population 1 --children 2 --features 1 --pool-after 1"
    lengths = "--first-epochs 0.05 --epochs 0.05 --name tiny"
    names = ["--groups", ambient.replace("flip", "D1"), group]
    arguments = ["--data", data, "--ambient", ambient, *short.split()]
    evolve.main([*arguments, *lengths.split(), *dict.fromkeys(names)])
    assert "picture:" in capsys.readouterr().out
    assert (tmp_path / "runs/tiny/search.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data chirality", "acts on 2 axes, and volumes have 3; choose one of O, Oh"),
        ("--data direction --ambient Oh", "and sequences have 1; choose one of flip"),
        ("--data axis --ambient Oh --data-group O", "does nothing with the embedded"),
        ("--data axis --ambient Oh --image-size 9", "--image-size does nothing"),
        ("--data chiral", "nearest: 'chirality'"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        evolve.main(arguments.split())
    assert message in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "runs").exists()


def test_the_ambient_group_may_be_given_by_generators():
    task = BaselineTask(data="axis", ambient="[[[0,-1,0],[1,0,0],[0,0,1]]]")
    assert task.ambient_group == eq.Group.from_generators(
        [[[0, -1, 0], [1, 0, 0], [0, 0, 1]]]
    )
    assert task.label == "axis-over-C4-0"
    assert task.load().image_shape == (8, 8, 8, 1)
    with pytest.raises(ValueError, match="should be a list of matrices"):
        BaselineTask(ambient="[[0,1")
    with pytest.raises(ValueError, match="not a signed permutation"):
        BaselineTask(ambient="[[[2]]]")
