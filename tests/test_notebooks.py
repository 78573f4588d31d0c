"""The notebooks run from start to end, and show what they are to show."""

import os
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from tests.page import Page

FOLDER = Path(__file__).parents[1] / "notebooks"
# Words of what is shown as HTML, in this order.
SHOWN = {
    "idea": (
        "Group(D4), order 8: 10 subgroups",
        "98 subgroups in 33 classes",
        "EquivariantCNN over D4",
        "Architecture of 4 layers over D4",
        "largest change",
        "layer D4 C4 C2 C1",
        "LiftingConv",
        "Try kernel_size=4",
    ),
    "which_symmetry": ("not rejected: C4", "Architecture of 4 layers", "conv1"),
    "own_images": (
        "image class probability",
        "Saved in",
        "EquivariantCNN",
        "architecture",
    ),
    "own_model": (
        "keeps",
        "generation 3",
        "Network",
        "head D4 C4",
        "network p",
        "conv D4",
    ),
    "volumes": (
        "98 subgroups",
        "C4v",
        "EquivariantCNN",
        "D4h:i",
        "head Oh",
        "C∞v",
        "Irreps",
    ),
}


def test_every_notebook_is_a_script_that_jupytext_reads():
    files = {file.stem for file in FOLDER.glob("*.py")}
    assert files == set(SHOWN)
    for name in files:
        notebook = jupytext.read(FOLDER / f"{name}.py")
        nbformat.validate(notebook)
        first, *others = notebook.cells
        assert first.cell_type == "markdown"
        assert first.source.startswith("# ")
        code = [cell.source for cell in others if cell.cell_type == "code"]
        assert any("assert" in source for source in code)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs_and_shows_its_tables(name, environment, tmp_path, monkeypatch):
    fast = {**environment, "XLA_FLAGS": os.environ["XLA_FLAGS"]}
    for variable, value in fast.items():
        monkeypatch.setenv(variable, value)
    notebook = jupytext.read(FOLDER / f"{name}.py")
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources=place
    ).execute()
    data = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "data" in output
    ]
    forms = [
        " ".join(Page(each["text/html"]).words) for each in data if "text/html" in each
    ]
    left = iter(forms)
    for words in SHOWN[name]:
        assert any(words in form for form in left), (words, forms)
    assert all("text/plain" in each for each in data)
