"""Where the members of a population are worked on: how many at a time, on what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from eqjax.groups.checks import check_whole, several
from eqjax.ops.convolution import prefer

MEMBERS, DATA = "population", "data"  # the axes of a mesh


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How the members of a stack are worked on.

    Attributes:
      width: members per stack. One per device is trained as it is, more are vmapped.
      steps_per_call: training steps in one call of the compiled program, in a loop on
        the device; 1 to step from Python.
      mesh: devices along the axes `population` and `data`: the stack is spread over
        the first, every batch over the second; None for a single device.

    >>> Strategy(width=4, steps_per_call=8).width
    4
    """

    width: int = 1
    steps_per_call: int = 1
    mesh: Mesh | None = None

    def __post_init__(self):
        """Check sizes, and round the width up to a multiple of the mesh."""
        for name in ("width", "steps_per_call"):
            check_whole(name, getattr(self, name))
        if self.mesh is not None:
            if not isinstance(self.mesh, Mesh):
                raise TypeError(
                    f"mesh must be a Mesh, as eq.device_mesh makes, got {self.mesh!r}"
                )
            if self.mesh.axis_names != (MEMBERS, DATA):
                raise ValueError(
                    f"a mesh needs the axes {(MEMBERS, DATA)}, got "
                    f"{self.mesh.axis_names}; eq.device_mesh makes one"
                )
            devices = self.mesh.shape[MEMBERS]
            width = -(-self.width // devices) * devices
            object.__setattr__(self, "width", width)

    @property
    def width_per_device(self) -> int:
        """Members of a stack that one device works on."""
        return self.width // (1 if self.mesh is None else self.mesh.shape[MEMBERS])

    @property
    def form(self) -> str:
        """The form of convolutions: one that vmaps and loops well where it matters."""
        if self.mesh is not None and self.mesh.shape[DATA] > 1:
            return "direct"  # chunks would gather what the data axis spreads
        looped = self.steps_per_call > 1 and jax.default_backend() == "cpu"
        return "winograd" if self.width_per_device > 1 or looped else "auto"

    def __str__(self) -> str:
        """Return one line for people."""
        devices = self.mesh.size if self.mesh is not None else 1
        return (
            f"{self.width} member{'s' * (self.width > 1)} at a time on {devices} "
            f"{jax.devices()[0].device_kind} device{'s' * (devices > 1)}, "
            f"{self.steps_per_call} step{'s' * (self.steps_per_call > 1)} per call"
        )


def several_devices(value: Any) -> tuple[jax.Device, ...]:
    """Return a sequence of devices as a tuple.

    Raises:
      TypeError: it is something else.
    """
    found = several("devices", value, "devices, such as jax.devices()")
    for each in found:
        if not isinstance(each, jax.Device):
            raise TypeError(f"devices must be some of jax.devices(), got {each!r}")
    return found


def device_mesh(
    devices: Sequence[jax.Device] | None = None, data: int = 1
) -> Mesh | None:
    """Return a mesh of devices along the axes `population` and `data`.

    Args:
      devices: all of all hosts if None.
      data: devices that share every batch.

    Returns:
      The mesh, or None where it would hold the default device alone.

    Raises:
      ValueError: the number of devices is not a multiple of `data`.

    >>> device_mesh(jax.devices()[:1]) is None  # one device needs no mesh
    True
    """
    check_whole("data", data)
    devices = jax.devices() if devices is None else list(several_devices(devices))
    if not devices:
        raise ValueError("a mesh needs at least one device, got none")
    if len(devices) % data:
        divisors = [d for d in range(1, len(devices) + 1) if len(devices) % d == 0]
        raise ValueError(
            f"{len(devices)} devices cannot be split by {data} along the data axis; "
            f"possible: {divisors}"
        )
    if devices == jax.devices()[:1]:
        return None
    shape = (len(devices) // data, data)
    return jax.make_mesh(
        shape, (MEMBERS, DATA), axis_types=(AxisType.Auto,) * 2, devices=devices
    )


def place(tree: Any, mesh: Mesh | None, *axes: str | None) -> Any:
    """Put arrays, equal on every host, on the devices of a mesh.

    Args:
      tree: of numpy arrays.
      mesh: None for the default device.
      *axes: the mesh axis that each leading array axis is spread over, or None.
    """
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(
        lambda a: jax.make_array_from_callback(a.shape, sharding, a.__getitem__), tree
    )


def fetch(tree: Any) -> Any:
    """Return arrays, spread over the devices of all hosts, as numpy on every host."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def over_members(
    fn: Callable[..., Any], strategy: Strategy, *stacked: Any, shared: tuple = ()
) -> Any:
    """Apply a function to every member of a stack, each on its device.

    Args:
      fn: of a member's part of every stacked argument, and of the shared ones.
      strategy: of the stack.
      *stacked: with a leading axis of members.
      shared: the same for every member.

    Returns:
      The results, stacked.
    """

    def on_one_device(stacked, shared):
        with prefer(strategy.form):
            if strategy.width_per_device == 1:
                only = jax.tree.map(lambda leaf: leaf[0], stacked)
                return jax.tree.map(lambda leaf: leaf[None], fn(*only, *shared))
            axes = (0,) * len(stacked) + (None,) * len(shared)
            return jax.vmap(fn, axes)(*stacked, *shared)

    if strategy.mesh is None:
        return on_one_device(stacked, shared)
    members, everywhere = PartitionSpec(MEMBERS), PartitionSpec()
    return jax.shard_map(
        on_one_device,
        mesh=strategy.mesh,
        in_specs=(members, everywhere),
        out_specs=members,
        axis_names={MEMBERS},  # XLA spreads the data axis by itself
        check_vma=False,
    )(stacked, shared)
