"""What the README shows is what happens."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_twenty_lines_run():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    # In a process of its own: the tests' double precision is not what users have.
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "D2:i+j" in printed
    assert re.search(r"head +D4 +C1 +0\.0e\+00", printed)


def test_links_lead_somewhere():
    root = Path(__file__).parents[1]
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (root / target).exists(), target
