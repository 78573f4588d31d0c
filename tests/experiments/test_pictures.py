"""Pictures draw what they are given: every figure, read back from its axes."""

import numpy as np
import pytest

import eqjax as eq
from eqjax_experiments.reports import pictures
from eqjax_experiments.reports.statistics import Line

D4 = eq.dihedral(4)


def child(groups, parameters, error, kept):
    return {
        "groups": groups.split(),
        "parameters": parameters,
        "validation_error": error,
        "kept": kept,
    }


RECORDS = [
    {"generation": 0, "children": [child("D4 D4", 100, 0.5, 0)]},
    {
        "generation": 1,
        "children": [
            child("D4 D4", 100, 0.4, 1),
            child("D4 C4", 150, 0.25, 0),
            child("D4 D2:i", 160, None, None),  # diverged
        ],
    },
]
FRONT = [
    {"groups": ["D4", "C4"], "parameters": 150, "validation_error": 0.25}
    | {"test_error": 0.3},
    {"groups": ["D4", "D4"], "parameters": 100, "validation_error": 0.4}
    | {"test_error": 0.45},
]


def labelled(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return np.array(line.get_xydata())


def bars(axes):
    """Height of the bars by label and position."""
    return {
        container.get_label(): [bar.get_height() for bar in container]
        for container in axes.containers
    }


def test_a_search_shows_its_children_its_front_and_its_groups():
    figure = pictures.search_figure(RECORDS, FRONT, ["layer 1", "head"], D4)
    front = next(a for a in figure.axes if a.lines)
    points = front.collections[0]
    np.testing.assert_allclose(points.get_offsets(), [(100, 50), (100, 40), (150, 25)])
    np.testing.assert_allclose(points.get_array(), [0, 1, 1])
    validated = labelled(front, "front, validation")
    np.testing.assert_allclose(validated, [(100, 40), (150, 25)])
    np.testing.assert_allclose(labelled(front, "front, test"), [(100, 45), (150, 30)])
    assert (front.get_xlabel(), front.get_ylabel()) == ("parameters", "error (%)")
    first, second = (a for a in figure.axes if a.containers)
    assert (first.get_ylabel(), second.get_ylabel()) == ("layer 1", "head")
    assert bars(first) == {"D4": [1, 1], "C4": [0, 0]}
    assert bars(second) == {"D4": [1, 0.5], "C4": [0, 0.5]}


def test_networks_without_an_error_are_drawn():
    """A logarithmic axis would hide the best of all."""
    perfect = [{**FRONT[0], "validation_error": 0.0, "test_error": 0.0}, FRONT[1]]
    records = [*RECORDS, {"generation": 2, "children": [child("D4 C4", 150, 0.0, 0)]}]
    for front in (perfect, perfect[:1]):
        figure = pictures.search_figure(records, front, ["layer 1", "head"], D4)
        figure.draw_without_rendering()
        axes = next(a for a in figure.axes if a.lines)
        for label in ("front, validation", "front, test"):
            drawn = axes.transData.transform(labelled(axes, label))
            assert np.isfinite(drawn).all()
            assert axes.bbox.contains(*drawn[-1])
        low, high = axes.get_ylim()
        assert low <= 0 < high


def test_a_search_that_diverged_is_drawn():
    lost = [{"generation": 0, "children": [child("D4", 9, None, None)]}]
    figure = pictures.search_figure(lost, [], ["layer 1"], D4)
    (front,) = [a for a in figure.axes if a.lines]
    assert len(front.collections[0].get_offsets()) == 0
    assert len(labelled(front, "front, test")) == 0


def point(step, **weights):
    return {"step": step, "weights": {"conv1": weights, "head": weights}}


@pytest.mark.parametrize("mixed", [True, False])
def test_a_training_shows_errors_mixtures_and_distances(mixed):
    paths = [[point(1, D4=0.5, C1=0.5)], [point(2, D4=0.25, C1=0.75)]]
    records = [
        {"step": step, "train_error": error, "validation_error": 2 * error}
        | {"mixtures": path if mixed else [{"step": step, "weights": {}}]}
        for step, error, path in zip((1, 2), (0.2, 0.0), paths, strict=True)
    ]
    distances = {"conv1": {"D4": 0.5, "C1": 0.0}, "head": {"D4": 0.96, "C1": 0.0}}
    figure = pictures.trial_figure(records, distances)
    errors = next(a for a in figure.axes if a.lines)
    np.testing.assert_allclose(labelled(errors, "training"), [(1, 20), (2, 0)])
    np.testing.assert_allclose(labelled(errors, "validation"), [(1, 40), (2, 0)])
    assert errors.get_ylim()[0] == 0
    measured = next(a for a in figure.axes if a.images)
    np.testing.assert_allclose(measured.images[0].get_array(), [[0.5, 0], [0.96, 0]])
    assert [t.get_text() for t in measured.texts] == [".50", "0", ".96", "0"]
    assert [t.get_text() for t in measured.get_xticklabels()] == ["D4", "C1"]
    assert [t.get_text() for t in measured.get_yticklabels()] == ["conv1", "head"]
    stacks = [a for a in figure.axes if a.collections]
    assert len(stacks) == (2 if mixed else 0)
    for axes in stacks:
        tops = [c.get_paths()[0].get_extents().y1 for c in axes.collections]
        np.testing.assert_allclose(tops, [0.5, 1.0])
        assert axes.get_xlim() == (1, 2)


def line(method, errors, parameters):
    seeds = range(len(errors))
    counts = dict.fromkeys(seeds, parameters)
    own = dict(zip(seeds, errors, strict=True))
    return Line(method, own, None, None, None, counts, counts, 1.0, 1.0, {"D4": 1})


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 45])
def test_a_comparison_shows_every_seed_of_every_method(rows, zero):
    lines = [
        line(f"method {i}", [0.0 if zero else 1.0 + i, 2.0 + i], 10 * (i + 1))
        for i in range(rows)
    ]
    figure = pictures.comparison_figure("some digits", lines)
    left, right = figure.axes
    shown = [np.array(c.get_offsets()) for c in right.collections]
    assert len(shown) == rows
    for each, points in zip(lines, shown, strict=True):
        expected = [(each.test_parameters[0], e) for e in each.errors.values()]
        np.testing.assert_allclose(points, expected)
    medians = [np.mean(list(each.errors.values())) for each in lines]
    drawn = [x[0] for x in (li.get_xdata() for li in left.lines) if len(set(x)) == 1]
    assert set(np.round(medians, 6)) <= set(np.round(drawn, 6))
    assert [t.get_text() for t in left.get_yticklabels()] == [e.method for e in lines]
    # Where an error is 0, a logarithmic axis would hide the best one.
    assert left.get_xscale() == right.get_yscale() == ("linear" if zero else "log")
    assert figure.get_suptitle() == "some digits"


def test_mixtures_are_means_over_seeds():
    seeds = [[point(1, D4=0.5, C1=0.5), point(9, D4=a, C1=1 - a)] for a in (0.2, 0.4)]
    figure = pictures.mixtures_figure("digits, EquiNAS_D", seeds)
    assert figure.get_suptitle() == "digits, EquiNAS_D, seeds: 2"
    assert [a.get_ylabel() for a in figure.axes] == ["conv1", "head"]
    for axes in figure.axes:
        lowest = axes.collections[0].get_paths()[0].vertices
        assert {round(float(y), 6) for x, y in lowest if x == 9} == {0.0, 0.3}
