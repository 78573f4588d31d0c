"""Bad calls of what groups, fibers and fields are made by."""

import jax.numpy as jnp
import numpy as np

import eqjax as eq
from tests.faults.refusing import C4, D4, FIELD, IMAGE, KEY, refused, table

NAN = np.full((2, 2), np.nan)

CASES = {
    "Group": [
        (lambda: eq.Group("D4"), r"expected matrices of shape \(count, d, d\)"),
        (lambda: eq.Group(None), "expected matrices of shape"),
        (lambda: eq.Group([]), "expected matrices of shape"),
        (lambda: eq.Group([NAN]), "is not a signed permutation"),
        (lambda: eq.Group([["a"]]), "expected matrices of numbers"),
        (lambda: eq.Group(np.zeros((0, 2, 2))), "expected matrices of shape"),
        (lambda: eq.Group([np.eye(4)]), "1, 2 or 3 spatial axes, got 4x4"),
        (lambda: eq.Group([[[0, 1], [1, 0]]]), "needs the identity"),
        (lambda: D4.subgroup("D5"), "has no subgroup 'D5'; nearest"),
        (lambda: D4.subgroup(4), "name must be a string, such as 'C4', got 4"),
        (lambda: D4.subgroup("C4", "i"), "index is a number"),
        (lambda: D4.subgroup("D1", 9), r"index must be in 0..3, got 9"),
        (lambda: D4.meet(eq.flip()), "ambient"),
        (lambda: D4.join("C4"), "must be a Group"),
    ],
    "ClosedGroup": [
        (lambda: eq.orthogonal().subgroup("Q8"), "has no subgroup 'Q8'"),
        (lambda: eq.orthogonal().subgroup(4), "name must be a string"),
    ],
    "cyclic": [
        (lambda: eq.cyclic(0), r"cyclic\(n\) takes a whole number from 1 .* got 0"),
        (lambda: eq.cyclic("4"), "got '4'"),
        (lambda: eq.cyclic(4.0), "got 4.0"),
    ],
    "dihedral": [
        (lambda: eq.dihedral(-4), r"dihedral\(n\) takes a whole .* got -4"),
        (lambda: eq.dihedral(None), "got None"),
    ],
    "orthogonal": [
        (lambda: eq.orthogonal(4), "dimension should be 2 or 3, got 4"),
        (lambda: eq.orthogonal("3"), "got '3'"),
    ],
    "Fiber": [
        (lambda: eq.Fiber("C4"), "holds the cosets of a Group, .* got 'C4'"),
        (lambda: eq.Fiber(eq.orthogonal()), "act on an IrrepsFiber"),
    ],
    "regular": [
        (lambda: eq.regular("D4"), "group must be a Group, as its name in .*'D4'"),
        (lambda: eq.regular(eq.orthogonal()), "cosets of a Group, such as"),
    ],
    "trivial": [(lambda: eq.trivial(None), "group must be a Group, .* got None")],
    "quotient": [(lambda: eq.quotient(8), "cosets of a Group, .* got 8")],
    "IrrepsFiber": [
        (lambda: eq.IrrepsFiber("2q"), "expected irreps of O.*, got '2q'"),
        (lambda: eq.IrrepsFiber(None), "expected irreps of .* got 'None'"),
        (lambda: eq.IrrepsFiber(""), "expected irreps"),
    ],
    "transform": [
        (lambda: eq.transform(FIELD, 1, group="D4"), "group must be a Group, as its"),
        (lambda: eq.transform(FIELD.tolist(), 1, group=D4), "x must be an array, got"),
        (lambda: eq.transform(FIELD, 8, group=D4), "u = 8 is not an element of"),
        (lambda: eq.transform(FIELD, 4, group=C4), "u = 4 is not an element of"),
        (lambda: eq.transform(FIELD, "a", group=D4), "u = 'a' is not an element"),
        (lambda: eq.transform(FIELD, None, group=D4), "u = None is not an element"),
        (lambda: eq.transform(FIELD, 1.5, group=D4), "u = 1.5 is not an element"),
        (lambda: eq.transform(FIELD, np.nan, group=D4), "u = nan is not an element"),
        (lambda: eq.transform(FIELD[0, 0], 1, group=D4), r"got shape \(4, 8, 3\)"),
        (lambda: eq.transform(FIELD[..., :5, :], 1, group=D4), "8 elements .* got 5"),
        (
            lambda: eq.transform(FIELD, 1, group=D4, fiber="regular"),
            "fiber must be a Fiber, such as .* got 'regular'",
        ),
        (
            lambda: eq.transform(FIELD, 1, group=D4, fiber=eq.quotient(C4)),
            "a fiber of 2 elements .* does not fit shape",
        ),
        (
            lambda: eq.transform(FIELD, 1, group=D4, fiber=eq.IrrepsFiber("1o")),
            "1x1o have 3 components, got shape",
        ),
    ],
    "augment": [
        (lambda: eq.augment(KEY, IMAGE, group="C4"), "group must be a Group"),
        (lambda: eq.augment(KEY, IMAGE[:, :3], group=D4), "use a square grid"),
        (lambda: eq.augment(KEY, IMAGE[..., 0], group=D4), "expected a field"),
        (lambda: eq.augment(KEY, None, group=D4), "x must be an array, got a NoneType"),
        (lambda: eq.augment(0, IMAGE, group=D4), "key must be a key, .*random.key"),
    ],
    "lift_irreps": [
        (lambda: eq.lift_irreps(IMAGE, "1", group=D4), "irreps '1' .* got shape"),
        (lambda: eq.lift_irreps(IMAGE, "z", group=D4), "expected irreps of"),
        (lambda: eq.lift_irreps(IMAGE, "0e", group="D4"), "group must be a Group"),
        (lambda: eq.lift_irreps([1.0], "0e", group=D4), "x must be an array"),
    ],
    "lower_irreps": [
        (lambda: eq.lower_irreps(IMAGE, "1", group=D4), "irreps '1' .* got shape"),
        (lambda: eq.lower_irreps(FIELD, 3, group=D4), "expected irreps of|got shape"),
        (lambda: eq.lower_irreps(FIELD, "1o", group=None), "group must be a Group"),
    ],
    "window": [
        (lambda: eq.window("28", 3), "expected one size per spatial axis, got '28'"),
        (lambda: eq.window((28, 28.5), 3), "sizes must be whole numbers from 0"),
        (lambda: eq.window((28, -1), 3), "sizes must be whole numbers from 0"),
        (lambda: eq.window((28, None), 3), "sizes must be whole numbers from 0"),
        (lambda: eq.window((28, 28), 0), "window must be a positive integer"),
        (lambda: eq.window((28, 28), (3,)), "window must be .* or 2 of them"),
        (lambda: eq.window((28, 28), 3, "2"), "strides must be a positive integer"),
        (lambda: eq.window((28, 28), 3, 1, None), "padding must be one of"),
        (lambda: eq.window((28, 28), 3, 1, "same"), "nearest: 'SAME'"),
        (lambda: eq.window((28, 28), 3, 1, 1, 0), "dilation must be a positive"),
        (lambda: eq.window((), 3), "expected at least one size"),
        (lambda: eq.window(28, 3).symmetry("D4"), "group must be a Group"),
        (lambda: eq.window((4, 4), 3).symmetry(eq.flip()), "acts on 1 axes"),
    ],
    "Architecture": [
        (lambda: eq.Architecture(()), "at least one layer"),
        (lambda: eq.Architecture("D4 D4"), "read by Architecture.parse"),
        (lambda: eq.Architecture(D4), "groups must be several Groups, one per layer"),
        (lambda: eq.Architecture(("D4",)), "layer 0 needs a Group, got 'D4'"),
        (lambda: eq.Architecture((D4, eq.flip())), "all need one ambient group"),
        (lambda: eq.Architecture.uniform(D4, 0), "layers must be at least 1, got 0"),
        (lambda: eq.Architecture.uniform(D4, 2.0), "layers must be a whole number"),
        (lambda: eq.Architecture.uniform("D4", 2), "layer 0 needs a Group"),
        (lambda: eq.Architecture.parse("D4", "D4"), "ambient must be a Group"),
        (lambda: eq.Architecture.parse(D4, ""), "at least one layer"),
        (lambda: eq.Architecture.parse(D4, "D4 X"), "has no subgroup 'X'"),
        (lambda: eq.Architecture.parse(D4, (4,)), "name must be a string"),
        (lambda: eq.Architecture.parse(D4, 4), "names must be a string or several"),
    ],
    "enumerate_architectures": [
        (lambda: [*eq.enumerate_architectures(D4.subgroups, 0)], "layers must be at"),
        (lambda: [*eq.enumerate_architectures(D4, 1)], "candidates must be several"),
        (lambda: [*eq.enumerate_architectures(("D4",), 1)], "needs a Group|must be a"),
        (lambda: [*eq.enumerate_architectures((), 1)], "candidates are empty"),
    ],
    "random_architecture": [
        (lambda: eq.random_architecture(0, D4.subgroups, 2), "rng must be a Generator"),
        (
            lambda: eq.random_architecture(np.random.default_rng(0), (), 2),
            "candidates are empty",
        ),
        (
            lambda: eq.random_architecture(np.random.default_rng(0), ("D4",), 2),
            "candidates must be a Group",
        ),
        (
            lambda: eq.random_architecture(np.random.default_rng(0), (D4,), -1),
            "layers must be at least 1",
        ),
    ],
    "partition_distance": [
        (lambda: eq.partition_distance([0, 1], [0]), "as many elements, got 2 and 1"),
        (lambda: eq.partition_distance([np.nan], [0]), "first must be whole numbers"),
        (lambda: eq.partition_distance(["a"], [0]), "first must be whole numbers"),
        (lambda: eq.partition_distance([0], None), "second must be whole numbers"),
    ],
}


@table(CASES)
def test_bad_calls_are_refused(call, match):
    refused(call, match)


def test_what_is_empty_is_documented_to_work():
    assert eq.transform(FIELD[:0], 1, group=D4).shape == (0, 4, 4, 8, 3)
    assert eq.augment(KEY, jnp.asarray(IMAGE[:0]), group=D4).shape == (0, 6, 6, 1)
    assert eq.partition_distance([], []) == 0
    assert eq.window((0, 4), 3).output_size == (0, 2)
