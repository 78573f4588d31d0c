"""A module imports only from those above it, and importing eqjax stays cheap."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import eqjax as eq

ROOT = Path(__file__).parents[1]
# Every package, in the one chain. The modules inside a package have no circle.
ORDER = [
    "groups",
    "fields",
    "ops",
    "kernels",
    "constraints",
    "layers",
    "training",
    "models",
    "morphism",
    "exchange",
    "saving",
    "analysis",
    "population",
    "search",
    "nnx",
]
APART = ["nnx"]  # imported by its name, and not by eqjax
EXPERIMENTS = ["data", "reports", "runs", "engine", "tasks", ""]  # "": the commands
NUMPY_ONLY = ("eqjax.groups", "eqjax.fields.fiber")
PUBLIC = """
Architecture BatchNorm ClosedGroup Constraint DifferentiableSearch ElementBatchNorm
EquivariantCNN Evolution Fiber FieldDropout GammaProjection Group GroupConv
GroupConvTranspose GroupNorm InvariantHead IrrepsConv IrrepsFiber IrrepsLinear LayerNorm
LearnedSharing LiftingConv MetaLearning MixedGroupConv MixedInvariantHead
MixedLiftingConv Mixture NonStationary PartialGroup Population RMSNorm RelaxedOutputs
RelaxedWeights ResidualPathway SoftProjection Strategy Tied assert_equivariant augment
avg_pool choose_strategy collapse compensated_steps count_compilations cyclic
device_mesh dihedral discretize distances dual_gammas enumerate_architectures
equivariance_error evolve exact export fiber_pool flip from_conv from_escnn
from_escnn_norm from_plain full_octahedral grow held_out_test hill_climb
laplace_evidence lift_irreps load lower_irreps max_pool mixtures morph morph_optimizer
octahedral orthogonal paper partition_distance quotient random_architecture
random_gradients read_plain regular relax save scheduled_gammas search_generators
sharing_distances symmetry to_conv transform trivial upsample window
""".split()


def imported_modules(path):
    """All modules that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a module is"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_in(folder):
    """Dotted names of all modules below a folder, by their files."""
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): path
        for path in folder.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }


MODULES = modules_in(ROOT / "eqjax")


def inside(package):
    """Every module of a package, with the modules of the package that it imports."""
    names = {name.split(".")[1] for name in MODULES if name.startswith(f"{package}.")}
    found = {}
    for name in names:
        imported = set(imported_modules(MODULES[f"{package}.{name}"]))
        found[name] = {n for n in names if f"eqjax.{package}.{n}" in imported}
    return found


def test_every_module_has_its_place():
    assert {name.split(".")[0] for name in MODULES} == set(ORDER)
    packages = {path.parent.name for path in (ROOT / "eqjax").glob("*/__init__.py")}
    assert packages == set(ORDER)
    assert all(name.count(".") == 1 for name in MODULES), "packages hold no packages"


@pytest.mark.parametrize("name", MODULES)
def test_modules_import_only_from_above(name):
    package = name.split(".")[0]
    above = ORDER[: ORDER.index(package)]
    for imported in imported_modules(MODULES[name]):
        root, *rest = imported.split(".")
        if root == "eqjax" and rest and rest[0] in ORDER:
            assert rest[0] in (*above, package), f"{name} imports {imported}"
        if f"eqjax.{name}".startswith(NUMPY_ONLY):
            assert root not in ("jax", "flax", "optax")


@pytest.mark.parametrize("package", ORDER)
def test_modules_of_a_package_have_no_circle(package):
    TopologicalSorter(inside(package)).prepare()  # raises for a circle


@pytest.mark.parametrize("package", ORDER)
def test_packages_import_only_their_own_modules(package):
    for imported in imported_modules(ROOT / "eqjax" / package / "__init__.py"):
        assert imported.startswith(f"eqjax.{package}."), imported


@pytest.mark.parametrize("name", modules_in(ROOT / "eqjax_experiments"))
def test_experiments_import_only_from_above(name):
    room = name.rpartition(".")[0]
    above = EXPERIMENTS[: EXPERIMENTS.index(room) + 1]
    for imported in imported_modules(modules_in(ROOT / "eqjax_experiments")[name]):
        root, *rest = imported.split(".")
        if root == "eqjax_experiments" and rest:
            other = rest[0] if rest[0] in EXPERIMENTS else ""
            assert other in above, f"{name} imports {imported}"


def test_experiments_have_no_circle():
    found = modules_in(ROOT / "eqjax_experiments")
    imported = {name: set(imported_modules(path)) for name, path in found.items()}
    graph = {
        name: {n for n in found if f"eqjax_experiments.{n}" in own}
        for name, own in imported.items()
    }
    assert set(TopologicalSorter(graph).static_order()) == set(found)


def test_rooms_that_know_little():
    """Real channels know no groups, constraints no layers, training no search."""
    for room, unknown in (
        ("ops", ("groups", "fields")),
        ("constraints", ("layers",)),
        ("training", ("search", "models")),
        ("models", ("training",)),
    ):
        for name in (n for n in MODULES if n.startswith(f"{room}.")):
            imported = set(imported_modules(MODULES[name]))
            for other in unknown:
                assert not any(m.startswith(f"eqjax.{other}") for m in imported), name
    for name in ("proposals", "selection", "evolution"):  # these never train
        imported = imported_modules(ROOT / f"eqjax/search/{name}.py")
        assert not any(m.startswith("eqjax.training") for m in imported)


def test_public_names_and_packages_are_all_there_is():
    packages = [package for package in ORDER if package not in APART]
    shown = {n for n in dir(eq) if not n.startswith("_") and n not in APART}
    listed = [set(getattr(eq, package).__all__) for package in packages]
    assert shown == set.union(*listed, packages)
    assert sum(map(len, listed)) + len(packages) == len(shown)
    assert set(PUBLIC) <= shown
    for constraint in eq.constraints.CONSTRAINTS.values():
        assert getattr(eq, constraint.__name__) is constraint


def imported_by(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return set(done.stdout.split())


def test_optional_packages_are_not_imported_before_they_are_needed():
    heavy = {"e3nn_jax", "sympy", "matplotlib", "scipy.ndimage", "tyro", "torch"}
    assert not heavy & imported_by("import eqjax")


def test_the_embedded_digits_need_no_decoders():
    code = "from eqjax_experiments.data import catalogue; catalogue.load('upright')"
    assert not {"h5py", "PIL"} & imported_by(code)
