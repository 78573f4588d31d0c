"""What the README and the pages show is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def printed_by(page, environment, folder=None):
    """What all pieces of a page's program print, one after another, in a folder."""
    # Compiling is what takes the time here, and these programs run once.
    fast = {"XLA_FLAGS": os.environ["XLA_FLAGS"], **environment}
    pieces = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert pieces, page
    return subprocess.check_output(
        [sys.executable, "-c", "\n".join(pieces)], text=True, env=fast, cwd=folder
    )


def test_the_twenty_lines_run(environment):
    printed = printed_by(ROOT / "README.md", environment)
    assert "D2:i+j" in printed
    assert re.search(r"head +D4 +C1 +0\.0e\+00", printed)


@pytest.mark.slow
def test_the_population_of_the_page_is_trained(environment):
    assert printed_by(ROOT / "docs/populations.md", environment) == "(1, 10)\n" * 3


@pytest.mark.slow
def test_the_own_model_of_the_page_is_searched(environment):
    printed = printed_by(ROOT / "docs/own-models.md", environment)
    assert "generation 3, 0 diverged" in printed
    assert re.search(r"^(undecided|C\d): ", printed, re.MULTILINE)
    assert printed.endswith("(8, 2)\n")


@pytest.mark.slow
def test_the_volumes_of_the_page_are_relaxed(environment):
    assert printed_by(ROOT / "docs/volumes.md", environment) == ""


@pytest.mark.slow
def test_the_finer_angles_of_the_page_are_followed(environment):
    printed = printed_by(ROOT / "docs/angles.md", environment)
    assert "D1:22.5° 8 of 16 exact" in printed
    assert "exactly D4:i and nearly 8 more" in printed
    assert printed.endswith("the function is kept: True\n")


@pytest.mark.slow
def test_the_mixtures_of_the_page_are_found(environment):
    printed = printed_by(ROOT / "docs/mixtures.md", environment)
    assert printed.count("'D1:j'") == 3
    assert "restarted" in printed


@pytest.mark.slow
def test_the_symmetry_of_the_page_is_named(environment):
    printed = printed_by(ROOT / "docs/symmetry-tests.md", environment)
    assert "not rejected: C4 (" in printed
    assert printed.endswith("D4 D4 C4\n")


@pytest.mark.slow
def test_the_exports_of_the_page_are_the_network(environment, tmp_path):
    printed = printed_by(ROOT / "docs/export.md", environment, tmp_path)
    assert printed == "(5, 5, 16, 16)\n(4, 10)\n(3, 10)\n(4, 10)\n"


@pytest.mark.slow
def test_the_nnx_model_of_the_page_is_relaxed(environment):
    printed = printed_by(ROOT / "docs/nnx.md", environment).split("\n")
    assert float(printed[0]) < 1e-5
    assert float(printed[1]) > float(printed[2])
    assert float(printed[3]) < 1e-5


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_network_of_the_tutorial_is_relaxed_and_its_data_are_tested(environment):
    trained = environment | {"XLA_FLAGS": ""}  # hundreds of steps: optimized
    printed = printed_by(ROOT / "docs/tutorial.md", trained)
    assert (ROOT / "docs/tutorial.md").read_text().count(printed.partition("(")[0]) == 1
    assert "(2, 14, 14, 8, 4) (25, 1, 4)\n" in printed
    assert "commutes with a rotation: True" in printed
    assert "same function: True" in printed
    errors = dict(re.findall(r"(D4 in all|C4 in the|D4 as).*: +(.*) % error", printed))
    start, relaxed, kept = map(float, errors.values())
    assert relaxed < kept < start < 50
    assert "the data may have: ['C4']" in printed


@pytest.mark.slow
def test_the_mathematics_hold(environment):
    printed = printed_by(ROOT / "docs/mathematics.md", environment)
    assert f"```\n{printed}```" in (ROOT / "docs/mathematics.md").read_text()


@pytest.mark.slow
def test_the_pitfalls_are_found(environment):
    printed = printed_by(ROOT / "docs/pitfalls.md", environment)
    for fault in ("strided", "strided -> left_over", "left_over -> dense_head"):
        assert f"- {fault} loses rotation by 90°" in printed
    assert "28 keeps D1:i-j\n29 keeps D4\n" in printed
    assert "float32 commutes: True differs: False\n" in printed
    assert printed.endswith("bfloat16 commutes: True differs: True\n")
