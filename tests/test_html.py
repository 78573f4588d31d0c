"""Whatever has a form for notebooks: well-formed HTML that says what its text says."""

import dataclasses
import functools
import inspect
import math
import re
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import treescope

import eqjax as eq
from eqjax import analysis, exchange, morphism, saving, search, training
from eqjax.analysis.evidence import LayerEvidence
from eqjax.groups import html
from eqjax.groups.text import WithSettings
from eqjax.morphism.report import LayerTable
from eqjax.search.perturbation import DecidedLayer, Removal
from tests import catalogue
from tests.page import Page
from tests.test_layout import APART, ORDER

D4 = eq.dihedral(4)
C4, C1 = D4.subgroup("C4"), D4.subgroup("C1")
GROUPS = eq.Architecture.parse(D4, "D4 C4")
MODEL = eq.exact(GROUPS, features=(2,), pool_after=(1,), kernel_size=3, classes=2)
INPUTS = jax.ShapeDtypeStruct((2, 6, 6, 1), jnp.float32)
BASES = {  # what others are made of, and has no form of its own
    "StagedModel",
    "TiedModule",
}


def evidence(group, value, p, *, rejected):
    return analysis.GroupEvidence(group, value, value, p, p, rejected, math.nan, 3)


def evidence_report():
    rows = {
        "D4": evidence(D4, 9.1234, 0.001, rejected=True),
        "C4": evidence(C4, 1.2, 0.31, rejected=False),
        "C1": evidence(C1, math.nan, 1.0, rejected=False),
    }
    layers = LayerEvidence({("conv1",): rows, ("a", "head"): rows})
    return analysis.SymmetryTest(D4, rows, layers, 0.05, 200, 2, ("noted <this>",))


def held_out_report():
    rows = {
        "D4": analysis.HeldOutRow(D4, 2.5, 5.0, 0.001, 0.001, True),
        "C1": analysis.HeldOutRow(C1, 0.5, 1.0, 1.0, 1.0, False),
    }
    return analysis.HeldOutTest(D4, rows, 0.05, 200, 0.5)


def symmetry_row(path, kept, **settings):
    errors = tuple(0.0 if u in kept else math.inf for u in D4.elements)
    kind = {"layer": "GroupConv", "shape": (2, 6, 6, 8, 2), "promised": D4}
    names = D4.element_names
    return analysis.SymmetryRow(
        path=path, kept=kept, errors=errors, elements=names, **kind, **settings
    )


@functools.cache
def reports():
    """What functions return, by name."""
    change = morphism.LayerChange(("conv1",), D4, C4, 0.25, 0.5, 9, 18, 1.5, math.nan)
    lossy = symmetry_row("conv2", C4, cause="strides & padding", repair="kernel_size=4")
    whole = dataclasses.replace(lossy, path="", layer="(all)")
    state = search.SearchState(3, (GROUPS,), (search.Score(0.123456, 42),), 1)
    verdict = search.Verdict(D4, "its best network errs on 3.1 % of 54")
    network = search.Network(MODEL, {}, 0.25, 42)
    weights = LayerTable({("conv1",): {"D4": 0.75, "C4": 0.25, "C1": -0.5}})
    metrics = training.Metrics(jnp.float32(0.5), jnp.float32(0.25))
    params = {"params": {"kernel": np.ones((3, 4))}}
    climber = search.Climber(MODEL, params, 0.125, ("widen",))
    removal = Removal(0.5, 0.25, 0.01, needed=True)
    morphed = morphism.MorphReport((change,))
    tested, held_out = evidence_report(), held_out_report()
    descent = optax.sgd(0.1)
    population = eq.Population(MODEL, descent, INPUTS)
    split = training.Split(np.ones((4, 6, 6, 1), np.float32), np.arange(4) % 2)
    sharing = eq.LiftingConv(1, 3, group=C1, constraint=eq.LearnedSharing("free"))
    mixed = MODEL.clone(constraint=eq.Mixture((D4, C1)))
    found = [
        held_out,
        morphed,
        weights,
        LayerTable({("conv1",): {"D4": 0.0}, ("head",): {}}),
        LayerTable({("conv1",): {f"G{n}": n / 7 for n in range(12)}}),
        LayerTable(),
        lossy,
        symmetry_row("conv1", D4),
        analysis.SymmetryReport(D4, (symmetry_row("conv1", D4), lossy), whole),
        tested,
        state,
        eq.Evolution().init(GROUPS),
        search.Checkpoint(state, ()),
        verdict,
        search.Verdict(None, "no relaxation was tried"),
        search.Evolved(state, (network,), verdict, ()),
        network,
        search.Climbed(climber, ((climber,), (climber,))),
        search.ReadOff((DecidedLayer(("conv1",), C4, {"C4": removal}),)),
        search.GeneratorSearch({GROUPS: 0.9, eq.Architecture((D4, D4)): 0.8}, ()),
        search.Guided(tested, search.Named(C4, True), GROUPS, MODEL, {}, metrics),
        search.Differentiated(
            (MODEL, {}), (MODEL, {}), weights, morphed, (metrics,) * 2
        ),
        exchange.TransplantReport(
            (exchange.TransplantedLayer(("conv1",), "features.0", D4, 0.125),)
        ),
        saving.Prediction(("<b>", "a & b"), np.array([[0.25, 0.75], [1.0, 0.0]])),
        eq.Evolution(),
        search.SearchLoop(
            eq.Evolution(), MODEL.clone, population, split, split, 2, 1, 0
        ),
        population,
        eq.DifferentiableSearch(mixed, descent, optax.adam(0.1)),
        eq.MetaLearning(sharing, descent),
    ]
    return {f"{n} {type(each).__name__}": each for n, each in enumerate(found)}


