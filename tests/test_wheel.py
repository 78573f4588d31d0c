"""What is installed is the whole library: every package, and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import eqjax as eq
from tests.tiny import TINY

ROOT = Path(__file__).parents[1]
PACKAGES = ("eqjax", "eqjax_experiments")
ROOT_FILES = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "MANIFEST.in")
NOT_SOURCE = shutil.ignore_patterns("__pycache__")
# Every package does a part of what it is for.
SMOKE = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
import eqjax as eq

assert eq.__file__.startswith(sys.argv[1]), eq.__file__
D4 = eq.groups.standard_group("D4")
fiber = eq.fields.regular(D4)
window = eq.ops.window((8, 8), 3, 1, "SAME")
assert window.symmetry(D4) == D4
table = eq.kernels.kernel_table(D4, (3, 3), fiber, fiber)
assert table.num_orbits == 72
mixture = eq.constraints.Mixture((D4, D4.subgroup("C1")))
x = jnp.ones((4, 8, 8, 1))
layer = eq.layers.LiftingConv(2, 3, group=D4, constraint=mixture)
field, _ = layer.init_with_output(jax.random.key(0), x)
assert field.shape == (4, 8, 8, 8, 2)
groups = eq.models.Architecture.uniform(D4, 2)
model = eq.exact(groups, features=(1,), kernel_size=3, pool_after=(), head_features=2)
state = eq.training.init_state(jax.random.key(0), model, optax.sgd(0.1), x)
relaxed = model.clone(architecture=groups.replace(1, D4.subgroup("C4")))
sides = {"source": model, "target": relaxed, "inputs": x}
moved, report = eq.morphism.morph(state.variables, **sides)
population = eq.population.Population(model, optax.sgd(0.1), x)
stack = population.load([state], [model])
stack, metrics = population.train(stack, [(np.ones(x.shape, "f4"), np.arange(4))])
search = eq.search.Evolution(2)
proposals = search.ask(search.init(groups), jax.random.key(0))
error = eq.analysis.equivariance_error(
    lambda x: model.apply(state.variables, x), x, group=D4
)
assert error < 1e-5 and len(proposals) == 1 and np.isfinite(metrics.loss).all()
print("eqjax", eq.__version__)
"""


def files_of_packages():
    """Every file that is installed: modules, data, and the marks of typed packages."""
    kept = {".py", ".typed", ".npz", ".md", ".html", ".css", ".js"}
    return {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in kept
    }


def copy_of_the_sources(folder):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=NOT_SOURCE)
    for name in ("setup.cfg", "pyproject.toml", *ROOT_FILES):
        shutil.copy(ROOT / name, folder)


def built(kind, source, folder):
    """Build a wheel or an sdist, in an environment of its own, and return the file."""
    build = [sys.executable, "-m", "build", f"--{kind}", "--outdir", folder, source]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("eqjax-*.whl" if kind == "wheel" else "eqjax-*.tar.gz")
    return file


@pytest.mark.slow
def test_an_sdist_builds_the_same_wheel(tmp_path):
    source = tmp_path / "source"
    copy_of_the_sources(source)
    sdist = built("sdist", source, tmp_path)
    with tarfile.open(sdist) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
        opened.extractall(tmp_path / "unpacked", filter="data")
    assert names >= {*files_of_packages(), *ROOT_FILES}
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel = built("wheel", unpacked, tmp_path / "again")
    packed = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert packed == files_of_packages()


@pytest.mark.slow
def test_an_empty_environment_runs_the_commands(tmp_path):
    """What a user gets who knows nothing but the wheel."""
    source = tmp_path / "source"
    copy_of_the_sources(source)
    wheel = built("wheel", source, tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install = [python, "-m", "pip", "install", "-q", f"{wheel}[experiments]"]
    subprocess.run(install, check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    command = [tmp_path / "venv/bin/eqjax", "baseline", *TINY, "--name", "run"]
    subprocess.run(command, cwd=elsewhere, env=own, check=True)
    found = json.loads((elsewhere / "runs/run/result.json").read_text())
    assert 0 < found["readings"][0]["test_error"] < 1
    where = [python, "-c", "import eqjax_experiments as e; print(e.__file__)"]
    printed = subprocess.check_output(where, cwd=elsewhere, env=own, text=True)
    assert printed.startswith(str(tmp_path / "venv"))


def test_the_version_is_in_one_place():
    """Nothing but the package says it, and what cites it agrees."""
    assert "attr: eqjax.__version__" in (ROOT / "setup.cfg").read_text()
    cited = (ROOT / "CITATION.cff").read_text()
    assert f"version: {eq.__version__}" in cited
    newest = re.search(r"^## (\S+?),? ", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest[1] == eq.__version__


@pytest.mark.slow
def test_a_wheel_holds_every_package(tmp_path, environment):
    source = tmp_path / "source"
    copy_of_the_sources(source)
    wheel = built("wheel", source, tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == files_of_packages()
    (scripts,) = (name for name in names if name.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(scripts).decode()
    assert "eqjax = eqjax_experiments.__main__:main" in text
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target"]
    subprocess.run([*install, target, wheel], check=True)
    own = {**environment, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", SMOKE, str(target)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=own,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("eqjax ")


@pytest.mark.slow
def test_a_clone_is_imported_from_beside_it(tmp_path):
    """A folder of the clone's name would be taken for an empty package."""
    clone = tmp_path / "eqjax"
    copy_of_the_sources(clone)
    shutil.copytree(ROOT / "experiments", clone / "experiments", ignore=NOT_SOURCE)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "-e", clone]
    subprocess.run(install, check=True)
    find = (
        "import importlib.util as u;"
        "print(*(u.find_spec(n).origin for n in ('eqjax', 'eqjax_experiments')))"
    )
    for folder in (tmp_path, tmp_path / "venv", clone):
        found = subprocess.run(
            [python, "-c", find], cwd=folder, capture_output=True, text=True, check=True
        )
        expected = [str(clone / name / "__init__.py") for name in PACKAGES]
        assert found.stdout.split() == expected
