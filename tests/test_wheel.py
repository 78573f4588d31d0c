"""What is installed is the whole library: every package, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


@pytest.mark.slow
def test_a_wheel_holds_every_package(tmp_path, environment):
    source = tmp_path / "source"
    shutil.copytree(ROOT / "eqjax", source / "eqjax", ignore=NOT_SOURCE)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w"]
    subprocess.run([*build, tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("eqjax-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name for name in names if ".dist-info/" not in name}
    tracked = {str(p.relative_to(ROOT)) for p in (ROOT / "eqjax").rglob("*.py")}
    assert packed == {*tracked, "eqjax/py.typed"}
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
    for name in ("eqjax", "experiments"):
        shutil.copytree(ROOT / name, clone / name, ignore=NOT_SOURCE)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "-e", clone]
    subprocess.run(install, check=True)
    find = (
        "import importlib.util as u;"
        "print(*(u.find_spec(n).origin for n in ('eqjax', 'experiments')))"
    )
    for folder in (tmp_path, tmp_path / "venv", clone):
        found = subprocess.run(
            [python, "-c", find], cwd=folder, capture_output=True, text=True, check=True
        )
        expected = [str(clone / n / "__init__.py") for n in ("eqjax", "experiments")]
        assert found.stdout.split() == expected
