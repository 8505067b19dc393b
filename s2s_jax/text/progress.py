"""Lines of progress while large data is read, one every few seconds."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

SECONDS = 10  # between two lines

_Part = TypeVar("_Part")


def reported(
    parts: Iterable[_Part],
    print_line: Callable[[str], None],
    done: str,
    *,
    count: Callable[[_Part], int],
    total: int = 0,
) -> Iterator[_Part]:
    """The parts; every `SECONDS` a line says how many pairs were in them, how fast, and how long it will take.

    Args:
        done: what was done with the pairs, such as `read`.
        count: the number of pairs in a part.
        total: pairs that there are; 0 where that is not known.
    """
    start = last = time.monotonic()
    pairs = 0
    for part in parts:
        yield part
        pairs += count(part)
        now = time.monotonic()
        if now - last >= SECONDS:
            last, rate = now, pairs / (now - start)
            left = f" of {total:,}, about {(total - pairs) / rate:,.0f} s left" if total else ""
            print_line(f"{done}: {pairs:,} pairs{left} ({rate:,.0f} per second)")
