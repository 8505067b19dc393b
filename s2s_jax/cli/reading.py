"""What does a command read: a run with its settings, and lines?"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.text.lines import raw_lines, stream_lines

if TYPE_CHECKING:
    from s2s_jax.run import Trained


def load_run(given: Given, *first: str) -> "Trained":
    """The run of a command with the settings that were asked for; those of `first` give way to the user's own."""
    from s2s_jax import load  # only now: what was exported is translated without flax

    beam = getattr(given.options, "beam", None)
    changes = [*first, *([] if beam is None else [f"search.beam={beam}"]), *given.overrides]
    for change in changes:
        if change.replace("-", "_").startswith(("model.", "text.", "optimiser.")):
            raise UsageError(f"{change.split('=')[0]} was settled when the run was trained; it can be set in s2s train")
    trained = load(given.options.run, changes=changes)
    for line in trained.refused:
        print(f"refused: {line}; step {trained.step} is used", file=sys.stderr)
    return trained


def input_lines(name: str | None) -> Iterator[str]:
    """Lines of a file, or of stdin as they come."""
    if name is None:
        return stream_lines(sys.stdin.buffer, "stdin")
    return stream_lines(raw_lines(Path(name)), name)
