"""How results are written to stdout."""

import json
import sys
from collections.abc import Iterable
from typing import Any


def print_line(text: str) -> None:
    """Print one line of UTF-8, whatever the locale; a line break inside would misalign all that follow."""
    sys.stdout.buffer.write(text.replace("\n", " ").encode() + b"\n")
    _flush_for_people()


def print_json(record: dict[str, Any]) -> None:
    """Print an object as one line of JSON."""
    sys.stdout.buffer.write(json.dumps(record, ensure_ascii=False, default=_as_json).encode() + b"\n")
    _flush_for_people()


def _flush_for_people() -> None:
    """Show output at once where a person types or watches."""
    if sys.stdout.isatty() or sys.stdin.isatty():
        sys.stdout.buffer.flush()


def _as_json(value: Any) -> Any:
    """A value that JSON has no type for, such as a NumPy number or a path."""
    return value.item() if hasattr(value, "item") else str(value)


def rounded(alignment: Iterable) -> list[list[float]]:
    """An alignment for JSON, to five decimals."""
    return [[round(float(weight), 5) for weight in row] for row in alignment]


def formatted(value: Any) -> str:
    """A value for a person: four decimals, thousands separated."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
