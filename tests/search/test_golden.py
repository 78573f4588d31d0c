"""One search as it always was: who is proposed, who survives, and how they score.

A change of these numbers is a change of what users compute with a seed. Write them
again by `python -m tests.search.test_golden` only where that is meant.
"""

import json
from pathlib import Path

import jax
import numpy as np
import optax

import eqjax as eq
from eqjax.search import SELECTIONS, Evolution, Score, SearchLoop
from eqjax.training import Split

FILE = Path(__file__).with_name("golden.json")
D4 = eq.dihedral(4)
START = eq.Architecture.uniform(D4, 3)


def proposed(selection):
    """A search whose scores are made up, exact on every machine: no training."""
    search = Evolution(3, select=SELECTIONS[selection], children=3)
    state, trajectory = search.init(START), []
    for generation in range(5):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(7), generation))
        proposals = search.ask(state, keys[0])
        scores = []
        for proposal in proposals:
            orders = [group.order for group in proposal.architecture.groups]
            wish = sum(abs(a - b) for a, b in zip(orders, (8, 4, 2), strict=True))
            scores.append(Score(wish / 16, sum(64 // n for n in orders)))
        state, kept = search.tell(state, proposals, scores, keys[1])
        children = [[str(p.architecture), p.parent] for p in proposals]
        trajectory.append({"children": children, "kept": list(kept)})
    return trajectory


def trained():
    """The rows of two generations of a real search, on noise with strokes."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 2
    images = rng.normal(size=(96, 6, 6, 1)).astype(np.float32) / 4
    images[labels == 0, 2:4] += 1
    images[labels == 1, :, 2:4] += 1

    def network(architecture):
        sizes = {"kernel_size": 3, "pool_after": (1,), "head_features": 4}
        return eq.exact(architecture, features=(2, 2), classes=2, **sizes)

    inputs = jax.ShapeDtypeStruct((16, 6, 6, 1), np.float32)
    # Steps of SGD grow with the gradient, so that rounding stays rounding.
    optimizer = optax.sgd(0.05)
    train, validation = (
        Split(images[p], labels[p]) for p in np.split(np.arange(96), 2)
    )
    loop = SearchLoop(
        search=Evolution(2, children=3),
        make_model=network,
        population=eq.Population(network(START), optimizer, inputs),
        train=train,
        validation=validation,
        first_steps=6,
        steps=3,
        seed=3,
    )
    point, records = loop.start(START), []
    for _ in range(2):
        point, record = loop.generation(point, lambda done, total: None)
        records.append(record)
    return records


def everything():
    return {
        "proposed": {name: proposed(name) for name in SELECTIONS},
        "trained": trained(),
    }


def test_proposals_and_survivors_are_as_they_were():
    golden = json.loads(FILE.read_text())["proposed"]
    assert {name: proposed(name) for name in golden} == golden
    assert set(golden) <= set(SELECTIONS)


def test_a_trained_search_is_as_it_was():
    golden = json.loads(FILE.read_text())["trained"]
    found = trained()
    for now, before in zip(found, golden, strict=True):
        assert now["generation"] == before["generation"]
        for child, was in zip(now["children"], before["children"], strict=True):
            for key in ("groups", "parent", "parameters"):
                assert child[key] == was[key]
            # Another machine sums in another order, float32, nine steps.
            for key in ("train_loss", "validation_loss"):
                np.testing.assert_allclose(child[key], was[key], rtol=1e-3)


if __name__ == "__main__":
    FILE.write_text(json.dumps(everything(), indent=1) + "\n")
