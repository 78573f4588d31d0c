"""Which elements every layer of a model commutes with, measured layer by layer.

Every layer is given its own inputs, moved by an element u, and compared with its own
output moved by u. What lies between layers is tested in the same way: the layers before
it are made to return their outputs moved by u, and what reaches the next layer is
compared. So a fault shows where it is, and hides none behind it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eqjax.analysis.calls import Arrays, Call, Tree, play, record
from eqjax.analysis.compilations import run_once
from eqjax.analysis.motions import Motions
from eqjax.analysis.random_values import random_inputs, random_variables
from eqjax.analysis.repairs import explain
from eqjax.analysis.report import BETWEEN, NETWORK, SymmetryReport, SymmetryRow
from eqjax.fields.irreps import IrrepsFiber
from eqjax.groups.checks import check_group
from eqjax.groups.group import Group
from eqjax.groups.standard import dihedral, flip, full_octahedral
from eqjax.layers.base import TiedModule
from eqjax.morphism.matching import show, tied_model
from eqjax.ops.precision import accurate, norm


def symmetry(
    model: nn.Module,
    inputs: Any,
    *,
    variables: Mapping[str, Any] | None = None,
    group: Group | None = None,
    call_kwargs: Mapping[str, Any] | None = None,
    tolerance: float | None = None,
) -> SymmetryReport:
    """Measure which elements of a group every layer of a model commutes with.

    The model may hold layers of eqjax, of Flax and others; a module that calls no other
    is a layer. Each is tested by itself, on random fields, then the functions between
    them, then the whole. Arrays are read by their shapes: (batch, *space, fiber,
    channels) is a field, (batch, *space, channels) an image, and numbers (batch,
    numbers) are left alone by every element. What `nn.scan`, `nn.remat` and their kin
    hold counts as functions between layers. Elements that move pixels between pixels,
    as a rotation by 45°, are kept by no layer; how far the network follows them is told
    apart from the rest.

    Args:
      model: any linen module.
      inputs: an input of the model, or a tuple of call arguments; shapes are enough.
      variables: of the model; random if None, statistics and offsets too, so that what
        only training would break is seen.
      group: whose elements are tried; if None, the ambient group of the model's layers,
        or all symmetries of the grid where none has one.
      call_kwargs: keyword arguments of the call, such as {"train": False}: statistics
        of a batch and dropout are to be off.
      tolerance: relative errors up to this are rounding; if None, the root of the
        machine epsilon of each output.

    Returns:
      A report with a row per layer, printed as a table, `faults`, the rows that lose
      what they should keep, each with a repair that was tried, and `network`.

    Raises:
      ValueError: a layer reads or writes irreps; or there is neither a layer with a
        group nor an image.

    >>> from eqjax.groups import dihedral
    >>> from eqjax.layers import LiftingConv
    >>> D4 = dihedral(4)
    >>> conv = LiftingConv(2, 3, strides=2, padding=1, group=D4)
    >>> report = symmetry(conv, jnp.ones((1, 6, 6, 1)))
    >>> report.faults[0].kept, report.faults[0].repair
    (Group(D1:i-j < D4), 'kernel_size=4 or a grid of 7x7')
    """
    if group is not None:
        check_group("group", group)
    given, keywords = random_inputs(inputs), dict(call_kwargs or {})
    arguments = given.fill(given.arrays)
    traced = tied_model(model, arguments, keywords).layers
    for path, layer in traced.items():
        if any(isinstance(f, IrrepsFiber) for f in getattr(layer, "fibers", ())):
            raise ValueError(
                f"{show(path)} reads or writes irreps, whose channels turn, and shapes "
                "do not tell which; eq.equivariance_error and eq.assert_equivariant "
                "take irreps_in and irreps_out"
            )
    layers = traced.values()
    ambient = group.ambient if group else _ambient(list(layers), arguments)
    motions = Motions(ambient, list(layers))
    if variables is None:
        variables = random_variables(model, given, keywords)
    calls: list[Call] = []
    outputs: list[Tree] = []

    def measure(variables, arrays):
        def apply(*arguments):
            rngs = {"dropout": jax.random.key(0)}
            return model.apply(
                variables, *arguments, rngs=rngs, mutable=True, **keywords
            )[0]

        found, output = record(apply, *given.fill(arrays))
        calls[:], outputs[:] = found, [output]
        return _errors(apply, given, found, output, motions)

    with jax.default_matmul_precision("highest"):
        errors = jax.device_get(run_once(measure, variables, given.arrays))
    tried = group or ambient
    exact = tried.exact_subgroup
    found = _Measured(calls, outputs[0], errors, motions, exact, tolerance)
    names = zip(tried.elements, tried.element_names, strict=True)
    followed = {n: float(errors[-1][u]) for u, n in names if u not in exact}
    return dataclasses.replace(found.report(), approximate=followed)


def _ambient(layers: Sequence[TiedModule], arguments: Sequence[Any]) -> Group:
    if layers:
        ambients = [layer.group.ambient for layer in layers]
        return max(ambients, key=ambients.count)
    space = next((np.ndim(x) - 2 for x in arguments if np.ndim(x) > 2), 0)
    largest: dict[int, Callable[[], Group]] = {
        1: flip,
        2: functools.partial(dihedral, 4),
        3: full_octahedral,
    }
    if space not in largest:
        raise ValueError(
            "the model has no layer with a group, and its input is no image (batch, "
            "1 to 3 spatial axes, channels); pass group="
        )
    return largest[space]()


def _errors(apply, given: Tree, calls: list[Call], output: Tree, motions: Motions):
    """Return relative errors (elements,): layers, what is before each, the whole."""
    ins = [call.inputs.arrays for call in calls]
    outs = [call.output.arrays for call in calls]
    moved: Any = tuple(motions.all(x) for x in (given.arrays, ins, outs, output.arrays))

    def one(arrays, ins_u, outs_u, output_u):
        arguments = given.fill(arrays)
        reached, made, after = play(apply, calls, arguments, ins_u, outs_u)
        whole = Tree.of(apply(*arguments)).arrays
        alone = [_error(*pair) for pair in zip(made, outs_u, strict=True)]
        between = [_error(*pair) for pair in zip(reached, ins_u, strict=True)]
        return alone, [*between, _error(after, output_u)], _error(whole, output_u)

    return jax.vmap(one)(*moved)


def _error(got: Arrays, expected: Arrays) -> jax.Array:
    """Return |got - expected| / |expected| over all arrays."""
    if [a.shape for a in got] != [a.shape for a in expected]:
        return jnp.asarray(jnp.inf)
    real = [i for i, a in enumerate(expected) if jnp.issubdtype(a.dtype, jnp.inexact)]
    size = norm(*(expected[i] for i in real))
    gap = norm(*(accurate(got[i]) - accurate(expected[i]) for i in real))
    return gap / jnp.where(size == 0, 1, size)


@dataclasses.dataclass(frozen=True)
class _Measured:
    """The calls of a model and the errors that were measured of them."""

    calls: list[Call]
    output: Tree
    errors: Any
    motions: Motions
    group: Group
    tolerance: float | None

    def report(self) -> SymmetryReport:
        alone, between, whole = self.errors
        rows = []
        for i, call in enumerate(self.calls):
            before = self.calls[i - 1].key[0] if i else ()
            rows += self._between(before, call.key[0], call.inputs, between[i])
            rows.append(self._layer(call, alone[i]))
        last = self.calls[-1].key[0] if self.calls else ()
        if not (len(self.calls) == 1 and last == ()):
            rows += self._between(last, None, self.output, between[-1])
        network = self._row(
            "",
            NETWORK,
            self.output,
            whole,
            max(map(self._rounding, self._outputs())),
            own=self.group.meet(*(row.promised for row in rows)),
        )
        return SymmetryReport(self.group, tuple(rows), network)

    def _outputs(self) -> list[Tree]:
        return [*(call.output for call in self.calls), self.output]

    def _layer(self, call: Call, errors: np.ndarray) -> SymmetryRow:
        layer, path = call.layer, show(call.key[0])
        own = None
        if isinstance(layer, TiedModule):
            own = layer.constraint.symmetry(layer.group)
        row = self._row(
            path, type(layer).__name__, call.output, errors, inputs=call.inputs, own=own
        )
        return explain(row, layer, call.inputs.arrays, self.group) if row.lost else row

    def _between(self, before, after, tree: Tree, errors) -> list[SymmetryRow]:
        where = f"{show(before) if before else 'the input'} -> " + (
            "the output" if after is None else show(after)
        )
        row = self._row(where, BETWEEN, tree, errors)
        if not row.lost:
            return []
        repair = (
            "eq.avg_pool or eq.max_pool in place of nn.avg_pool, in a window that "
            "eq.window(...).symmetry keeps, eq.InvariantHead in place of flattening"
        )
        return [dataclasses.replace(row, repair=repair)]

    def _row(
        self, path, layer, tree, errors, tolerance=None, inputs=None, own=None
    ) -> SymmetryRow:
        tolerance = self._rounding(tree) if tolerance is None else tolerance
        trees = [tree] if inputs is None else [inputs, tree]
        keeps_grid = self.motions.keeping_shapes([a for t in trees for a in t.arrays])
        measured = {
            u: float(errors[u]) if u in keeps_grid else float("inf")
            for u in self.group.elements
        }
        kept = next(
            H
            for H in self.group.subgroups
            if H.order == 1 or all(measured[u] <= tolerance for u in H.elements)
        )
        return SymmetryRow(
            path=path,
            layer=layer,
            shape=tree.arrays[0].shape if tree.arrays else (),
            promised=self._promised(own),
            kept=kept,
            errors=tuple(measured.values()),
            elements=self.group.element_names,
        )

    def _promised(self, own: Group | None) -> Group:
        if own is None or own.ambient != self.group.ambient:
            return self.group
        return own.meet(self.group)

    def _rounding(self, tree: Tree) -> float:
        if self.tolerance is not None:
            return self.tolerance
        kinds = [a.dtype for a in tree.arrays if jnp.issubdtype(a.dtype, jnp.inexact)]
        return max((float(jnp.finfo(kind).eps) ** 0.5 for kind in kinds), default=0.0)
