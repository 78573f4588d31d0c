"""A module imports only from those above it, and importing eqjax stays cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = [
    "matrices",
    "naming",
    "groups",
    "orbits",
    "windows",
    "kernels",
    "winograd",
    "convolution",
    "constraints",
    "layers",
    "mixed",
    "relaxations",
    "norms",
    "pooling",
    "irreps",
    "matching",
    "morphism",
    "discretization",
    "architecture",
    "models",
    "training",
    "differentiable",
    "augmentation",
    "encoding",
    "devices",
    "population",
    "capacity",
    "evolution",
    "analysis",
]
NUMPY_ONLY = {"matrices", "naming", "groups", "orbits"}


def imported_modules(path):
    """All modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_its_place():
    found = {path.stem for path in (ROOT / "eqjax").glob("*.py")} - {"__init__"}
    assert found == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_modules_import_only_from_above(name):
    above = ORDER[: ORDER.index(name)]
    for module in imported_modules(ROOT / "eqjax" / f"{name}.py"):
        root, _, rest = module.partition(".")
        if root == "eqjax" and rest.split(".")[0] in ORDER:
            assert rest.split(".")[0] in above, f"{name} imports {module}"
        if name in NUMPY_ONLY:
            assert root not in ("jax", "flax", "optax")


def test_search_and_training_do_not_know_each_other():
    assert "eqjax.training" not in set(imported_modules(ROOT / "eqjax/evolution.py"))
    assert "eqjax.evolution" not in set(imported_modules(ROOT / "eqjax/training.py"))


def test_optional_packages_are_not_imported_before_they_are_needed():
    heavy = ["e3nn_jax", "sympy", "matplotlib", "scipy.ndimage", "tyro", "torch"]
    code = f"import sys, eqjax; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
