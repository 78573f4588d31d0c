"""The networks of a run are saved, and name the classes of new images."""

import json
import os

import numpy as np
import pytest
from PIL import Image

import eqjax as eq
from eqjax.training.evaluation import evaluate
from eqjax_experiments import baseline, evolve, predict
from eqjax_experiments.data import catalogue
from eqjax_experiments.runs import networks, run_folder
from tests.experiments.test_own_images import SMALL, pictures  # noqa: F401
from tests.tiny import TINY


def error_on_the_test(saved, dataset):
    return float(evaluate(saved.variables, *dataset.test, model=saved.model).error)


@pytest.mark.slow
def test_every_member_of_a_front_has_its_test_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["--generations", "1", "--population-size", "2", "--children", "2"]
    length = ["--first-epochs", "0.05", "--epochs", "0.05", "--name", "run"]
    evolve.main([*TINY, *settings, *length])
    run = run_folder.ROOT / "run"
    front = json.loads((run / "result.json").read_text())["front"]
    dataset = catalogue.load("rotated")
    for number, row in enumerate(front, 1):
        saved = networks.find(run, f"member-{number}")
        assert list(saved.model.architecture.names) == row["groups"]
        assert saved.extra["test_error"] == row["test_error"]
        assert error_on_the_test(saved, dataset) == row["test_error"]
    best = networks.find(run)
    least = min(row["validation_error"] for row in front)
    assert best.extra["validation_error"] == least
    images = dataset.test.images[:5]
    found = best.predict(images, prepared=True)
    np.testing.assert_array_equal(
        found.probabilities.argmax(-1), best.logits(images).argmax(-1)
    )
    pixels = images * dataset.deviation[0] + dataset.mean[0]
    again = best.predict(pixels)
    np.testing.assert_allclose(again.probabilities, found.probabilities, atol=1e-5)


@pytest.fixture
def run(pictures):  # noqa: F811
    baseline.main([*SMALL, "--data", str(pictures), "--name", "run", "--epochs", "30"])
    return run_folder.ROOT / "run"


def test_new_pictures_are_named(run, pictures, capsys):  # noqa: F811
    for name, level in (("night", 20), ("day", 220)):
        image = Image.fromarray(np.full((30, 20), level, np.uint8))
        image.convert("RGB").save(f"{name}.png")
    capsys.readouterr()
    predict.main(["run", "day.png", "night.png", "--json", "found.json"])
    printed = capsys.readouterr().out
    assert "network: runs/run/networks/trained" in printed
    with open("found.json") as file:
        rows = json.load(file)
    assert [row["image"] for row in rows] == ["day.png", "night.png"]
    assert [row["class"] for row in rows] == ["bright", "dark"]
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1)
    saved = networks.find(run)
    assert (
        error_on_the_test(saved, catalogue.load(str(pictures), None, 8))
        == (saved.extra["test_error"])
    )
    np.save("both.npy", np.full((2, 8, 8, 1), 220, np.uint8))
    predict.main(["runs/run/networks/trained", "both.npy", str(pictures / "dark")])
    assert "both.npy[1]  bright" in capsys.readouterr().out
    nearest = eq.load("runs/run/networks/trained")
    assert nearest.class_names == ("bright", "dark")
    found = predict.predict("run", "night.png", np.load("both.npy"))
    assert found.names == ("dark", "bright", "bright")
    assert found.sources == ("night.png", "array[0]", "array[1]")
    with pytest.raises(ValueError, match="at least one image"):
        predict.predict("run")


def test_files_that_cannot_be_read_stand_in_no_ones_way(run, capsys):
    os.mkdir("more")
    Image.fromarray(np.full((9, 9), 220, np.uint8)).save("more/day.png")
    for name in ("more/broken.png", "more/notes.txt"):
        with open(name, "w") as file:
            file.write("not a picture")
    with pytest.raises(SystemExit, match="2"):
        predict.main(["run", "more", "--json", "found.json"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "more/day.png bright" in printed
    assert "error: 1 image cannot be read" in printed
    assert "more/broken.png: it is no image of a known format" in printed
    with open("found.json") as file:
        assert [row["image"] for row in json.load(file)] == ["more/day.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ru", "x.png"], "there is no run ru; nearest in runs/: run"),
        (["run", "nowhere.png"], "there is no file nowhere.png"),
        (["run", "runs/run/networks"], "holds no images"),
        (["run", "runs/run/config.json"], "config.json"),
        (["nowhere", "x.png"], "nowhere holds no trained network"),
        (["run", "x.png", "--member", "best"], "there are networks/trained"),
    ],
)
def test_what_is_not_there_is_named(run, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        predict.main([*arguments, "--json", "nothing.json"])
    assert message in " ".join(capsys.readouterr().out.split())
    assert not os.path.exists("nothing.json")
