"""Lines of stdin as they come, from a program or a person that may wait for the answers before it writes more."""

import collections
import os
import select
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from s2s_jax.cli.arguments import UsageError
from s2s_jax.cli.output import flush
from s2s_jax.decode.batching import Ready
from s2s_jax.text.files import raw_lines

PAUSE_SECONDS = 0.1  # without another line, what has come is answered
LONGEST_SECONDS = 1.0  # also where lines keep coming


class RawInput(NamedTuple):
    """Lines of bytes, what errors call them, and whether another one comes at once."""

    lines: Iterable[bytes]
    name: str
    ready: Ready | None  # None where all lines are there


def raw_input(path: str | None) -> RawInput:
    """The lines of a file, of a named pipe, or of stdin.

    Raises:
        UsageError: stdin is closed.
    """
    if path is not None:
        if not Path(path).is_fifo():
            return RawInput(raw_lines(Path(path)), path, None)
        arriving = ArrivingLines(os.open(path, os.O_RDONLY))
        return RawInput(arriving, path, arriving.ready)
    if sys.stdin is None:
        raise UsageError("stdin is closed; give the lines with --input FILE")
    if not _may_pause():
        return RawInput(sys.stdin.buffer, "stdin", None)
    arriving = ArrivingLines(sys.stdin.fileno())
    return RawInput(arriving, "stdin", arriving.ready)


def _may_pause() -> bool:
    """Whether stdin is a terminal, a pipe or a socket, whose writer may wait."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except OSError:  # no file at all
        return False
    return sys.stdin.isatty() or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class ArrivingLines(Iterator[bytes]):
    """Lines of a descriptor with their ends; before one is waited for, all output so far is shown."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._lines: collections.deque[bytes] = collections.deque()
        self._part: list[bytes] = []  # of a line whose end has not come
        self._ended = False
        self._window_ends: float | None = None  # a time; None where a window has just ended

    def __next__(self) -> bytes:
        if not self._lines and not self._ended:
            flush()
        while not self._lines and not self._ended:
            self._read()
        if not self._lines:
            raise StopIteration
        if self._window_ends is None:
            self._window_ends = time.monotonic() + LONGEST_SECONDS
        return self._lines.popleft()

    def ready(self) -> bool:
        """Whether another line, or the end, comes within a moment; also false after a longer time of steady lines."""
        now = time.monotonic()
        window_ends = now if self._window_ends is None else self._window_ends
        until = min(now + PAUSE_SECONDS, window_ends)
        while not self._lines and not self._ended and (left := until - time.monotonic()) > 0:
            if select.select([self._descriptor], [], [], left)[0]:
                self._read()
        more = self._ended or (bool(self._lines) and now < window_ends)
        if not more:
            self._window_ends = None
        return more

    def _read(self) -> None:
        data = os.read(self._descriptor, 1 << 16)
        self._part.append(data)
        if b"\n" in data or not data:
            *whole, rest = b"".join(self._part).split(b"\n")
            self._lines.extend(line + b"\n" for line in whole)
            self._part = [rest]
            self._ended = not data
            if self._ended and rest:
                self._lines.append(rest)
