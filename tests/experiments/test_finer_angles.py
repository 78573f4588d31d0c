"""Commands over groups of finer angles."""

import json

import pytest

from eqjax_experiments import evolve, guide
from eqjax_experiments.tasks.baseline import BaselineTask
from tests.tiny import TINY

SHORT = [*TINY, "--image-size", "14", "--data", "quarter"]


@pytest.mark.slow
def test_an_evolution_over_finer_angles(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = "--ambient C8 --generations 1 --population-size 2 --name c8".split()
    evolve.main([*SHORT, "--epochs", "0.02", *words])
    printed = capsys.readouterr().out
    assert "C8 C8" in printed
    result = json.loads((tmp_path / "runs/c8/result.json").read_text())
    assert result


@pytest.mark.slow
def test_a_guided_search_over_finer_angles(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = "--ambient C8 --tested-images 100 --name guided".split()
    guide.main([*SHORT, "--epochs", "0.05", *words])
    printed = capsys.readouterr().out
    assert "C8 holds elements that pixels follow approximately" in printed
    evidence = json.loads((tmp_path / "runs/guided/evidence.json").read_text())
    assert evidence[-1]["named"] in ("C8", "C4", "C2", "C1")


def test_images_are_augmented_by_exact_elements_alone():
    task = BaselineTask(ambient="D8", data="quarter", data_group="C8")
    with pytest.raises(ValueError, match=r"--data-group C8.*C4 within it moves"):
        task.load()


def test_networks_of_finer_angles_blur_before_they_pool():
    fine = BaselineTask(ambient="C8", data="quarter", image_size=14)
    right = BaselineTask(ambient="C4", data="quarter", image_size=14)
    assert fine.model(fine.architecture).pooling == "blur"
    assert right.model(right.architecture).pooling == "exact"
