"""The page on a run: what it says, by parsing it."""

import base64
import json
from html.parser import HTMLParser

import jax
import numpy as np
import plotly.offline
import pytest

import eqjax as eq
from eqjax_experiments import (
    baseline,
    compare,
    differentiate,
    evolve,
    guide,
    report,
)
from eqjax_experiments.data import catalogue
from eqjax_experiments.reports import charts, kernels, overview, page
from eqjax_experiments.reports.family import family
from eqjax_experiments.reports.turned_maps import turn
from eqjax_experiments.runs import networks, reading
from tests.tiny import TINY

SEARCH = ["--generations", "2", "--population-size", "2", "--children", "3"]
SHORT = ["--first-epochs", "0.1", "--epochs", "0.1"]
GONE = "Not in this run"
LIBRARY = plotly.offline.get_plotlyjs()
TITLES = [
    "What was run",
    "Result",
    "Methods",
    "Error and parameters",
    "Family tree",
    "Groups over the generations",
    "Errors over the training",
    "Mixture weights over time",
    "Evidence over time",
    "Distances to groups",
    "Learned kernels",
    "Feature maps under a turn",
    "Times",
]


class Page(HTMLParser):
    """The text and the charts of every section, by its title."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.tags, self.choices = {}, [], {}
        self.here, self.inside = "", []
        self.feed(text.replace(LIBRARY, ""))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "link"):
            self.inside.append((tag, dict(attrs)))
        if tag == "h2":
            self.here = None

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, attrs = self.inside[-1] if self.inside else ("", {})
        if tag == "h2":
            self.here = data
            self.sections[data] = {"text": "", "charts": []}
        elif tag == "script":
            if attrs.get("type") == "application/json":
                self.sections[self.here]["charts"].append(json.loads(data))
        elif tag == "option":
            self.choices.setdefault(self.here, []).append(data)
        elif self.here in self.sections and tag != "style":
            self.sections[self.here]["text"] += " ".join(data.split()) + " "

    @property
    def titles(self):
        """Of all sections, those that the run has not at the end."""
        gone = self.missing
        return sorted([*(t for t in self.sections if t != GONE), *gone])

    @property
    def missing(self):
        """The sections that the run has not."""
        said = self.sections.get(GONE, {"text": ""})["text"]
        return [title for title in TITLES if title in said]

    def text(self, title):
        return self.sections[title]["text"]

    def charts(self, title):
        return self.sections[title]["charts"]


def numbers(values):
    """The numbers of a trace, which plotly packs where they were an array."""
    if not isinstance(values, dict):
        return values
    packed = np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
    shape = [int(n) for n in values.get("shape", "-1").split(",")]
    return packed.reshape(shape)


def child(groups, loss, kept, parent=0, error=0.5):
    return {
        "groups": groups.split(),
        "parent": parent,
        "parameters": 100 + len(groups),
        "train_loss": loss,
        "train_error": error,
        "validation_loss": loss,
        "validation_error": None if loss is None else error,
        "kept": kept,
    }


RECORDS = [
    {"generation": 0, "diverged": 0, "children": [child("D4 D4", 1.5, 0)]},
    {
        "generation": 1,
        "diverged": 1,
        "children": [
            child("D4 D4", 1.0, 1),
            child("D4 C4", 0.75, 0, error=0.25),
            child("D4 C1", None, None),
        ],
    },
    {
        "generation": 2,
        "diverged": 0,
        "children": [
            child("D4 C4", 0.5, 0),
            child("C4 C4", 0.625, None),
            child("D4 D4", 0.875, 1, parent=1),
            child("D4 C1", 0.375, 2, parent=1),
        ],
    },
]
CONFIG = {
    "config": {"data": "quarter", "ambient": "D4", "generations": 2, "groups": None},
    "data": "some digits",
    "images": {"zero": [8, 2, 3], "one": [9, 4, 5]},
    "environment": {"python": "3.11", "jax": "0.10", "device": "cpu:0"},
}


def write(folder, config=CONFIG, records=RECORDS, timed=True, **more):
    """Write the files of a run."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(lines)
    if timed:
        key = "step" if records and "step" in records[0] else "generation"
        seconds = [{key: r[key], "seconds": 2.0 + i} for i, r in enumerate(records)]
        lines = "".join(json.dumps(row) + "\n" for row in seconds)
        (folder / "timing.jsonl").write_text(lines)
    for name, value in more.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def test_children_know_their_parents_and_what_a_relaxation_did():
    first, *rest = family(RECORDS)
    copy, relaxed, lost = rest[:3]
    assert first.parent is None
    assert [c.parent for c in rest[:3]] == [first] * 3
    assert (copy.effect, relaxed.effect, lost.effect) == (None, -0.25, None)
    assert relaxed.change(["conv1", "head"]) == "head: D4 to C4"
    # The population is in the order of `kept`, not of the children.
    assert [c.parent for c in rest[3:]] == [relaxed, relaxed, copy, copy]
    assert [c.effect for c in rest[3:]] == [None, 0.125, None, -0.5]


