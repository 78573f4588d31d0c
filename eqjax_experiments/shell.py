"""The shell around every command: arguments, output, errors, folders, interruptions.

A command reads its settings, refuses bad ones before it leaves a file behind, works in
a folder of its own, and says how to continue when it is interrupted. It ends with
status 0, with 2 for settings or files that it cannot use, and with 130 when it was
interrupted. The programs that it compiles are kept, in `~/.cache/eqjax/compiled` or
where JAX_COMPILATION_CACHE_DIR says, and the next command starts sooner.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import jax
import rich
import tyro
from rich.console import Console

from eqjax_experiments.engine import interrupts
from eqjax_experiments.reports.printing import (
    print_readings,
    say_what_is_exact,
    say_what_the_data_are,
)
from eqjax_experiments.runs import files, run_folder
from eqjax_experiments.runs.files import DamagedFileError
from eqjax_experiments.tasks.cost import Cost, cost_of
from eqjax_experiments.tasks.task import MethodTask

PROGRAM = "eqjax"  # the console script
WIDTH = 160  # of what is printed into a file
KEPT_BYTES = 2**31  # of compiled programs; the oldest make room


@dataclasses.dataclass(frozen=True)
class Output:
    """What a command prints."""

    quiet: bool = False
    """Print errors alone."""
    json: Path | None = None
    """Write the result into this file, too, as JSON; with - to the standard output,
    and all else to the standard error."""

    def direct(self, console: Console) -> None:
        """Make a console print what is asked for."""
        console.quiet = self.quiet
        if str(self.json) == "-":
            console.file = sys.stderr

    def write(self, result: Any) -> None:
        """Write the result of a command where it is asked for."""
        if str(self.json) == "-":
            print(json.dumps(result, indent=2))
        elif self.json is not None:
            files.write_json(self.json, result)


@dataclasses.dataclass(frozen=True)
class RunOutput(Output):
    """What a command prints that may take long."""

    dry_run: bool = False
    """Print what would be trained and about how long it takes on this machine, and
    stop."""


AnyOutput = TypeVar("AnyOutput", bound=Output)


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
    """Return where a command prints to, and all bars of what takes long."""
    width = None if sys.stdout.isatty() else WIDTH
    rich.reconfigure(width=width, highlight=False)
    return rich.get_console()


@contextlib.contextmanager
def errors_end_it(console: Console) -> Iterator[None]:
    """Print what is wrong with settings or files, and end with exit status 2."""
    try:
        yield
    except (ValueError, OSError) as error:
        console.quiet = False
        console.print(f"error: {error}", markup=False)
        raise SystemExit(2) from None


@contextlib.contextmanager
def interruptible(console: Console, resume: str) -> Iterator[None]:
    """Let a command be interrupted, say how to continue, and end with status 130.

    A file that cannot be written, as on a full disk, or read ends it with status 2.

    Args:
      console: to print on.
      resume: the command that continues.
    """
    try:
        with interrupts.gracefully(lambda text: console.print(text, markup=False)):
            yield
    except KeyboardInterrupt:
        console.quiet = False
        console.print(f"interrupted; continue with: {resume}", markup=False)
        raise SystemExit(130) from None
    except DamagedFileError as error:
        console.quiet = False
        console.print(f"error: {error}", markup=False)
        raise SystemExit(2) from None
    except OSError as error:
        console.quiet = False
        console.print(f"error: {error}", markup=False)
        console.print(
            f"what was saved before is kept; once there is room, or the file can be "
            f"read, continue with: {resume}",
            markup=False,
        )
        raise SystemExit(2) from None


def command_line(command: str, *options: str) -> str:
    """Return what to type for a command, as the program that runs was called."""
    return shlex.join([*_program(command).split(" "), command, *options])


def _program(command: str) -> str:
    """Return what is typed before a command."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None:
        module = spec.name.removesuffix(".__main__")
        return f"python -m {module.removesuffix('.' + command.replace('-', '_'))}"
    called = sys.argv[0].removesuffix(f" {command}")
    name = Path(called).name
    found = shutil.which(name)
    return name if found and Path(found).resolve() == Path(called).resolve() else called


