"""Networks of eqjax, and the same in PyTorch, of plain layers or of escnn's.

To be imported once `benchmarks.peers.import_peers` has made escnn importable.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import torch
from escnn import gspaces, nn as enn

import eqjax as eq
from benchmarks.step import BATCH, network

D4 = eq.dihedral(4)


class StridedResNet(nn.Module):
    """ResNet-18 over D4 for small images: its stem has 3x3 taps at stride 1.

    At stride 2 they keep the symmetry of odd sizes, as 33, 17, 9 and 5 are.

    Attributes:
      features: channels per element of every stage.
      blocks: of a stage.
    """

    features: tuple[int, ...] = (4, 8, 16, 32)
    blocks: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Return logits (batch, 10) for images (batch, height, width, channels)."""

        def conv(x, features, taps, stride=1):
            make = eq.LiftingConv if x.ndim == 4 else eq.GroupConv
            x = make(features, taps, stride, use_bias=False, group=D4)(x)
            return eq.BatchNorm(group=D4, momentum=0.9)(x, not train)

        x = nn.relu(conv(x, self.features[0], 3))
        for stage, features in enumerate(self.features):
            for block in range(self.blocks):
                stride = 2 if stage and not block else 1
                same = features == x.shape[-1]
                short = x if same else conv(x, features, 1, stride)
                y = nn.relu(conv(x, features, 3, stride))
                x = nn.relu(short + conv(y, features, 3))
        return eq.InvariantHead(10, group=D4)(x)


@dataclasses.dataclass(frozen=True)
class Case:
    """A network of eqjax with the shape of a batch and the order of its group."""

    model: Any
    shape: tuple[int, ...]
    order: int = 8

    def peers(self) -> dict[str, Plain]:
        """Return what builds the same network in PyTorch, by library."""
        builders: dict[str, Plain] = {"torch": Plain(self.order, len(self.shape) - 2)}
        if len(self.shape) == 4:
            builders["escnn"] = Steered()
        return builders


def cases(*, quick: bool) -> dict[str, Case]:
    """Return all networks by name."""
    blocks, batch = (1, 8) if quick else (2, 32)
    stages = eq.Architecture.uniform(D4, 5)
    cube = eq.octahedral()
    volume = eq.exact(
        eq.Architecture.uniform(cube, 5),
        features=(1, 2, 2, 4),
        kernel_size=3,
        pool_after=(2, 3),
    )
    found = {
        "4 channels": Case(network(4), (BATCH, 28, 28, 1)),
        "16 channels": Case(network(16), (BATCH, 28, 28, 1)),
        "wrn": Case(eq.wide_resnet(stages, blocks=blocks), (batch, 32, 32, 3)),
        "resnet": Case(StridedResNet(blocks=blocks), (batch, 33, 33, 3)),
        "volume": Case(volume, (8, 16, 16, 16, 1), cube.order),
    }
    if quick:
        del found["16 channels"]
    return found