def modules():
    """Models and layers, by name."""
    Oh, O3 = eq.full_octahedral(), eq.orthogonal()
    kind = {"group": O3, "irreps_in": "1o"}
    return {
        "CNN": MODEL,
        "CNN as in the paper": eq.paper(eq.Architecture.uniform(D4, 8)),
        "CNN of volumes": eq.exact(
            eq.Architecture.uniform(Oh, 2),
            features=(1,),
            pool_after=(),
            stabilizer=Oh.subgroup("C4:k"),
            constraint=(eq.Tied(), eq.SoftProjection()),
        ),
        "ResNet": eq.resnet(eq.Architecture.uniform(D4, 5), blocks=(1, 2, 3)),
        "wide ResNet": eq.wide_resnet(eq.Architecture.parse(D4, "D4 D4 D4 C4 C1")),
        "UNet": eq.unet(eq.Architecture.uniform(D4, 6)),
        "irreps": eq.IrrepsConv("2x0e + 1o", 3, **kind),
        "linear": eq.IrrepsLinear("2x0e + 1o", **kind),
        "element norm": eq.ElementBatchNorm(group=D4),
        **{name: case.make(C4) for name, case in catalogue.PLANE.items()},
        **{
            f"constrained, {name}": eq.GroupConv(2, 3, group=D4, constraint=constraint)
            for name, constraint in catalogue.CONSTRAINT_CASES.items()
            if name != "sharing, apart"
        },
    }


@functools.cache
def saved(folder):
    variables = {"params": {"kernel": jnp.full((123, 4), 0.625)}}
    names = ("<six>", "nine")
    settings = {"preprocessing": {"mean": 0.5}, "class_names": names}
    eq.save(folder, MODEL, variables, test_error=0.0625, **settings)
    return eq.load(folder)


GROUPS_SHOWN = {
    str(H): H for H in (D4, D4.subgroup("D1:i+j"), eq.dihedral(8), eq.full_octahedral())
} | {"O(3)": eq.orthogonal(), "D5": eq.orthogonal(2).subgroup("D5")}
SHOWN = {
    **GROUPS_SHOWN,
    "architecture": GROUPS,
    "one layer": eq.Architecture((C1,)),
    "no group at all": eq.Architecture.uniform(eq.cyclic(1), 2),
    **reports(),
    **modules(),
}


def told(value):
    """The words that its text has."""
    if not isinstance(value, nn.Module | WithSettings):
        return str(value).split()
    lines = re.findall(r"\b(\w+) ?= ?([\w.]+)", repr(value))
    fields = {f.name for f in dataclasses.fields(value)} - {
        "name",
        "parent",
        "architecture",
    }
    return [word for line in lines if line[0] in fields for word in line]


@pytest.mark.parametrize("name", SHOWN)
def test_a_form_is_well_formed_and_says_what_the_text_says(name):
    value = SHOWN[name]
    seen = Page(value._repr_html_())
    words = " ".join(seen.words)
    assert told(value)
    for word in told(value):
        assert word in words, word
    assert "script" not in seen.tags
    assert len({len(row) for row in seen.rows}) <= 3  # of up to three tables


