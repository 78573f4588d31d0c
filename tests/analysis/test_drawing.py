"""Pictures of symmetry tests, of no group, of zeros, of many layers and groups."""

import pytest

import eqjax as eq
from eqjax.analysis.drawing import evidence_figure


def entry(groups, layers=("conv1", "head"), p=0.001, evidence=30.0):
    rows = {
        name: {"evidence": evidence, "p": p, "rejected": p < 0.05, "gain": 0.1}
        for name in groups
    }
    return {
        "level": 0.05,
        "network": rows,
        "layers": dict.fromkeys(layers, rows),
    }


@pytest.mark.parametrize(
    "entries",
    [
        [entry(["D4", "C4", "C2"])],
        [entry([]), entry(["D4"], p=1.0, evidence=0.0)],
        [entry(["D4", "C4"], [f"layer{i}" for i in range(30)])],
    ],
)
def test_pictures_of_no_group_of_zeros_and_of_many_layers(entries, tmp_path):
    figure = evidence_figure(entries, eq.dihedral(4))
    figure.savefig(tmp_path / "evidence.png")
    assert len(figure.axes) >= 2 * len(entries)


def test_a_picture_of_many_groups(tmp_path):
    Oh = eq.full_octahedral()
    groups = [H.name for H in Oh.subgroups[:-1]]
    evidence_figure([entry(groups)], Oh).savefig(tmp_path / "evidence.png")