def test_a_population_stays_where_all_its_children_diverged():
    lost = {"generation": 3, "children": [child("D4 C4", None, None)]}
    after = {"generation": 4, "children": [child("D4 C1", 0.25, 0, parent=2)]}
    everyone = family([*RECORDS, lost, after])
    assert everyone[-1].parent.groups == ["D4", "C1"]
    assert everyone[-1].parent.generation == 2


def test_a_search_that_is_not_finished_shows_what_there_is(tmp_path):
    folder = write(tmp_path / "run")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"generation": 3, "chil')
    text = report.report(folder)
    found = Page(text)
    assert found.titles == sorted(TITLES)
    assert "not finished: 2 of 2 generations done" in " ".join(text.split())
    said = found.text("What was run")
    for word in (
        "some digits",
        "17 training, 6 validation, 8 test",
        "cpu:0",
        "jax 0.10",
    ):
        assert word in said
    assert "no verdict yet" in found.text("Result")
    assert "those that live" in found.text("Error and parameters")
    (front,) = found.charts("Error and parameters")
    assert front["data"][1]["x"] == [105, 105, 105]
    assert front["data"][2]["x"] == []  # no test before the end
    assert len(front["data"][0]["x"]) == 7  # the one that diverged has no error
    tree, effects = found.charts("Family tree")
    assert "1 child diverged" in found.text("Family tree")
    assert sorted(effects["data"][0]["x"]) == [-0.5, -0.25, 0.125]
    relaxed = tree["data"][1]
    assert relaxed["name"] == "relaxed"
    assert relaxed["x"] == [0, 1, None, 1, 2, None, 1, 2, None]
    assert relaxed["y"] == [1.5, 0.75, None, 0.75, 0.625, None, 1.0, 0.375, None]
    assert "layer 1: D4 to C4" in found.text("Family tree")
    shares = [
        t for t in found.charts("Groups over the generations")[0]["data"] if "y" in t
    ]
    last = {
        (t["name"], t.get("yaxis", "y")): t["y"][-1]
        for t in shares
        if t["type"] == "bar"
    }
    assert last["D4", "y"] == 100
    np.testing.assert_allclose(last["C1", "y2"], 100 / 3)
    assert "No network has been saved yet" in found.text(GONE)
    (seconds,) = found.charts("Times")
    assert seconds["data"][0]["y"] == [2, 3, 4]
    assert f"{7 / 7:.2f} s per child" in found.text("Times")


def test_the_page_is_one_file_that_loads_nothing(tmp_path):
    text = report.report(write(tmp_path / "run"))
    found = Page(text)
    for tag, attrs in found.tags:
        assert tag not in ("link", "img", "iframe")
        assert not {"src", "srcset"} & attrs.keys()
        assert attrs.get("href", "#").startswith("#")
    policy = next(a for t, a in found.tags if a.get("http-equiv"))["content"]
    assert policy.startswith("default-src 'none'")
    assert text.count("plotly.js v") == 1
    anchors = {a["href"][1:] for t, a in found.tags if t == "a"}
    assert anchors == {a["id"] for t, a in found.tags if t == "section"}


HOSTILE = "</script><script>bad()</script><b>&amp;\"'"


