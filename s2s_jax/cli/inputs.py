"""What does a command read: a run with its settings, and lines?"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.decode.lexical_constraints import ConstrainedLine
from s2s_jax.text.files import raw_lines, stream_lines

if TYPE_CHECKING:
    from s2s_jax.run import Run


def load_run(given: Given, *first: str) -> "Run":
    """The run of a command with the settings that were asked for; those of `first` give way to the user's own."""
    from s2s_jax import load  # only now: what was exported is translated without flax
    from s2s_jax.train.devices import keep_freed_memory, use_compilation_cache

    beam = getattr(given.options, "beam", None)
    changes = [*first, *([] if beam is None else [f"search.beam={beam}"]), *given.overrides]
    for change in changes:
        if change.replace("-", "_").startswith(("model.", "text.", "optimizer.")):
            raise UsageError(f"{change.split('=')[0]} was settled when the run was trained; it can be set in s2s train")
    asked = {
        name: vars(given.options)[name] for name in ("average", "ensemble", "ensemble_average") if name in given.options
    }
    keep_freed_memory()
    trained = load(given.options.run, changes=changes, **asked)
    use_compilation_cache(trained.experiment.device)
    if trained.averaged:
        print(f"averaged: steps {', '.join(map(str, trained.averaged))}", file=sys.stderr)
    for line in trained.refused:
        print(f"refused: {line}; step {trained.step} is used", file=sys.stderr)
    return trained


def input_lines(name: str | None) -> Iterator[str]:
    """Lines of a file, or of stdin as they come."""
    if name is None:
        return stream_lines(sys.stdin.buffer, "stdin")
    return stream_lines(raw_lines(Path(name)), name)


def wanted_lines(given: Given) -> Iterator[ConstrainedLine]:
    """Each line with what its translation must keep to.

    Raises:
        UsageError: a file beside the input has not a line for each line.
    """
    files = {"--prefix": given.options.prefix, "--constraints": given.options.constraints}
    beside = {name: list(input_lines(path)) for name, path in files.items() if path}
    number = 0
    for number, line in enumerate(input_lines(given.options.input), 1):
        for name, lines in beside.items():
            if number > len(lines):
                raise _uneven(f"{name} {files[name]}", len(lines), f"{number} or more")
        prefix, phrases = (beside[name][number - 1] if name in beside else "" for name in files)
        yield ConstrainedLine(line, prefix, tuple(phrases.split("\t")))
    for name, lines in beside.items():
        if number < len(lines):
            raise _uneven(f"{name} {files[name]}", len(lines), str(number))


def _uneven(file: str, lines: int, wanted: str) -> UsageError:
    return UsageError(
        f"{file} has {lines} lines, the input has {wanted}; a line for each is wanted, an empty one where nothing is"
    )
