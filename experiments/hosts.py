"""Which devices, of one host or of several, a run uses.

Every process of a run executes the same program on the same arguments; JAX's
distributed runtime connects them, and the first one writes the files.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import serialization
from jax.experimental import multihost_utils

from eqjax.devices import device_mesh

HEARTBEAT_SECONDS = 30  # a silent process counts as dead after this


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Which devices, of one host or of several, a run uses."""

    devices: int = 0
    """Devices to spread members over; 0 for all of all hosts."""
    data_devices: int = 1
    """Of these, how many share every batch."""
    coordinator: str | None = None
    """HOST:PORT of the first process, where a run has several."""
    processes: int = 1
    """How many processes the run has, one or more per host."""
    process: int = 0
    """Number of this process, from 0."""

    def __post_init__(self) -> None:
        """Reject numbers that no run can have."""
        for name in ("data_devices", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
        if self.devices < 0:
            raise ValueError("--devices must be at least 0")
        if not 0 <= self.process < self.processes:
            raise ValueError(f"--process must be 0 to {self.processes - 1}")
        if (self.processes > 1) != (self.coordinator is not None):
            raise ValueError("--processes and --coordinator go together")

    def connect(self) -> list[jax.Device]:
        """Join the other processes, and return the devices to use."""
        if self.processes > 1:
            jax.distributed.initialize(
                self.coordinator,
                self.processes,
                self.process,
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
        devices = jax.devices()
        if self.devices > len(devices):
            hint = ""
            if devices[0].platform == "cpu":
                hint = f"; JAX_NUM_CPU_DEVICES={self.devices} makes as many of one CPU"
            raise ValueError(
                f"--devices {self.devices} are asked for, {len(devices)} are there"
                f"{hint}"
            )
        if self.processes > 1 and self.devices not in (0, len(devices)):
            raise ValueError("several processes use all their devices; leave --devices")
        devices = devices[: self.devices or None]
        device_mesh(devices, self.data_devices)  # raises where they cannot be split
        return devices

    def mirror(self, folder: Path | None) -> Path:
        """Return a folder to work in: the first process's own, and copies of it.

        Args:
          folder: of the run, where this is the first process.
        """
        if self.processes == 1:
            return _present(folder)
        files = {}
        if self.process == 0:
            files = {p.name: p.read_bytes() for p in _present(folder).iterdir()}
        content = np.frombuffer(serialization.msgpack_serialize(files), np.uint8)
        length = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
        padded = np.zeros(length, np.uint8)
        padded[: min(length, len(content))] = content[:length]
        received = np.asarray(multihost_utils.broadcast_one_to_all(padded))
        if self.process == 0:
            return _present(folder)
        copy = Path(tempfile.mkdtemp(prefix="eqjax-"))
        for name, data in serialization.msgpack_restore(received.tobytes()).items():
            (copy / name).write_bytes(data)
        return copy

    def leave(self, message: str) -> None:
        """End this process at once: the others it would wait for are gone."""
        print(message, flush=True)
        sys.stderr.flush()
        os._exit(1)


def _present(folder: Path | None) -> Path:
    if folder is None:
        raise ValueError("the first process needs the folder of the run")
    return folder