def test_what_comes_from_users_is_text(tmp_path):
    config = json.loads(json.dumps(CONFIG))
    config["images"] = {HOSTILE: [1, 2, 3]}
    config["data"] = config["config"]["data"] = HOSTILE
    reading_ = {
        "reading": "best of front",
        "groups": ["D4", "C4"],
        "test_error": 0.25,
        "class_errors": {HOSTILE: 0.5, "other": 0.0},
        "confusion": [[1, 1], [0, 2]],
    }
    front = [{"groups": ["D4", "C4"], "parameters": 9, "validation_error": 0.0}]
    front[0]["test_error"] = 0.0
    result = {
        "front": front,
        "readings": [reading_],
        "verdict": {"group": None, "reason": HOSTILE},
    }
    text = report.report(write(tmp_path / "run", config, result=result))
    assert "bad()</script>" not in text
    found = Page(text)
    assert HOSTILE in found.text("What was run")
    assert HOSTILE in found.text("Result")
    assert not any(tag == "b" for tag, _ in found.tags)
    chart = page.Chart(charts.figure(), HOSTILE)
    assert charts.escaped("<b>") == "&lt;b&gt;"
    shown = page.render("t", "l", [page.Section("s", [chart])])
    assert "bad()</script>" not in shown
    named = page.Chart(charts.figure([{"type": "bar", "name": HOSTILE}]), "")
    assert "<" not in named.data
    assert json.loads(named.data)["data"][0]["name"] == HOSTILE


def test_errors_and_losses_of_zero_are_drawn(tmp_path):
    records = [{"generation": 0, "children": [child("D4", 0.0, 0, error=0.0)]}]
    front = [{**records[0]["children"][0], "test_error": 0.0}]
    result = {"front": front, "readings": [], "verdict": {"group": "D4", "reason": "r"}}
    found = Page(report.report(write(tmp_path / "run", records=records, result=result)))
    (drawn,) = found.charts("Error and parameters")
    assert drawn["layout"]["yaxis"]["type"] == "linear"
    assert drawn["data"][2]["y"] == [0]
    (tree,) = found.charts("Family tree")
    assert tree["layout"]["yaxis"]["type"] == "linear"
    assert "No child has been relaxed" in found.text("Family tree")
    assert "Symmetry of the data: D4; r." in found.text("Result")
    assert "The run is finished" in report.report(tmp_path / "run")


def test_a_search_in_which_all_diverged(tmp_path):
    records = [{"generation": 0, "children": [child("D4 D4", None, None)]}]
    result = {"front": [], "readings": [], "verdict": {"group": None, "reason": "r"}}
    found = Page(report.report(write(tmp_path / "run", records=records, result=result)))
    assert "Every network diverged" in found.text("Error and parameters")
    assert "1 child diverged" in found.text("Family tree")


def test_of_many_children_only_ancestors_are_drawn(tmp_path):
    def generation(number):
        rows = [child("D4 D4", 1.0, 0)]
        rows += [child("D4 C4", 1.0 + i, i, parent=0) for i in range(1, 200)]
        rows += [child("D4 C1", 9.0, None, parent=i) for i in range(200)]
        return {"generation": number, "children": rows}

    records = [RECORDS[0], *(generation(i) for i in range(1, 6))]
    records[1] = {"generation": 1, "children": records[1]["children"][:200]}
    found = Page(report.report(write(tmp_path / "run", records=records)))
    tree = found.charts("Family tree")[0]
    drawn = sum(len(trace["x"]) for trace in tree["data"] if trace["mode"] == "markers")
    assert drawn == 200 + 5  # the last population, and one ancestor per generation
    assert "Of 1,801 children only the 205" in found.text("Family tree")


def pieces(weights):
    points = [{"step": step, "weights": own} for step, own in enumerate(weights, 1)]
    return [
        {
            "step": 2,
            "train_error": 0.5,
            "validation_error": 0.25,
            "mixtures": points[:2],
        },
        {
            "step": 3,
            "train_error": None,
            "validation_error": 0.0,
            "mixtures": points[2:],
        },
    ]


