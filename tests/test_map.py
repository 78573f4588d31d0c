"""What docs/map.md says of new things is all that they take: its examples are used."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import TINY

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/map.md"
FAST = "--batch-size 50 --epochs 0.5".split()


def edits(page):
    """New files, and lines that go into others: (path, line before or None, text)."""
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        for part in re.split(r"^(?=# new file: |# \S+, after: )", block, flags=re.M):
            if not part.strip():
                continue
            head, _, text = part.partition("\n")
            path, _, before = head.removeprefix("# ").partition(", after: ")
            yield path.removeprefix("new file: "), before or None, text


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository with everything added that the page adds."""
    folder = tmp_path_factory.mktemp("map") / "copy"
    folder.mkdir()
    for name in ("eqjax", "eqjax_experiments", "tests", "docs", "pyproject.toml"):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    for path, before, text in edits(PAGE.read_text()):
        file = folder / path
        if before is None:
            assert not file.exists(), path
            file.write_text(text)
        else:
            content = file.read_text()
            assert content.count(before + "\n") == 1, (path, before)
            file.write_text(content.replace(before + "\n", f"{before}\n{text}"))
    return folder


def run(folder, environment, *command):
    own = {**environment, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_new_thing_takes_two_places_at_most():
    places = {}
    page = PAGE.read_text()
    for section in re.split(r"^### ", page, flags=re.M)[1:]:
        title = section.partition("\n")[0]
        places[title] = {path for path, before, _ in edits(section) if before}
    assert len(places) == 5
    assert all(1 <= len(paths) <= 2 for paths in places.values()), places


@pytest.mark.slow
def test_new_things_work_from_the_command_line(copy, environment):
    evolve = (
        "--search hill-climbing --data strokes --ambient X2 --generations 1".split()
    )
    lengths = ["--first-epochs", "0.5", "--name", "climbed"]
    run(
        copy,
        environment,
        "-m",
        "eqjax_experiments.evolve",
        *evolve,
        *TINY,
        *FAST,
        *lengths,
    )
    saved = json.loads((copy / "runs/climbed/config.json").read_text())["config"]
    assert (saved["ambient"], saved["search"]) == ("X2", "hill-climbing")
    result = json.loads((copy / "runs/climbed/result.json").read_text())
    assert len(result["front"]) == 1
    compare = ["--methods", "D2", "gated residual", "--ambient", "X2", "--seeds", "1"]
    compare += ["--data", "strokes"]
    printed = run(
        copy, environment, "-m", "eqjax_experiments.compare", *compare, *TINY, *FAST
    )
    assert re.search(r"gated residual +│ +1 │", printed)
    baseline = ["--method", "gated", "--gated.start", "0.2", "--data", "strokes"]
    named = ["--name", "gated"]
    run(
        copy,
        environment,
        "-m",
        "eqjax_experiments.baseline",
        *baseline,
        *TINY,
        *FAST,
        *named,
    )
    saved = json.loads((copy / "runs/gated/config.json").read_text())["config"]
    assert saved["constraints"]["gated"] == {"start": 0.2}


@pytest.mark.slow
def test_new_things_obey_the_laws(copy, environment):
    chosen = (
        "(gated and (symmetric_point or collapses) and (circular or head))"
        " or (shift and (D4 or C2 or D1)) or layout or belongs_where"
    )
    files = [
        "tests/test_layout.py",
        "tests/constraints/test_relaxations.py",
        "tests/layers/test_conv.py",
        "tests/experiments/test_data.py",
    ]
    options = ["-q", "-k", chosen, "-p", "no:cacheprovider"]
    printed = run(copy, environment, "-m", "pytest", *options, *files)
    assert re.search(r"\d\d+ passed", printed)
