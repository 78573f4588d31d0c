"""The shell around every command: arguments, errors, folders, interruptions.

A command reads its settings, refuses bad ones before it leaves a file behind, works in
a folder of its own, and says how to continue when it is interrupted. The programs that
it compiles are kept, in `~/.cache/eqjax/compiled` or where JAX_COMPILATION_CACHE_DIR
says, and the next command that needs them starts sooner.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import jax
import tyro
from rich.console import Console

from eqjax_experiments.reports.printing import (
    print_readings,
    say_what_is_exact,
    say_what_the_data_are,
)
from eqjax_experiments.runs import run_folder
from eqjax_experiments.tasks.task import MethodTask

WIDTH = 160  # of what is printed into a file
KEPT_BYTES = 2**31  # of compiled programs; the oldest make room
AnySettings = TypeVar("AnySettings")


class FolderSettings(run_folder.Settings, Protocol):
    """The settings of a command that has a run folder."""

    @property
    def data(self) -> str:
        """Which data."""
        ...

    @property
    def label(self) -> str:
        """What runs are called after."""
        ...

    def check(self) -> None:
        """Raise ValueError or OSError where it cannot run."""
        ...


AnyFolderSettings = TypeVar("AnyFolderSettings", bound=FolderSettings)


def console() -> Console:
    """Return where a command prints to."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


@contextlib.contextmanager
def errors_end_it(console: Console) -> Iterator[None]:
    """Print what is wrong with settings or files, and end with exit status 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", markup=False)
        raise SystemExit(2) from None


@contextlib.contextmanager
def interruptible(console: Console, resume: str) -> Iterator[None]:
    """Say how to continue when a command is interrupted, and end with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"interrupted; continue with: {resume}", markup=False)
        raise SystemExit(130) from None


def parse(
    kind: type[AnySettings], description: str | None, arguments: list[str] | None
) -> AnySettings:
    """Read settings from the command line, and keep what is compiled from then on."""
    settings = tyro.cli(kind, args=arguments, description=description)
    keep_compiled()
    return settings


def keep_compiled() -> None:
    """Keep compiled programs in a folder of the user, unless JAX has been told one."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "eqjax" / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", KEPT_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def open_folder(
    console: Console,
    settings: AnyFolderSettings,
    command: str,
    replicate: Callable[[Callable[[], Path]], Path] = lambda open_one: open_one(),
) -> tuple[AnyFolderSettings, Path]:
    """Return the settings and the folder of a new run, or of the one to continue.

    Args:
      console: to say what takes its time.
      settings: from the command line.
      command: what new folders are called after.
      replicate: opens the folder on the first of several processes.

    Raises:
      ValueError: they cannot run, or do not belong to the folder.
      OSError: files of the data are missing.
    """
    console.print(f"loading {settings.data}", markup=False)
    if not settings.resume:
        settings.check()  # errors leave no folder behind
    default = f"{command}-{settings.label}"
    folder = replicate(functools.partial(run_folder.open_run, settings, default))
    return run_folder.saved_task(folder, type(settings)), folder


def train(
    kind: type[MethodTask],
    command: str,
    description: str | None,
    arguments: list[str] | None,
) -> None:
    """Run a task that gets one network in the end from the command line."""
    out = console()
    with contextlib.ExitStack() as held:
        with errors_end_it(out):
            settings = parse(kind, description, arguments)
            task, folder = open_folder(out, settings, command)
            dataset = task.load()
            model = task.first_model()
            held.enter_context(run_folder.alone(folder))
        out.print(f"writing to {folder}")
        say_what_the_data_are(out, dataset)
        say_what_is_exact(out, model, dataset.image_shape[:-1])
        with interruptible(out, f"--name {folder.name} --resume"):
            rows: list[dict[str, Any]] = task.run(folder, out)
        print_readings(out, rows)
        for picture in sorted(folder.rglob("trial.png")):
            out.print(f"picture: {picture}")