def test_a_training_shows_errors_mixtures_and_distances(tmp_path):
    config = {
        **CONFIG,
        "config": {"mixture": "learned", "retrain": True, "data": "quarter"},
    }
    weights = [{"conv1": {"D4": z, "C1": 1 - z}} for z in (0.5, 0.25, 0.0)]
    distances = {"conv1": {"D4": 0.5, "C1": 0.0}, "head": {"D4": 0.0, "C1": 0.0}}
    result = {"readings": [], "distances": distances}
    write(tmp_path / "run", config, pieces(weights), result=result)
    write(tmp_path / "run/retrained", config, pieces([{}] * 3))
    text = report.report(tmp_path / "run")
    found = Page(text)
    assert "not finished: the retraining has come to step 3" in text
    whole, again = found.charts("Errors over the training")
    assert whole["data"][0]["y"] == [50, None]
    assert again["data"][1]["y"] == [25, 0]
    (mixed,) = found.charts("Mixture weights over time")
    assert [t["y"] for t in mixed["data"]] == [[0.5, 0.25, 0.0], [0.5, 0.75, 1.0]]
    (measured,) = found.charts("Distances to groups")
    np.testing.assert_array_equal(numbers(measured["data"][0]["z"]), [[0.5, 0], [0, 0]])
    assert "Only a search by evolve records parents" in found.text(GONE)
    assert "3,000.0 ms per step" in found.text("Times")  # 3 s for the third step


def test_a_guided_search_shows_its_evidence(tmp_path):
    row = {"evidence": 1.25, "p": 0.5, "rejected": False, "gain": 0.5}
    strong = {"evidence": 90.0, "p": 0.001, "rejected": True, "gain": 2.0}
    entry = {
        "step": 2,
        "groups": ["D4", "D4"],
        "named": "C4",
        "decided": False,
        "next": ["D4", "C4"],
        "network": {"D4": strong, "C4": row},
        "layers": {"conv1": {"D4": row, "C4": row}, "head": {"D4": strong, "C4": row}},
        "evidence_for_relaxing": {"conv1": {"D4": 0.0, "C4": -0.125}},
    }
    config = {
        **CONFIG,
        "config": {"tested_images": 9, "use": "continued", "milestones": 2},
    }
    folder = write(
        tmp_path / "run",
        config,
        pieces([{}] * 3),
        evidence=[entry, {**entry, "step": 4}],
    )
    text = report.report(folder)
    found = Page(text)
    assert "names C4, the likeliest of several" in found.text("Result")
    drawn = found.charts("Evidence over time")
    assert len(drawn) == 3  # one for both tests, and the layers of each
    assert drawn[0]["data"][0]["y"] == [90, 1.25]
    assert "-0.125" in found.text("Evidence over time")
    assert found.choices["Evidence over time"] == ["after step 2", "after step 4"]
    assert "not finished" in text
    for stage in ("stage-2", "stage-2/stage-3"):
        write(folder / stage, config, pieces([{}] * 3), result={"readings": []})
    assert "not finished" in report.report(folder)
    (folder / "result.json").write_text('{"readings": []}')
    assert "The run is finished" in report.report(folder)


def row_of(method, seed, error, **more):
    return {
        "experiment": "few",
        "method": method,
        "seed": seed,
        "seconds": 1.0,
        "data": "digits",
        "reading": "as trained",
        "groups": ["D4"],
        "test_error": error,
        "training_parameters": 5,
        "test_parameters": 5,
        "steps": 3,
        **more,
    }


def test_a_comparison_has_a_table_with_intervals(tmp_path):
    rows = [row_of("D4", s, 0.25) for s in (0, 1)]
    rows += [row_of("<i>C4</i>", 0, 0.125), row_of("<i>C4</i>", 1, 0.0)]
    rows.append(row_of("<i>C4</i>", 2, None))
    folder = tmp_path / "run"
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(lines)
    text = report.report(folder)
    found = Page(text)
    assert "experiments of the paper" in text
    said = found.text("Methods")
    assert "minus D4" in said
    assert "-25.00 to -12.50" in said
    assert "1 network diverged" in said
    errors, differences = found.charts("Methods")
    assert sorted(errors["data"][0]["x"]) == [0, 12.5, 25, 25]
    assert differences["layout"]["yaxis"]["ticktext"] == ["&lt;i&gt;C4&lt;/i&gt;"]
    assert differences["data"][0]["x"] == [-18.75]
    assert differences["data"][0]["error_x"]["array"] == [6.25]
    assert "in the reports of these" in found.text(GONE)
    assert "<i>" not in text.partition("plotly.js v")[0]


