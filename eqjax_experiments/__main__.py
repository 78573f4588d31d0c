"""All commands: `eqjax COMMAND`, or in a clone `python -m experiments COMMAND`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any

import tyro

from eqjax_experiments import shell

PACKAGE = "eqjax_experiments"
COMMANDS = {
    "Which symmetry": {
        "test-symmetry": "which symmetry the images of a folder have",
        "evolve": "evolve which symmetry each layer has (EquiNAS_E)",
        "differentiate": "learn how much of each group a layer wants (EquiNAS_D)",
        "guide": "give the layers the group that an exact test names (EquiNAS_S)",
    },
    "What became of it": {
        "inspect": "what a run is, how far it is, and what it found",
        "report": "a page on a run, with pictures, as one file",
        "predict": "the classes of new images",
        "exactness": "which symmetry a trained network keeps, layer by layer",
    },
    "For comparison": {
        "baseline": "networks of fixed symmetry, and rivals",
        "generate": "search the generators of groups by deep Q-learning",
        "climb": "climb by morphisms (NASH)",
        "compare": "any of these over several seeds, with statistics",
        "reproduce": "the experiments of Maile et al. (2023)",
        "summarize": "tables and pictures of many runs",
    },
    "Besides": {
        "mnist": "fetch the full MNIST",
        "completion": "completion of commands and options: bash or zsh",
    },
}
NAMES = [name for known in COMMANDS.values() for name in known]
SHELLS = ("bash", "zsh")
READER_LEFT = 141  # as of a program that ends by SIGPIPE
HOW_TO_COMPLETE = """In bash, for this session:   source <(eqjax completion bash)
and for all to come:        eqjax completion bash >> ~/.bash_completion"""
USAGE = """usage: {program} COMMAND [options]

{commands}

{program} COMMAND --help shows the options of a command, their defaults and examples.
Most commands take --quiet, --json FILE (- for the standard output), and those that
train --dry-run, which tells what a run costs. Ctrl-C stops a run after the pass or
generation at hand, and --name NAME --resume continues it.

Status: 0, done; 2, settings or files that cannot be used; 130, interrupted."""


def module_of(command: str) -> Any:
    """Return the module of a command."""
    return importlib.import_module(f"{PACKAGE}.{command.replace('-', '_')}")


def usage() -> str:
    """Return the help on all commands."""
    width = max(map(len, NAMES))
    parts = []
    for title, known in COMMANDS.items():
        lines = [f"  {name:<{width}}  {what}" for name, what in known.items()]
        parts.append("\n".join((f"{title}:", *lines)))
    program = shell.command_line("").removesuffix(" ''")
    return USAGE.format(program=program, commands="\n\n".join(parts))


def print_completion(arguments: list[str]) -> None:
    """Print the script that completes commands and options in a shell."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        sys.exit(f"usage: eqjax completion {{{','.join(SHELLS)}}}\n\n{HOW_TO_COMPLETE}")
    kinds: dict[str, Any] = {
        name: shell.options_of(*module_of(name).OPTIONS)
        for name in NAMES
        if name != "completion"
    }
    tyro.extras.subcommand_cli_from_dict(
        kinds, prog="eqjax", args=["--tyro-print-completion", arguments[0]]
    )


def run(given: list[str], *, as_program: bool) -> None:
    """Run the command that is named first, with the arguments behind it."""
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0 if given else 2)
    command, *rest = given
    if command not in NAMES:
        near = difflib.get_close_matches(command, NAMES, 1, 0)[0]
        print(f"{usage()}\n")
        print(f"error: there is no command {command!r}; nearest: {near}")
        sys.exit(2)
    if command == "completion":
        print_completion(rest)
        return
    if as_program:
        sys.argv[0] = shell.command_line(command)  # the help on it begins with this
    module_of(command).main(rest)


def main(arguments: list[str] | None = None) -> None:
    """Run a command, with the arguments of the program if none are given."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        try:
            run(given, as_program=arguments is None)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # who reads the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_LEFT)


if __name__ == "__main__":
    main()