class Plain:
    """Builds networks of plain layers, with as many real channels as fields have.

    Args:
      order: of the group.
      dimension: of space.
    """

    def __init__(self, order: int, dimension: int):
        self._order = order
        self._conv_kind = getattr(torch.nn, f"Conv{dimension}d")
        self._norm_kind = getattr(torch.nn, f"BatchNorm{dimension}d")
        self._fiber = 1  # channels that the head averages

    def network(self, model: Any, channels: int) -> torch.nn.Sequential:
        """Return the same network as one of eqjax, for images of so many channels."""
        build = self._cnn if isinstance(model, eq.EquivariantCNN) else self._residual
        image = self._image(channels)
        return torch.nn.Sequential(self._enter(image), *build(model, image))

    def _cnn(self, model: eq.EquivariantCNN, x: Any) -> list[Any]:
        layers: list[Any] = []
        for n, features in enumerate(model.features):
            wide = self._field(features)
            layers += [self._conv(x, wide, model.kernel_sizes[n]), *self._active(wide)]
            layers += [Halve()] if n + 1 in model.pool_after else []
            x = wide
        hidden = model.head_features
        layers += [*self._read(features, hidden), torch.nn.BatchNorm1d(hidden)]
        return [*layers, torch.nn.ELU(), torch.nn.Linear(hidden, 10)]

    def _residual(self, model: Any, x: Any) -> list[Any]:
        strided = isinstance(model, StridedResNet)
        make_block = self._post_block if strided else self._pre_block
        wide = self._field(model.features[0])
        layers = [self._conv(x, wide, 3), *(self._active(wide) if strided else ())]
        for stage, features in enumerate(model.features):
            layers += [Halve()] if stage and not strided else []
            for block in range(model.blocks):
                x, wide = wide, self._field(features)
                stride = 2 if strided and stage and not block else 1
                layers.append(make_block(x, wide, stride))
        layers += () if strided else self._active(wide)
        return [*layers, *self._read(features, 10)]

    def _post_block(self, x: Any, wide: Any, stride: int) -> Block:
        norm, relu = self._active(wide)
        body = [self._conv(x, wide, 3, stride), *self._active(wide)]
        body += [self._conv(wide, wide, 3), norm]
        short = [self._conv(x, wide, 1, stride), self._active(wide)[0]]
        return Block([], body, [] if x == wide else short, [relu])

    def _pre_block(self, x: Any, wide: Any, stride: int) -> Block:
        body = [self._conv(x, wide, 3), *self._active(wide), self._conv(wide, wide, 3)]
        short = [] if x == wide else [self._conv(x, wide, 1)]
        return Block(self._active(x), body, short, [])

    def _read(self, features: int, outputs: int) -> list[Any]:
        width = features * self._order // self._fiber
        return [Mean(self._fiber), torch.nn.Linear(width, outputs)]

    def _image(self, channels: int) -> Any:
        return channels

    def _field(self, channels: int) -> Any:
        return self._order * channels

    def _enter(self, image: Any) -> torch.nn.Module:
        return torch.nn.Identity()

    def _conv(self, before: Any, after: Any, taps: int, stride: int = 1) -> Any:
        kind: dict[str, Any] = {"stride": stride, "padding": taps // 2, "bias": False}
        return self._conv_kind(before, after, taps, **kind)

    def _active(self, field: Any) -> list[Any]:
        return [self._norm_kind(field), torch.nn.ReLU()]


class Steered(Plain):
    """Builds networks of escnn's layers over D4, of regular fields."""

    def __init__(self) -> None:
        super().__init__(order=8, dimension=2)
        self._space = gspaces.flipRot2dOnR2(4)
        self._conv_kind, self._norm_kind = enn.R2Conv, enn.InnerBatchNorm
        self._fiber = 8

    def _image(self, channels: int) -> Any:
        return enn.FieldType(self._space, channels * [self._space.trivial_repr])

    def _field(self, channels: int) -> Any:
        return enn.FieldType(self._space, channels * [self._space.regular_repr])

    def _enter(self, image: Any) -> torch.nn.Module:
        return Enter(image)

    def _active(self, field: Any) -> list[Any]:
        return [self._norm_kind(field), enn.ReLU(field)]


class Enter(torch.nn.Module):
    """From images to what escnn's layers read."""

    def __init__(self, image: Any):
        super().__init__()
        self.image = image

    def forward(self, x: torch.Tensor) -> Any:
        """Return the images with their type."""
        return enn.GeometricTensor(x, self.image)

    def export(self) -> torch.nn.Module:
        """Return what takes its place between plain layers."""
        return torch.nn.Identity()


class Block(torch.nn.Module):
    """A residual block."""

    def __init__(self, before: list, body: list, short: list, after: list):
        super().__init__()
        make = torch.nn.Sequential
        self.before, self.body = make(*before), make(*body)
        self.short, self.after = make(*short), make(*after)
        self.projects = bool(short)

    def forward(self, x: Any) -> Any:
        """Return the field that the body adds to."""
        y = self.before(x)
        short = self.short(y) if self.projects else x
        return self.after(short + self.body(y))


class Halve(torch.nn.Module):
    """Averages over windows of 2 points on even sizes and of 3 on odd ones."""

    def forward(self, x: Any) -> Any:
        """Return a tensor, or field, of half the size."""
        if isinstance(x, enn.GeometricTensor):
            return enn.GeometricTensor(self(x.tensor), x.type)
        taps = 2 + x.shape[-1] % 2
        pool = torch.nn.functional.avg_pool2d
        if x.ndim == 5:
            pool = torch.nn.functional.avg_pool3d
        return pool(x, taps, stride=2, padding=taps // 3)


class Mean(torch.nn.Module):
    """Averages over space and over a group's elements."""

    def __init__(self, fiber: int):
        super().__init__()
        self.fiber = fiber

    def forward(self, x: Any) -> torch.Tensor:
        """Return (batch, channels) of a tensor or field."""
        y = getattr(x, "tensor", x).flatten(2).mean(2)
        return y.unflatten(1, (-1, self.fiber)).mean(2)


def exported(module: torch.nn.Module) -> torch.nn.Module:
    """Return a network with all of its layers plain, for predictions; it is changed."""
    if hasattr(module, "export"):
        return module.export()
    for name, child in module.named_children():
        setattr(module, name, exported(child))
    return module