def test_the_networks_that_a_search_of_generators_tried(tmp_path):
    config = {**CONFIG, "config": {"trainings": 3, "data": "quarter"}}
    folder = write(tmp_path / "run", config, records=[], timed=False)
    tried = [{"groups": ["D4", "C4"], "accuracy": a} for a in (0.5, 1.0)]
    (folder / "children.jsonl").write_text("".join(json.dumps(t) + "\n" for t in tried))
    text = report.report(folder)
    (drawn,) = Page(text).charts("Error and parameters")
    assert drawn["data"][0]["y"] == [50, 0]
    assert "2 networks have been tried" in text


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "there is no run gone; nearest in runs/: goner"),
        (
            lambda folder: (folder / "gone").mkdir(),
            "holds no run; expected config.json",
        ),
        (lambda folder: write(folder / "gone", [1, 2]), "config.json is damaged"),
        (
            lambda folder: (write(folder / "gone") / "metrics.jsonl").write_text(
                "{\n{}\n"
            ),
            "line 1 of runs/gone/metrics.jsonl is damaged",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, monkeypatch, capsys, prepare, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/goner").mkdir(parents=True)
    prepare(tmp_path / "runs")
    with pytest.raises(SystemExit, match="2"):
        report.main(["gone"])
    assert message in " ".join(capsys.readouterr().out.split())


def saved(folder, group, space, kernel_size=3, features=(1, 2)):
    """A network that was not trained, as it is saved."""
    ambient = eq.groups.standard_group(group)
    groups = eq.Architecture.uniform(ambient, len(features) + 1)
    sizes = {"features": features, "kernel_size": kernel_size, "pool_after": ()}
    model = eq.exact(groups, **sizes, head_features=2, classes=2)
    x = jax.ShapeDtypeStruct((1, *space, 1), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), np.ones(x.shape, np.float32))
    eq.save(folder, model, variables, preprocessing={"shape": x.shape[1:]}, inputs=x)
    return eq.load(folder)


def drawn_kernels(network):
    """The weights and the orbits of every layer, and what is said of it."""
    found = Page(page.render("t", "l", [kernels.kernels(network)]))
    shown = found.charts("Learned kernels")
    pairs = zip(shown[::2], shown[1::2], strict=True)
    return found, [
        (
            np.array(numbers(weights["data"][0]["z"])),
            numbers(orbits["data"][0]["customdata"]),
        )
        for weights, orbits in pairs
    ]


@pytest.mark.parametrize(
    ("group", "space", "said"),
    [
        ("D4", (6, 6), "Channel 1 of 1 read"),
        ("flip", (8,), "A filter of a sequence is one row"),
        pytest.param("Oh", (5, 5, 5), "middle one of 3 slices", marks=pytest.mark.slow),
    ],
)
def test_entries_of_one_orbit_are_equal_in_the_picture(tmp_path, group, space, said):
    found, layers = drawn_kernels(saved(tmp_path / "net", group, space))
    assert said in found.text("Learned kernels")
    assert len(layers) == 3
    for weights, orbits in layers:
        assert weights.shape == orbits.shape
        assert np.isnan(weights[orbits < 0]).all()
        together = [weights[orbits == n] for n in np.unique(orbits[orbits >= 0])]
        assert all(np.ptp(each) == 0 for each in together)
        assert max(map(len, together)) > 1
    if group == "D4":  # a row of D4's 8 filters of 9 taps, in two rows of four
        assert layers[0][0].shape == (2 * 3 + 1, 4 * 3 + 3)
        assert (layers[0][1] >= 0).sum() == 8 * 9


def test_filters_of_finer_angles_are_drawn_on_taps(tmp_path):
    found, layers = drawn_kernels(saved(tmp_path / "net", "C8", (9, 9), 5, (1,)))
    assert layers[0][0].shape == (2 * 5 + 1, 4 * 5 + 3)
    assert "turned copies of one filter" in found.text("Learned kernels")


def maps_of(network, dataset):
    return turn(network, np.asarray(dataset.validation.images[:1]))


