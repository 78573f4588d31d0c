"""Commands on a folder of somebody's own images, from a folder of their own."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from eqjax_experiments import baseline, inspect
from eqjax_experiments.data import catalogue
from eqjax_experiments.runs import run_folder
from tests.tiny import TINY

SMALL = [*TINY, "--batch-size", "8", "--image-size", "8", "--epochs", "1"]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Thirty pictures of two classes, and an empty folder to work in."""
    rng = np.random.default_rng(0)
    for i in range(30):
        file = tmp_path / "pictures" / ("bright", "dark")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (8, 8), dtype=np.uint8) + 127 * (1 - i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    catalogue.load.cache_clear()
    yield tmp_path / "pictures"
    catalogue.load.cache_clear()


def resume(*arguments):
    catalogue.load.cache_clear()
    baseline.main(["--name", "run", "--resume", *arguments])


def test_a_run_says_how_every_class_fares_and_survives_a_copy(pictures, capsys):
    baseline.main([*SMALL, "--data", str(pictures), "--name", "run"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"loading {pictures}")
    for line in ("images are gray", "test images by class", "bright", "dark"):
        assert line in printed
    folder = run_folder.ROOT / "run"
    config = json.loads((folder / "config.json").read_text())
    assert config["images"] == {"bright": [12, 1, 2], "dark": [12, 1, 2]}
    (row,) = json.loads((folder / "result.json").read_text())["readings"]
    confusion = np.array(row["confusion"])
    assert confusion.sum(1).tolist() == [2, 2]
    errors = 1 - confusion.diagonal() / confusion.sum(1)
    assert list(row["class_errors"].values()) == errors.tolist()
    wrong = confusion.sum() - confusion.trace()
    assert abs(row["test_error"] - wrong / confusion.sum()) < 1e-6

    os.utime(pictures / "dark" / "1.png")
    resume()
    copy = shutil.copytree(pictures, pictures.with_name("copy"))
    shutil.rmtree(pictures)
    resume("--data", str(copy))
    resume()  # the run knows where its data are now
    Image.new("L", (8, 8)).save(copy / "dark" / "1.png")
    (copy / "dark" / "3.png").unlink()
    with pytest.raises(SystemExit):
        resume()
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 removed, such as dark/3.png; 1 changed, such as dark/1.png" in printed


def test_a_folder_is_not_taken_for_data_of_its_name(pictures):
    pictures.rename("upright")
    with pytest.raises(ValueError, match=r"write --data \./upright"):
        catalogue.load("upright")
    assert catalogue.load("./upright", None, 8).class_names == ("bright", "dark")


def test_what_becomes_of_pictures_is_said(pictures):
    Image.fromarray(np.zeros((12, 10), np.uint8)).save(pictures / "dark/large.png")
    (pictures / "dark/notes.txt").write_text("seen from above")
    remark = catalogue.load(str(pictures), None, 8).remark
    assert "8 x 8 to 10 x 12 pixels, cut square and scaled to 8 x 8" in remark
    assert "1 other file passed over" in remark
    assert "notes.txt" in remark


def test_a_run_is_found_by_the_name_of_its_folder(pictures, capsys):
    baseline.main([*SMALL, "--data", str(pictures), "--name", "run"])
    capsys.readouterr()
    (run_folder.ROOT / "run/result.json").unlink()
    with run_folder.alone(run_folder.ROOT / "run"):
        inspect.main(["run"])
        assert "it is running" in capsys.readouterr().out
    inspect.main(["run"])
    printed = capsys.readouterr().out
    assert f"data:     {pictures} (Folder" in printed
    assert "it has stopped, continue with: " in printed
    assert "baseline --name run --resume" in printed
