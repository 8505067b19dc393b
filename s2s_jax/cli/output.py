"""How does a result come onto stdout?"""

import json
import sys
from collections.abc import Iterable
from typing import Any


def show_line(text: str) -> None:
    """A line of UTF-8 on stdout, whatever the locale says; a line break inside would shift all that follow."""
    sys.stdout.buffer.write(text.replace("\n", " ").encode() + b"\n")
    _at_once()


def show_json(record: dict[str, Any]) -> None:
    """A line of JSON."""
    sys.stdout.buffer.write(json.dumps(record, ensure_ascii=False, default=_plain).encode() + b"\n")
    _at_once()


def _at_once() -> None:
    """Whoever types, or looks on, waits for it."""
    if sys.stdout.isatty() or sys.stdin.isatty():
        sys.stdout.buffer.flush()


def _plain(value: Any) -> Any:
    """What JSON has no word for: a token count of NumPy, a path."""
    return value.item() if hasattr(value, "item") else str(value)


def rounded(alignment: Iterable) -> list[list[float]]:
    """An alignment for JSON."""
    return [[round(float(weight), 5) for weight in row] for row in alignment]


def number(value: Any) -> str:
    """A number for a person."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
