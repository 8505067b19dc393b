"""How results are written to stdout."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any


def print_line(text: str) -> None:
    """Print one line of UTF-8, whatever the locale; a line break inside would misalign all that follow."""
    _print(text.replace("\n", " "))


def print_json(record: dict[str, Any]) -> None:
    """Print an object as one line of JSON."""
    _print(json.dumps(record, ensure_ascii=False, default=_as_json))


def print_text(text: str) -> None:
    """Print lines of text."""
    _print(text.removesuffix("\n"))


def _print(line: str) -> None:
    with errors_name("stdout"):
        sys.stdout.buffer.write(line.encode() + b"\n")
    if sys.stdout.isatty():
        flush()


def flush() -> None:
    """Write what has been printed.

    Raises:
        OSError: stdout cannot be written; it is named.
    """
    with errors_name("stdout"):
        sys.stdout.flush()


@contextlib.contextmanager
def errors_name(file: str) -> Iterator[None]:
    """Inside this context, an error of the operating system that names no file, as those while writing, names this one.

    A broken pipe stays as it is: nobody reads it.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, file) from None


def _as_json(value: Any) -> Any:
    """A value that JSON has no type for, such as a NumPy number or a path."""
    return value.item() if hasattr(value, "item") else str(value)


def formatted(value: Any) -> str:
    """A value for a person: four decimals, thousands separated."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def warn_unread(place: str, *, read: int, unread: int) -> None:
    """Say on stderr how much of a line was read: so many tokens, and so many not."""
    counts = f"{read + unread:,} tokens, only the first {read:,} were read"
    print(f"{place}: {counts} (search.max_source); cut the line into sentences.", file=sys.stderr)