@pytest.mark.parametrize("name", SHOWN)
def test_a_form_takes_the_colors_of_the_page(name):
    """Text is never given a color, and what is behind it lets the page through."""
    made = SHOWN[name]._repr_html_()
    styles = ";".join(re.findall(r'style="([^"]*)"', made))
    assert not re.search(r"(^|;)color:", styles)
    for color in re.findall(r"background:([^;]*)", styles):
        assert float(re.fullmatch(r"rgba\([\d,]+,([\d.]+)\)", color).group(1)) <= 0.5
    fills = set(re.findall(r'fill="([^"]*)"', made))
    assert fills <= {"currentColor", f"rgb({html.COOL})"}


@pytest.mark.parametrize("name", SHOWN)
def test_a_form_is_made_at_once(name):
    value = SHOWN[name]
    value._repr_html_()  # names of groups are known from here on
    times = []
    for _ in range(3):
        begin = time.process_time()
        value._repr_html_()
        times.append(time.process_time() - begin)
    assert min(times) < 0.25


def test_every_public_class_with_a_form_is_among_these(tmp_path):
    public = {
        value
        for package in ORDER
        if package not in APART
        for value in vars(getattr(eq, package)).values()
        if inspect.isclass(value) and hasattr(value, "_repr_html_")
    }
    shown = {type(value) for value in (*SHOWN.values(), saved(tmp_path / "net"))}
    missing = {kind.__name__ for kind in public - shown}
    assert missing == BASES


def test_a_saved_network_is_shown_without_its_weights(tmp_path):
    made = saved(tmp_path / "net")._repr_html_()
    seen = " ".join(Page(made).words)
    for word in ("EquivariantCNN", "D4 C4", "492", "<six>, nine", "0.0625", "jax"):
        assert word in seen, word
    assert "0.625 0.625" not in seen
    assert len(made) < 4000


def layer_rows(model):
    """The rows of a model's first table, below its head."""
    return Page(model._repr_html_()).rows[1 : 1 + len(model.architecture)]


def test_models_have_a_row_for_every_layer():
    for name in ("CNN", "CNN as in the paper", "ResNet", "wide ResNet", "UNet"):
        model = SHOWN[name]
        shown = [(row[0], row[1]) for row in layer_rows(model)]
        groups = map(str, model.architecture.groups)
        assert shown == list(zip(model.layer_names, groups, strict=True))
    assert layer_rows(MODEL) == [
        ["conv1", "D4", "2", "3", "pooling"],
        ["head", "C4", "", "", ""],
    ]
    stages = [row[2:] for row in layer_rows(SHOWN["ResNet"])]
    assert stages == [["8", ""], ["8", "1"], ["16", "2"], ["32", "3"], ["", ""]]
    widths = [row[2] for row in layer_rows(SHOWN["UNet"])]
    assert widths == ["4", "8", "16", "8", "4", ""]


def shade_of(value, text):
    """The color behind the cell of a text."""
    made = value._repr_html_()
    (style,) = re.findall(rf'<td style="([^"]*)">{re.escape(text)}</td>', made)
    return next((c for c in (html.WARM, html.COOL) if c in style), None)


def test_colors_say_what_the_numbers_say():
    tested = SHOWN[next(n for n in SHOWN if n.endswith("SymmetryTest"))]
    assert shade_of(tested, "0.0010 x") == html.WARM
    assert shade_of(tested, "0.3100") is None
    assert shade_of(tested, "C4") == html.COOL
    assert shade_of(tested, "D4") is None
    found = SHOWN[next(n for n in SHOWN if n.endswith("LayerTable"))]
    assert shade_of(found, "0.75") == html.WARM
    assert shade_of(found, "-0.5") == html.COOL
    zeros = LayerTable({("conv1",): {"D4": 0.0, "C4": math.nan}})
    assert shade_of(zeros, "0") is None
    report = SHOWN[next(n for n in SHOWN if n.endswith("SymmetryReport"))]
    made = report._repr_html_()
    assert made.count(html.WARM) == 2  # conv2 and the network
    assert made.count(html.COOL) == 1  # conv1


def test_treescope_shows_modules_as_before():
    """It reads Flax's dataclasses itself, and is not kept from it."""
    shown = treescope.render_to_text(MODEL)
    assert "EquivariantCNN" in shown
    assert "head_features=64" in shown
    assert treescope.render_to_html(MODEL)


def test_forms_of_layers_are_no_calls_of_the_model():
    """A layer in a model has its form, too, where it is bound to variables."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = eq.LiftingConv(2, 3, group=D4)
            assert "LiftingConv" in Page(layer._repr_html_()).words
            return layer(x)

    variables = Net().init(jax.random.key(0), jnp.ones((1, 4, 4, 1)))
    assert set(variables["params"]) == {"LiftingConv_0"}
