"""How lines become batches: the one grouping and padding that translation, scoring and evaluation share.

Lines are read in windows and sorted by length inside a window. A batch holds at most so many rows and so many padded
positions, so that a long line is not decoded beside many short ones, and no line waits for one much longer. Row counts
and lengths are rounded up to few shapes, so that little is compiled.

Another number of rows or another padded length may round the results of a line otherwise. Invariant batches
(`search.batch_invariant`) have a shape that the lengths of a line alone decide.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Int

from s2s_jax.shapes import PAD, Sources
from s2s_jax.text.tokenizers import append_eos

WINDOW = 16  # full batches that are sorted together
_Item = TypeVar("_Item")


class Shape(NamedTuple):
    """The shape of an invariant batch; all sides have one length, so that there are few shapes."""

    rows: int
    length: int


Ready = Callable[[], bool]  # whether another item comes at once


def windows(items: Iterable[_Item], most: int, ready: Ready | None = None) -> Iterator[list[_Item]]:
    """Successive windows of items; those before an error are returned before it is raised.

    Args:
        most: most items of a window.
        ready: asked after each item; where it is false, the window ends there. None where no item has to be waited for.
    """
    items = iter(items)
    while True:
        window: list[_Item] = []
        try:
            for item in itertools.islice(items, min(most, sys.maxsize)):
                window.append(item)
                if ready is not None and not ready():
                    break
        except Exception:
            if window:
                yield window
            raise
        if not window:
            return
        yield window


def plan_batches(
    lengths: Sequence[tuple[int, ...]], *, size: int, tokens: int, invariant: bool = False
) -> list[list[int]]:
    """Rows of like length grouped, shortest first; each batch is a list of indices into `lengths`.

    Args:
        lengths: the tokens of each row, per side: (source,), or (source, target).
        size: most rows of a batch.
        tokens: most positions of a batch, over all sides, padding included; a longer row stands alone.
        invariant: rows of one `invariant_shape` alone share a batch.
    """
    if invariant:
        return _invariant_batches(lengths, size, tokens)
    batches: list[list[int]] = []
    longest: tuple[int, ...] = ()
    for row in sorted(range(len(lengths)), key=lambda row: sum(lengths[row])):
        if batches and len(batches[-1]) < size:
            widened = tuple(map(max, longest, lengths[row]))
            if padded_positions(len(batches[-1]) + 1, widened) <= tokens:
                batches[-1].append(row)
                longest = widened
                continue
        batches.append([row])
        longest = lengths[row]
    return batches


def _invariant_batches(lengths: Sequence[tuple[int, ...]], size: int, tokens: int) -> list[list[int]]:
    members: dict[Shape, list[int]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: sum(lengths[row])):
        members.setdefault(invariant_shape(lengths[row], size=size, tokens=tokens), []).append(row)
    batches: list[list[int]] = []
    for shape, rows in members.items():
        most = min(shape.rows, size)
        batches += [rows[first : first + most] for first in range(0, len(rows), most)]
    return batches


def invariant_shape(lengths: tuple[int, ...], *, size: int, tokens: int) -> Shape:
    """The shape of the batch of a row of these lengths: `size` rows, as a power of two, or half as many until it fits.

    Args:
        lengths, size, tokens: as in `plan_batches`.
    """
    rows, length = next_power_of_two(size), rounded_length(max(lengths))
    while rows > 1 and rows * length * len(lengths) > tokens:
        rows //= 2
    return Shape(rows, length)


def padded_positions(rows: int, lengths: tuple[int, ...]) -> int:
    """Positions of a batch as `pad_rows` makes it."""
    return next_power_of_two(rows) * sum(map(rounded_length, lengths))


def run_batches(
    compute: Callable[[list[int]], Any],
    lengths: Sequence[tuple[int, ...]],
    *,
    size: int,
    tokens: int,
    invariant: bool = False,
) -> Iterator[tuple[list[int], Any]]:
    """The rows of each batch of `plan_batches`, with their result on the host.

    A device computes one batch while the host works on the result of the preceding one.

    Args:
        compute: the rows of a batch -> arrays on a device, dispatched and not waited for.
    """
    batches = plan_batches(lengths, size=size, tokens=tokens, invariant=invariant)
    for rows, result in prefetch_one((rows, compute(rows)) for rows in batches):
        yield rows, jax.device_get(result)


def prefetch_one(items: Iterable[_Item]) -> Iterator[_Item]:
    """The same items, each returned when the next one has been started."""
    for item, _ in itertools.pairwise(itertools.chain(items, [None])):
        yield item  # type: ignore[misc]  # None is never the first of two


def read_source(ids: Sequence[int], most: int) -> Int[np.ndarray, " S"]:
    """The tokens of a source that are read, with EOS: at most `most` (`search.max_source`), all where that is 0."""
    return append_eos(ids[: most - 1] if most else ids)


def pad_rows(lines: Sequence[np.ndarray], shape: Shape | None = None) -> np.ndarray:
    """Encoded lines as one array of padded rows, both dimensions rounded up so that few shapes occur, or of `shape`."""
    rows, length = shape or (next_power_of_two(len(lines)), rounded_length(max(map(len, lines))))
    ids = np.full((rows, length), PAD, np.int32)
    for row, line in enumerate(lines):
        ids[row, : len(line)] = line
    return ids


def pad_sources(rows: Sequence[tuple[np.ndarray, ...]], shape: Shape | None = None) -> "np.ndarray | Sources":
    """What a model encodes: the padded ids of source lines, with those of their features where they have some."""
    source, *features = (pad_rows(side, shape) for side in zip(*rows, strict=True))
    return Sources(source, tuple(features)) if features else source


def next_power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`; 1 for 0."""
    return 1 << max(count - 1, 0).bit_length()


def rounded_length(length: int) -> int:
    """The next of 8, 12, 16, 24, 32, 48, 64, ...: at most a third is padding."""
    power = max(8, 1 << (length - 1).bit_length())
    return power * 3 // 4 if power > 8 and length <= power * 3 // 4 else power
