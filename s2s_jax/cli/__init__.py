"""The command line: reads arguments, calls the package, prints results, turns errors into a line and an exit code."""

import errno
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.command_line import parse
from s2s_jax.cli.errors import DONE, INTERRUPTED, explain
from s2s_jax.cli.output import flush

# commands with a module of their own; the rest are in `commands`
MODULES = (
    "train",
    "translate",
    "compare",
    "score",
    "export",
    "serve",
    "explore",
    "sweep",
    "attention",
    "bench",
    "completion",
    "checkpoint",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done, 1 internal error, 2 usage error, 130 interrupted by Ctrl-C; 128 + number of
        another signal.
    """
    stdout_is_closed = sys.stdout is None
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # whatever the locale says
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return _run(words, stdout_is_closed=stdout_is_closed)
    except BrokenPipeError:  # the reader of our output has closed it, as `head` does
        _close_output()
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        explanation = None if "--traceback" in words else explain(error)
        if explanation is None:
            raise
        if getattr(error, "errno", None) == errno.ENOSPC or getattr(error, "filename", None) == "stdout":
            _close_output()
        print(f"s2s: {explanation.message}", file=sys.stderr)
        return explanation.code


def _run(words: Sequence[str], *, stdout_is_closed: bool) -> int:
    try:
        arguments = parse(words)
    except SystemExit:  # --help and --version have printed
        flush()
        raise
    trains = arguments.command == "train" or getattr(arguments.options, "action", "") == "run"
    if stdout_is_closed and not trains:
        raise UsageError("stdout is closed, and the answer would be lost; send it to a file, or to /dev/null")
    _import_users_code(getattr(arguments.options, "imports", []))
    code = _function(arguments)(arguments)
    flush()
    return code or DONE


def _function(arguments: Arguments) -> Callable[[Arguments], int | None]:
    """The function of a command, imported only now: help and usage errors do without jax, `translate` without flax."""
    if arguments.help is not None:
        return importlib.import_module("s2s_jax.cli.help").show_help
    module = arguments.command if arguments.command in MODULES else "commands"
    return getattr(importlib.import_module(f"s2s_jax.cli.{module}"), f"{arguments.command}_command")


def _import_users_code(names: Sequence[str]) -> None:
    """Import what `--import` names.

    Raises:
        UsageError: there is no such module; whatever else goes wrong in it is raised as it is.
    """
    if not names:
        return
    from s2s_jax.imports import import_code

    for name in names:
        try:
            import_code([name])
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise UsageError(
                    f"--import {name}: there is no module {error.name!r}; give a Python file or a module on PYTHONPATH"
                ) from None
            raise


def _open_closed_streams() -> None:
    """Point streams that the caller closed at nothing: the next file that is opened would take their number."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_WRONLY)
            if nothing != descriptor:
                os.dup2(nothing, descriptor)
                os.close(nothing)
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))


def _close_output() -> None:
    """Let the interpreter flush what is left to nowhere, instead of failing once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
