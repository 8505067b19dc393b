"""The console on which training shows its progress; that nobody can read it any more never ends a training."""

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from s2s_jax.training import distributed


def training_console(*, stderr: bool = False, markup: bool = True) -> Console:
    """A console on stdout or stderr that loses lines rather than raise when they cannot be written.

    Of the processes that share a training, the first one alone shows anything.
    """
    if not distributed.is_first():
        return Console(quiet=True)
    stream = sys.stderr if stderr else sys.stdout
    if stream is None or "ipykernel" in sys.modules:  # closed, which rich knows, or a notebook, where rich shows HTML
        return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=markup)
    lasting: Any = LastingStream(stream, _warn)
    return Console(file=lasting, soft_wrap=True, highlight=False, markup=markup)


class LastingStream:
    """A text stream whose failures are reported once and then ignored: a pipe without a reader, a full disk."""

    def __init__(self, stream: Any, warn: Callable[[Exception], None]):
        self.stream, self.warn, self.failed = stream, warn, False

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush what was written, or lose it."""
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _try(self, function: Callable[..., Any], *arguments: Any) -> None:
        if self.failed:
            return
        try:
            function(*arguments)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self.failed = True
            self._discard()
            self.warn(error)

    def _discard(self) -> None:
        """Let what is still in the buffer go nowhere; Python would fail once more at exit."""
        with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def _warn(error: Exception) -> None:
    """Say on stderr, if that can be written, why no more progress is shown."""
    reason = getattr(error, "strerror", None) or str(error)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"s2s: progress is no longer shown ({reason}); training continues, see metrics.jsonl\n")
        sys.stderr.flush()
