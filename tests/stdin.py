"""A stdin for commands that run in the test's own process."""

import io
import sys


class Typed(io.TextIOWrapper):
    """A stdin of given bytes."""


def type_in(monkeypatch, raw: bytes) -> None:
    """Make bytes the stdin of the next command."""
    monkeypatch.setattr(sys, "stdin", Typed(io.BytesIO(raw)))
