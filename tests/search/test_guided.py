"""What the guided search makes of a test, and its way back."""

import jax
import numpy as np
import pytest

import eqjax as eq
from eqjax import training
from eqjax.analysis.evidence import GroupEvidence, LayerEvidence, SymmetryTest
from eqjax.search import guided_schedule, named_group, tighten

D4 = eq.dihedral(4)


def report(kept, evidence):
    """A test of the whole network that keeps some groups."""
    rows = {
        H.name: GroupEvidence(
            H, 1.0, evidence.get(H.name, 9.0), 0.5, 0.5, H.name not in kept, 0.0, 0
        )
        for H in D4.subgroups[:-1]
    }
    return SymmetryTest(D4, rows, LayerEvidence(), 0.05, 10, 1)


@pytest.mark.parametrize(
    ("kept", "evidence", "name", "decided"),
    [
        ((), {}, "C1", True),
        (("C4", "C2"), {}, "C4", True),
        (("C4", "C2", "D1:i"), {"C4": 1.2, "D1:i": 1.9}, "C4", False),
        (("C4", "C2", "D1:i"), {"C4": 1.9, "D1:i": 1.2}, "D1:i", False),
    ],
)
def test_of_several_groups_the_one_with_the_least_evidence_is_named(
    kept, evidence, name, decided
):
    found = named_group(report(kept, evidence))
    assert (found.group.name, found.decided) == (name, decided)


@pytest.mark.parametrize(
    ("late", "groups"),
    [
        (0.5, "D4 D4 D4 C4 C4"),
        (1, "C4 C4 C4 C4 C4"),
        (0.01, "D4 D4 D4 D4 C4"),
        (0.6, "D4 D4 C4 C4 C4"),
    ],
)
def test_late_layers_get_the_group(late, groups):
    probe = eq.Architecture.uniform(D4, 5)
    assert str(guided_schedule(probe, D4.subgroup("C4"), late)) == groups


def test_layers_that_are_smaller_already_keep_what_is_common():
    before = eq.Architecture.parse(D4, "D4 D4 C2 C2")
    assert str(guided_schedule(before, D4.subgroup("D2:i"))) == "D4 D4 C2 C2"
    with pytest.raises(ValueError, match="late must be above 0"):
        guided_schedule(before, D4, 0)


def test_a_layer_that_uses_no_freedom_is_tightened_and_another_is_not():
    groups = eq.Architecture.parse(D4, "D4 D4 D4")
    kind = {"features": (2, 2), "kernel_size": 3, "pool_after": (), "classes": 2}
    model = eq.exact(groups, **kind)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6, 6, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x[:1])
    relaxed = eq.exact(eq.Architecture.parse(D4, "D4 C4 C1"), **kind)
    own, _ = eq.morph(variables, source=model, target=relaxed, inputs=x[:1])
    drawn = jax.jit(relaxed.init)(jax.random.key(1), x[:1])
    head = {"kernel": 3 * drawn["params"]["head"]["kernel"]}
    own["params"]["head"] = {**own["params"]["head"], **head}
    margin = np.subtract(*training.predict(own, x, model=relaxed).T)
    logits = own["params"]["logits"]
    steep = {"kernel": 20 * logits["kernel"] / margin.std(), "bias": logits["bias"]}
    own["params"]["logits"] = steep
    margin = np.subtract(*training.predict(own, x, model=relaxed).T)
    bias = np.array([-np.median(margin), 0], np.float32) + steep["bias"]
    own["params"]["logits"] = {**steep, "bias": bias}
    labels = training.predict(own, x, model=relaxed).argmax(-1)
    assert 100 < labels.sum() < 300

    kept, tried = tighten(own, model=relaxed, larger=D4, x=x, y=labels)
    assert str(kept.architecture) == "D4 D4 C1"
    first, second = tried
    assert first.accepted
    assert abs(first.difference) < 1e-5
    assert not second.accepted
    assert second.difference > second.standard_error
    moved, _ = eq.morph(own, source=relaxed, target=kept, inputs=x[:1])
    for layer, distance in eq.distances(moved, model=kept, inputs=x[:1]).items():
        if layer == ("conv2",):
            assert distance["D4"] < 1e-6
