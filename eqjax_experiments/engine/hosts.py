"""Which devices, of one host or of several, a run uses.

Every process of a run executes the same program on the same arguments; JAX's
distributed runtime connects them, and the first one writes the files.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization
from jax.experimental import multihost_utils

from eqjax.population.devices import device_mesh

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
        host, _, port = (self.coordinator or "localhost:1").rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"--coordinator is HOST:PORT, got {self.coordinator!r}")

    def connect(self, batch_size: int) -> list[jax.Device]:
        """Join the other processes, and return the devices to use.

        Raises:
          ValueError: the devices are not there or do not fit a batch of this size, or
            the processes do not meet.
        """
        if batch_size % self.data_devices:
            raise ValueError(
                f"--batch-size {batch_size} is not a multiple of --data-devices "
                f"{self.data_devices}"
            )
        if self.processes > 1:
            try:
                jax.distributed.initialize(
                    self.coordinator,
                    self.processes,
                    self.process,
                    heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                )
            except RuntimeError as error:
                raise ValueError(f"the processes did not meet: {error}") from None
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

    def replicate(self, open_folder: Callable[[], Path]) -> Path:
        """Return the folder of the run, and on other processes a copy to work in.

        Args:
          open_folder: makes or finds the folder; called by the first process alone.

        Raises:
          ValueError: what `open_folder` raised, on every process.
        """
        if self.processes == 1:
            return open_folder()
        folder: Path | None = None
        message: dict[str, Any] = {}
        if self.process == 0:
            try:
                folder = open_folder()
                files = [p for p in folder.iterdir() if p.is_file()]
                message = {"files": {p.name: p.read_bytes() for p in files}}
            except ValueError as error:
                message = {"error": str(error)}
        message = _from_first(message)
        if "error" in message:
            raise ValueError(message["error"])
        if folder is not None:
            return folder
        copy = Path(tempfile.mkdtemp(prefix="eqjax-"))
        atexit.register(shutil.rmtree, copy, ignore_errors=True)
        for name, data in message["files"].items():
            (copy / name).write_bytes(data)
        return copy

    @contextlib.contextmanager
    def leaving(self, resume: str | None = None) -> Iterator[None]:
        """End this process at once where the others that it would wait for are gone.

        Args:
          resume: arguments with which all of them continue, once there are any.
        """
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if self.processes == 1:
                raise
            print(f"process {self.process} failed, or lost the others: {error}")
            if resume is not None:
                print(f"start all of them again with {resume}")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)


def _from_first(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message of the first process, on all of them."""
    content = np.frombuffer(serialization.msgpack_serialize(message), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    room = np.zeros(length, np.uint8)
    room[: len(content)] = content[:length]
    received = np.asarray(multihost_utils.broadcast_one_to_all(room))
    return serialization.msgpack_restore(received.tobytes())
