"""Laplace's evidence for relaxing a layer, from one trained symmetric network.

A layer tied to H is the layer tied to a subgroup S with the part (P_S - P_H) K of its
kernel at zero. Around there the loss is, to second order, that of a Gaussian model: the
gradient g summed over samples, and the Fisher information F, without what entries of
different orbits of H, or of different channels, have in common. With a Gaussian prior
of precision d on these directions, the logarithm of the evidence for S over H is

    g (F + d)^-1 g / 2 - log det(1 + F / d) / 2

in these directions, added over orbits and channels (Laplace's approximation; Immer et
al. 2022, and layer by layer van der Ouderaa et al. 2023). The prior decides much of it,
so that here it is what one half of the samples has left of it: the evidence of the
other half, given the first (the conditional evidence of Lotfi et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import chex
import flax.linen as nn
import jax
import numpy as np

from eqjax.analysis.gradients import (
    ProbedLayer,
    block_gradients,
    check_classes,
    default_block_size,
    in_memory,
    probed_layers,
    shuffled_blocks,
)
from eqjax.fields.keys import check_key, host_generator
from eqjax.groups.checks import check_number, check_whole
from eqjax.groups.group import Group
from eqjax.morphism.matching import flat_variables, tied_model
from eqjax.morphism.report import LayerTable
from eqjax.training.checks import check_samples
from eqjax.training.losses import LossFn, cross_entropy


def laplace_evidence(
    variables: Mapping[str, Any],
    *,
    model: nn.Module,
    x: Any,
    y: Any,
    key: chex.PRNGKey,
    loss_fn: LossFn = cross_entropy,
    groups: Sequence[Group] | None = None,
    precision: float | None = None,
    conditional: bool = True,
    block_size: int | None = None,
    memory: int = 2**30,
    call_kwargs: Mapping[str, Any] | None = None,
) -> LayerTable:
    """Return the evidence for relaxing each layer to each subgroup, in nats.

    Above zero the data are likelier under the smaller group, of the same function to
    start from. One backward pass over the samples; no other network is trained.

    Args:
      variables: of the model, trained.
      model: any linen model with eqjax layers, called as model(x).
      x: (samples, *space, channels), images; or fields.
      y: (samples,), labels; or what the loss takes.
      key: of the order of the samples.
      loss_fn: (outputs, y) -> a loss per sample, a negative log-likelihood.
      groups: to relax to, besides the layer's own; all subgroups if None.
      precision: of the prior of every direction; if None, by layer, the one that its
        tied kernel has: its directions over its squared norm.
      conditional: the evidence of one half of the samples, given the other; else that
        of all of them, given the prior.
      block_size: samples whose gradients are summed; if None, as many as make 200
        blocks.
      memory: bytes for gradients at a time.
      call_kwargs: keyword arguments of the model's call, such as {"train": False}.

    Returns:
      A row for every layer, a column for every subgroup of its group; zero for its own.

    Raises:
      ValueError: the model has no layer of eqjax, a gradient is not finite, there are
        fewer than four blocks, a label is not one of the model's classes, or a group is
        none of the layers' ambient group.

    >>> import eqjax as eq
    >>> import jax.numpy as jnp
    >>> D4 = eq.dihedral(4)
    >>> groups = eq.Architecture.uniform(D4, 2)
    >>> model = eq.exact(groups, features=(2,), pool_after=(), kernel_size=3, classes=2)
    >>> x = np.random.default_rng(0).normal(size=(40, 8, 8, 1)).astype(np.float32)
    >>> y = np.arange(40) % 2
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> found = laplace_evidence(
    ...     variables, model=model, x=x, y=y, key=jax.random.key(1))
    >>> found["conv1",]["D4"]
    0.0
    """
    check_key("key", key)
    check_samples(x, y)
    if precision is not None:
        check_number("precision", precision)
        if not precision > 0:
            raise ValueError(f"precision must be positive, got {precision}")
    if block_size is not None:
        check_whole("block_size", block_size)
    inputs = jax.ShapeDtypeStruct((1, *np.shape(x)[1:]), np.asarray(x[:1]).dtype)
    traced = tied_model(model, inputs, call_kwargs)
    layers = probed_layers(traced, variables)
    check_classes(variables, model, x, y, loss_fn, call_kwargs)
    ambient = layers[0].layer.group.ambient
    for group in groups or ():
        if not isinstance(group, Group) or not group <= ambient:
            raise ValueError(f"groups must be subgroups of {ambient!r}, got {group!r}")
    size = default_block_size(len(x)) if block_size is None else block_size
    if size < 1 or len(x) < 4 * size:
        raise ValueError(
            f"two halves of two blocks each need {4 * max(size, 1)} samples for a "
            f"block_size of {size}, got {len(x)}"
        )
    rng = host_generator(key)
    blocks = shuffled_blocks(x, y, size, rng)
    settings: dict[str, Any] = {
        "model": model,
        "loss_fn": loss_fn,
        "call_kwargs": call_kwargs,
    }
    flat = flat_variables(variables)
    found = LayerTable()
    for part in in_memory(layers, len(blocks), memory):
        gradients = block_gradients(variables, part, blocks, **settings)
        for each, own in zip(part, gradients, strict=True):
            prior = precision
            if prior is None:
                kernel = each.layer.read(traced.own(each.path, flat))["kernel"]
                prior = _precision(each, np.asarray(kernel))
            found[each.path] = _evidence(each, size * own, prior, groups, conditional)
        del gradients
    return found


def _precision(each: ProbedLayer, kernel: np.ndarray) -> float:
    directions = each.table(each.own_group).num_orbits * each.channels
    return directions / max(float(np.sum(kernel.astype(np.float64) ** 2)), 1e-12)


def _evidence(
    each: ProbedLayer,
    sums: np.ndarray,
    prior: float,
    groups: Sequence[Group] | None,
    conditional: bool,
) -> dict[str, float]:
    """Return the evidence for a layer by group, from the gradients of all blocks.

    Args:
      each: the layer, tied to H.
      sums: (blocks, entries, channels), gradients summed over the samples of a block.
      prior: precision of every direction.
      groups: to relax to, where H contains them; all subgroups of H if None.
      conditional: on the first half of the blocks.
    """
    own = each.own_group
    given = sums[: len(sums) // 2 if conditional else 0]
    found = {own.name: 0.0}
    for group in own.subgroups if groups is None else groups:
        if group < own:
            evidence = _log_evidence(each, sums, prior, group)
            found[group.name] = evidence - _log_evidence(each, given, prior, group)
    return found


def _log_evidence(
    each: ProbedLayer, sums: np.ndarray, prior: float, group: Group
) -> float:
    """Return the logarithm of the evidence of some blocks for a group; 0 of none.

    With Q the projection onto what the group allows and H does not, in one orbit:
    g Q (Q F Q + d)^-1 Q g / 2 - log det(1 + Q F Q / d) / 2.
    """
    table = each.orbits(each.own_group)
    orbit, size = table.index.reshape(-1), np.asarray(table.size)
    smaller = each.orbits(group).index.reshape(-1)
    order = np.argsort(orbit, kind="stable")
    begins = np.cumsum(size) - size
    found = 0.0
    for n in np.unique(size[size > 1]):
        for begin in begins[size == n]:
            entries = order[begin : begin + n]
            inside = smaller[entries, None] == smaller[entries]
            projection = inside / inside.sum(-1) - 1 / n
            part = np.einsum("ij,bjc->cbi", projection, sums[:, entries])
            fisher = part.transpose(0, 2, 1) @ part + prior * np.eye(n)
            gradient = part.sum(1)
            solved = np.linalg.solve(fisher, gradient[..., None])[..., 0]
            found += float(np.sum(gradient * solved)) / 2
            volume = np.linalg.slogdet(fisher / prior)[1]
            found -= float(np.sum(volume)) / 2
    return found