def help_on(description: str | None) -> str:
    """Return what a command does, with its examples as the program was called.

    >>> help_on("Does it.")
    'Does it.'
    """

    def typed(example: re.Match[str]) -> str:
        line = command_line(example[1])
        if Path(line.partition(" ")[0]).name != PROGRAM:
            line = example[0]  # in a clone
        return f"$ {line}"  # a line that begins with a sign stays one of its own

    return re.sub(r"^python -m experiments (\S+)", typed, description or "", flags=re.M)


def parse(
    console: Console,
    description: str | None,
    arguments: list[str] | None,
    output: type[AnyOutput],
    *kinds: type[Any],
) -> tuple[AnyOutput, *tuple[Any, ...]]:
    """Read the command line, direct the output, and keep what is compiled from then on.

    Args:
      console: to direct.
      description: of the command, with examples.
      arguments: of the command line; those of the process if None.
      output: what may be asked of the output.
      *kinds: dataclasses of settings.

    Returns:
      The output, and the settings of every kind.
    """
    options = tyro.cli(
        options_of(output, *kinds), args=arguments, description=help_on(description)
    )
    found = [getattr(options, f.name) for f in dataclasses.fields(options)]
    *settings, asked = found
    asked.direct(console)
    keep_compiled()
    return (asked, *settings)


def options_of(output: type[Output], *kinds: type[Any]) -> type[Any]:
    """Return one dataclass of all options, whose names have no prefix."""
    parts = [
        (f"part_{i}", Annotated[kind, tyro.conf.arg(name="")])
        for i, kind in enumerate((*kinds, output))
    ]
    return dataclasses.make_dataclass("Options", parts, frozen=True)


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
    replicate: Callable[[Callable[[], Path]], Path] = lambda open_one: open_one(),
) -> tuple[AnyFolderSettings, Path]:
    """Return the settings and the folder of a new run, or of the one to continue.

    Args:
      console: to say what takes its time.
      settings: from the command line.
      replicate: opens the folder on the first of several processes.

    Raises:
      ValueError: they cannot run, or do not belong to the folder.
      OSError: files of the data are missing.
    """
    if settings.resume:
        console.print(f"continuing {settings.name}", markup=False)
    else:
        console.print(f"loading {settings.data}", markup=False)
        settings.check()  # errors leave no folder behind
    default = f"{settings.COMMAND}-{settings.label}"
    folder = replicate(functools.partial(run_folder.open_run, settings, default))
    return run_folder.saved_task(folder, type(settings)), folder


def say_the_cost(console: Console, output: Output, cost: Cost) -> None:
    """Print what a run would cost, however quiet: it is the result of a dry run."""
    console.quiet = False
    console.print(str(cost), markup=False)
    console.print("nothing was trained, and there is no folder of a run")
    output.write(dataclasses.asdict(cost))


def train(
    kind: type[MethodTask],
    description: str | None,
    arguments: list[str] | None,
) -> None:
    """Run a task that gets one network in the end from the command line."""
    out = console()
    with contextlib.ExitStack() as held:
        with errors_end_it(out):
            output, settings = parse(out, description, arguments, RunOutput, kind)
            if output.dry_run:
                settings.check()
                say_the_cost(out, output, cost_of(settings))
                return
            task, folder = open_folder(out, settings)
            dataset = task.load()
            model = task.first_model()
            held.enter_context(run_folder.alone(folder))
        out.print(f"writing to {folder}")
        say_what_the_data_are(out, dataset)
        say_what_is_exact(out, model, dataset.image_shape[:-1])
        resume = command_line(kind.COMMAND, "--name", folder.name, "--resume")
        with interruptible(out, resume):
            rows: list[dict[str, Any]] = task.run(folder, out)
        print_readings(out, rows)
        for picture in sorted(folder.rglob("trial.png")):
            out.print(f"picture: {picture}")
        output.write({"run": str(folder), "readings": rows})