@pytest.mark.parametrize(("group", "data"), [("D4", "quarter"), ("flip", "direction")])
def test_a_symmetric_network_turns_its_maps(tmp_path, group, data):
    dataset = catalogue.load(data)
    network = saved(tmp_path / "net", group, dataset.image_shape[:-1])
    turned = maps_of(network, dataset)
    errors = turned.errors()
    assert list(errors) == ["conv1", "conv2", "head", "logits"]
    for name, own in errors.items():
        assert max(own) < 1e-5, name
        assert len(own) == len(turned.turns)
    images = turned.images
    for u, image in zip(turned.turns, images[1:], strict=True):
        ambient = network.model.architecture.ambient
        expected = eq.transform(images[:1], u, group=ambient)[0]
        np.testing.assert_array_equal(image, expected)
    # A network without the symmetry does not: the same weights, read over C1.
    ambient = network.model.architecture.ambient
    groups = eq.Architecture((ambient.smallest,) * 3)
    free = network.model.clone(architecture=groups)
    x = np.ones((1, *dataset.image_shape), np.float32)
    variables = jax.jit(free.init)(jax.random.key(1), x)
    eq.save(
        tmp_path / "free",
        free,
        variables,
        preprocessing={"shape": x.shape[1:]},
        inputs=x,
    )
    broken = maps_of(eq.load(tmp_path / "free"), dataset).errors()
    assert max(broken["conv1"]) > 0.1


@pytest.mark.slow
def test_a_search_has_everything_on_its_page(folder, capsys):
    evolve.main([*TINY, *SEARCH, *SHORT, "--name", "run"])
    report.main(["run"])
    assert "report: runs/run/report.html" in capsys.readouterr().out
    found = Page((folder / "runs/run/report.html").read_text())
    front = json.loads((folder / "runs/run/result.json").read_text())["front"]
    (drawn,) = found.charts("Error and parameters")
    tested = drawn["data"][2]
    assert sorted(tested["y"]) == sorted(100 * m["test_error"] for m in front)
    assert "head: " in tested["customdata"][0]
    assert len(found.choices["Learned kernels"]) == 3
    best = networks.find(folder / "runs/run")
    assert found.choices["Feature maps under a turn"] == ["conv1", "conv2"]
    said = found.text("Feature maps under a turn")
    assert "rotation by 90°" in said
    label = best.class_names[int(catalogue.load("quarter").validation.labels[0])]
    assert f"of the class {label}" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "arguments", "sections"),
    [
        (baseline, [], ["Errors over the training", "Distances to groups"]),
        (differentiate, ["--groups", "D4", "C1"], ["Mixture weights over time"]),
        (guide, [], ["Evidence over time", "Distances to groups"]),
        (
            compare,
            ["--methods", "D4", "EquiNAS_E", "--seeds", "1", "--epochs", "0.2"],
            ["Methods"],
        ),
    ],
)
def test_runs_of_every_command_have_a_page(folder, command, arguments, sections):
    command.main([*TINY, *arguments, "--name", "run"])
    text = report.report("run")
    found = Page(text)
    assert found.titles == sorted(TITLES)
    assert "The run is finished" in text
    for title in sections:
        assert found.charts(title), title
    if command is not compare:
        assert len(found.charts("Learned kernels")) == 6
        assert found.charts("Feature maps under a turn")
    else:
        inner = sorted((folder / "runs/run").glob("*EquiNAS_E-0"))[0]
        assert Page(report.report(inner)).charts("Family tree")


@pytest.mark.slow
def test_data_that_are_gone_are_said_to_be(folder, monkeypatch):
    baseline.main([*TINY, "--epochs", "0.2", "--name", "run"])

    def gone(*settings):
        raise FileNotFoundError("there is no <file>")

    monkeypatch.setattr(catalogue, "load", gone)
    found = Page(report.report("run"))
    said = found.text(GONE)
    assert "cannot be loaded any more: there is no <file>." in said
    assert found.charts("Learned kernels")


def test_a_run_is_found_by_its_settings(tmp_path):
    for command, settings in (
        ("climb", {"climbs": 4}),
        ("compare", {"seeds": 2}),
        (None, {"other": 1}),
    ):
        folder = tmp_path / str(command)
        write(folder, {**CONFIG, "config": settings}, records=[])
        assert reading.read(folder).command == command
        assert Page(report.report(folder)).titles == sorted(TITLES)


def test_settings_within_settings_have_their_names():
    settings = {"a": {"b": None, "c": [1, 2]}, "d": True}
    expected = [("a.b", "not given"), ("a.c", "1 2"), ("d", "yes")]
    assert overview.flat(settings) == expected
