"""What the README and the pages show is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def printed_by(page, environment, folder=None):
    """What the page's only program prints, run in a folder."""
    # Compiling is what takes the time here, and these programs run once.
    fast = {**environment, "XLA_FLAGS": os.environ["XLA_FLAGS"]}
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return subprocess.check_output(
        [sys.executable, "-c", code], text=True, env=fast, cwd=folder
    )


def test_the_twenty_lines_run(environment):
    printed = printed_by(ROOT / "README.md", environment)
    assert "D2:i+j" in printed
    assert re.search(r"head +D4 +C1 +0\.0e\+00", printed)


def test_the_population_of_the_page_is_trained(environment):
    assert printed_by(ROOT / "docs/populations.md", environment) == "(1, 10)\n" * 3


def test_the_own_model_of_the_page_is_searched(environment):
    printed = printed_by(ROOT / "docs/own-models.md", environment)
    assert "generation 3, 0 diverged" in printed
    assert re.search(r"^(undecided|C\d): ", printed, re.MULTILINE)
    assert printed.endswith("(8, 2)\n")


def test_the_finer_angles_of_the_page_are_followed(environment):
    printed = printed_by(ROOT / "docs/angles.md", environment)
    assert "D1:22.5° 8 of 16 exact" in printed
    assert "exactly D4:i and nearly 8 more" in printed
    assert printed.endswith("the function is kept: True\n")


def test_the_mixtures_of_the_page_are_found(environment):
    printed = printed_by(ROOT / "docs/mixtures.md", environment)
    assert printed.count("'D1:j'") == 3
    assert "restarted" in printed


def test_the_symmetry_of_the_page_is_named(environment):
    printed = printed_by(ROOT / "docs/symmetry-tests.md", environment)
    assert "not rejected: C4 (" in printed
    assert printed.endswith("D4 D4 C4\n")


def test_the_exports_of_the_page_are_the_network(environment, tmp_path):
    printed = printed_by(ROOT / "docs/export.md", environment, tmp_path)
    assert printed == "(5, 5, 16, 16)\n(4, 10)\n(3, 10)\n(4, 10)\n"


def test_the_nnx_model_of_the_page_is_relaxed(environment):
    printed = printed_by(ROOT / "docs/nnx.md", environment).split("\n")
    assert float(printed[0]) < 1e-5
    assert float(printed[1]) > float(printed[2])
    assert float(printed[3]) < 1e-5


def test_the_own_resnet_of_the_page_is_relaxed_and_exported(environment, tmp_path):
    printed = printed_by(ROOT / "docs/own-resnet.md", environment, tmp_path)
    kept, before, after, exported = map(float, printed.split())
    assert kept < 1e-5
    assert after < before
    assert exported < 1e-5


@pytest.mark.slow
def test_the_unet_of_the_page_learns_and_is_searched(environment):
    errors, found = printed_by(ROOT / "docs/segmentation.md", environment).splitlines()
    trivial, learned = (float(word) for word in errors.split(" %")[:2])
    assert learned < trivial / 2
    assert found in ("2 D4", "2 C4")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
