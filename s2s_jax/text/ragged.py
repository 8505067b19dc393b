"""Rows of different lengths, one after another in a flat array that lies on disk where it is large.

Five million lines are one array and two numbers per line, not five million Python objects.
"""

import array
import contextlib
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from jaxtyping import Int, Integer

from s2s_jax.shapes import EOS, PAD

IN_MEMORY = 1 << 24  # bytes; what is larger is mapped from a file, whose pages the system reads and drops as needed
ROWS_AT_ONCE = 10_000  # that are copied while all rows are read in order


class Rows(NamedTuple):
    """Some rows: their numbers one after another, and the length of each."""

    flat: Integer[np.ndarray, "I *columns"]
    lengths: Integer[np.ndarray, " N"]


def with_eos(lines: Iterable[Sequence[int]]) -> Rows:
    """The ids of several lines, each followed by EOS."""
    flat, lengths = array.array("i"), array.array("i")
    for ids in lines:
        flat.extend(ids)
        flat.append(EOS)
        lengths.append(len(ids) + 1)
    return Rows(np.array(flat, np.int32), np.array(lengths, np.int32))


def reversed_before_last(rows: Rows) -> Rows:
    """The rows with all numbers but the last of each, the EOS, in reverse order."""
    lengths = np.asarray(rows.lengths, np.int64)
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    lasts = np.repeat(lengths, lengths) - 1
    places = np.arange(len(starts)) - starts
    return Rows(rows.flat[starts + np.where(places < lasts, lasts - 1 - places, places)], rows.lengths)


class Ragged(Sequence[np.ndarray]):
    """Rows of whole numbers; each row is an int32 array of its own length, and has as many columns as the others.

    A selection of rows shares the numbers with what it was selected from.
    """

    def __init__(
        self,
        flat: Integer[np.ndarray, "I *columns"],
        lengths: Integer[np.ndarray, " N"],
        starts: Integer[np.ndarray, " N"] | None = None,
    ):
        self.flat, self.lengths = flat, lengths
        self._starts = np.cumsum(lengths, dtype=np.int64) - lengths if starts is None else starts

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any] | np.ndarray], *, columns: tuple[int, ...] = ()) -> "Ragged":
        """Given rows, in memory."""
        arrays = [np.asarray(row, np.int32).reshape(-1, *columns) for row in rows]
        flat = np.concatenate([np.empty((0, *columns), np.int32), *arrays])
        return cls(flat, np.array([*map(len, arrays)], np.int32))

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> "Ragged": ...
    def __getitem__(self, index: int | slice) -> "np.ndarray | Ragged":
        if isinstance(index, slice):
            return Ragged(self.flat, self.lengths[index], self._starts[index])
        start = self._starts[index]
        return self.flat[start : start + self.lengths[index]].astype(np.int32)

    def select(self, indices: Integer[np.ndarray, " M"]) -> "Ragged":
        """The rows with these indices, in their order."""
        return Ragged(self.flat, self.lengths[indices], self._starts[indices])

    def shortened(self, longest: int) -> "Ragged":
        """The first `longest` numbers of each row."""
        return Ragged(self.flat, np.minimum(self.lengths, longest), self._starts)

    def without_first(self, counts: Integer[np.ndarray, " N"]) -> "Ragged":
        """The numbers of each row after so many."""
        return Ragged(self.flat, self.lengths - counts, self._starts + counts)

    def numbers(self) -> Int[np.ndarray, "I *columns"]:
        """The numbers of all rows, one after another."""
        return self.flat[self._positions()].astype(np.int32)

    def parts(self) -> Iterator["Ragged"]:
        """All rows in their order, few at a time."""
        return (self[start : start + ROWS_AT_ONCE] for start in range(0, len(self), ROWS_AT_ONCE))

    def padded(self, rows: int, length: int) -> Int[np.ndarray, "B L"]:
        """A matrix of so many rows of this length, filled up with PAD."""
        matrix = np.full((rows, length), PAD, np.int32)
        matrix[: len(self)][np.arange(length) < self.lengths[:, None]] = self.numbers()
        return matrix

    def row_numbers(self) -> Int[np.ndarray, " I"]:
        """For each of `numbers()` the index of its row."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def _positions(self) -> Int[np.ndarray, " I"]:
        """The place in `flat` of each of `numbers()`."""
        before = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        return np.repeat(self._starts - before, self.lengths) + np.arange(int(self.lengths.sum()))


class RaggedWriter:
    """Takes rows and gives them as `Ragged`; what does not fit in `IN_MEMORY` goes to a file without a name.

    Such a file is gone when nobody reads it any more, however the process ends.
    """

    def __init__(self, dtype: np.dtype, folder: Path | None, *, columns: tuple[int, ...] = ()):
        self._dtype, self._folder, self._columns = np.dtype(dtype), folder, columns
        self._flat: list[np.ndarray] = []  # not yet in the file
        self._lengths: list[np.ndarray] = []
        self._file: Any = None

    def write(self, rows: Rows) -> None:
        """Append rows.

        Raises:
            OSError: the disk is full; it names the folder.
        """
        self._flat.append(rows.flat.astype(self._dtype))
        self._lengths.append(rows.lengths.astype(np.int32))
        if sum(part.nbytes for part in self._flat) > IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = temporary_file(self._folder)
            weakref.finalize(self, close, self._file)  # also after an error; what was mapped stays
        try:
            for part in self._flat:
                self._file.write(part.data)
            self._file.flush()
        except OSError as error:
            raise no_space(error, self._folder) from error
        self._flat = []

    def finish(self) -> Ragged:
        """All rows that were written."""
        lengths = np.concatenate([np.empty(0, np.int32), *self._lengths])
        if self._file is None:
            return Ragged(np.concatenate([np.empty((0, *self._columns), self._dtype), *self._flat]), lengths)
        self._spill()
        return Ragged(mapped(self._file, self._dtype, (int(lengths.sum()), *self._columns)), lengths)


def mapped(file: Any, dtype: np.dtype, shape: tuple[int, ...], *, offset: int = 0) -> np.ndarray:
    """The numbers in a file, read when they are needed; the file may be closed and its name removed."""
    if 0 in shape:  # a file cannot be mapped where it has nothing
        return np.empty(shape, dtype)
    return np.asarray(np.memmap(file, dtype, "r", offset, shape))


def temporary_file(folder: Path | None) -> Any:
    """A file without a name, in this folder or else in that of the system (TMPDIR)."""
    return tempfile.TemporaryFile(dir=folder)


def close(file: Any) -> None:
    """Close such a file, also where the disk is full for what it still holds."""
    with contextlib.suppress(OSError):
        file.close()


def no_space(error: OSError, folder: Path | None) -> OSError:
    """The error of a write into such a file, with the folder and what to do."""
    where = folder or tempfile.gettempdir()
    return OSError(
        f"{where}: {(error.strerror or str(error)).lower()}, while the training data was being written there as it is "
        "read; name a folder on a larger disk: --data.cache DIR"
    )
