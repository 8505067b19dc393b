"""What a command reads: a run with its settings, and lines."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.text.files import raw_lines, stream_lines

if TYPE_CHECKING:
    from s2s_jax.run import Run


def load_run(arguments: Arguments, *defaults: str) -> "Run":
    """The run of a command with the settings of the command line; `defaults` are overrides that give way to those."""
    from s2s_jax import load  # only now: an exported run is translated without flax
    from s2s_jax.training.devices import keep_freed_memory, use_compilation_cache

    keep_freed_memory()
    beam = getattr(arguments.options, "beam", None)
    changes = [*defaults, *([] if beam is None else [f"search.beam={beam}"]), *arguments.overrides]
    combine = {
        name: vars(arguments.options)[name]
        for name in ("average", "ensemble", "ensemble_average")
        if name in arguments.options
    }
    run = load(arguments.options.run, changes=changes, **combine)
    use_compilation_cache(run.experiment.device)
    if run.averaged:
        print(f"averaged: steps {', '.join(map(str, run.averaged))}", file=sys.stderr)
    for line in run.refused:
        print(f"refused: {line}; step {run.step} is used", file=sys.stderr)
    return run


def input_lines(name: str | None) -> Iterator[str]:
    """Lines of a file, or of stdin as they come."""
    if name is None:
        return stream_lines(sys.stdin.buffer, "stdin")
    return stream_lines(raw_lines(Path(name)), name)


def constrained_lines(arguments: Arguments) -> Iterator[ConstrainedLine]:
    """Each input line with its line of the files of prefixes and of constraints.

    Raises:
        UsageError: such a file has fewer or more lines than the input.
    """
    files = {"--prefix": arguments.options.prefix, "--constraints": arguments.options.constraints}
    beside = {name: list(input_lines(path)) for name, path in files.items() if path}
    number = 0
    for number, line in enumerate(input_lines(arguments.options.input), 1):
        for name, lines in beside.items():
            if number > len(lines):
                raise _uneven(f"{name} {files[name]}", len(lines), f"{number} or more")
        prefix, phrases = (beside[name][number - 1] if name in beside else "" for name in files)
        yield ConstrainedLine(line, prefix, tuple(phrases.split("\t")))
    for name, lines in beside.items():
        if number < len(lines):
            raise _uneven(f"{name} {files[name]}", len(lines), str(number))


def _uneven(file: str, lines: int, wanted: str) -> UsageError:
    return UsageError(f"{file} has {lines} lines, the input has {wanted}; give one line per input line, blank for none")
