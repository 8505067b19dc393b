"""Pairs of lines that are read in order, as often as needed, and are kept on disk where they are many."""

import hashlib
import itertools
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from s2s_jax.text.example import Example, Links, WordLinks
from s2s_jax.text.ragged import IN_MEMORY, close, no_space

BLOCK = 10_000  # pairs that are read, tokenized and written at once
SIDES = ("source", "target")


def feature_sides(count: int) -> tuple[str, ...]:
    """The name of each feature where source and target are the other sides, such as feature1."""
    return tuple(f"feature{number}" for number in range(1, count + 1))


class Block(NamedTuple):
    """Some pairs: their source lines, target lines, and links and features where there are any, else ()."""

    sources: Sequence[str]
    targets: Sequence[str]
    links: Sequence[Links | WordLinks | None] = ()
    features: Sequence[tuple[str, ...]] = ()

    def columns(self) -> list[Sequence[str]]:
        """Source lines, target lines, and the texts of each feature."""
        return [self.sources, self.targets, *zip(*self.features, strict=True)]


class _Place(NamedTuple):
    """Where a block lies in the file."""

    start: int
    lines: int  # bytes of all columns
    links: int  # bytes
    pairs: int


class Corpus:
    """The pairs of a split. Lines, and links where `links` is true, are kept in a file without a name.

    Args:
        folder: where that file is; the folder of the system (TMPDIR) if None. What is small stays in memory.
    """

    def __init__(self, folder: Path | None = None, *, links: bool = False):
        self._folder, self._links = folder, links
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=folder and str(folder))  # noqa: SIM115
        self.close = weakref.finalize(self, close, self._file)  # gives back memory and disk, at the latest in the end
        self._places: list[_Place] = []
        self._size = 0
        self.columns = len(SIDES)  # source, target, and one per feature
        self._hashed = hashlib.blake2b(digest_size=16)

    @classmethod
    def of(cls, examples: Iterable[Example], *, links: bool = False) -> "Corpus":
        """The corpus of given examples."""
        corpus = cls(links=links)
        for block in blocks_of(examples):
            corpus.append(block)
        return corpus

    def append(self, block: Block) -> None:
        """Add pairs at the end.

        Raises:
            OSError: the disk is full; it names the folder.
        """
        columns = block.columns()
        self.columns = len(columns)
        lines = pack_lines(*columns)
        links = pack_links(block.links) if self._links else b""
        try:
            self._file.seek(self._size)
            self._file.write(lines + links)
            self._file.flush()
        except OSError as error:
            raise no_space(error, self._folder) from error
        self._places.append(_Place(self._size, len(lines), len(links), len(block.sources)))
        self._size += len(lines) + len(links)
        self._hashed.update(lines)

    def __len__(self) -> int:
        return sum(place.pairs for place in self._places)

    def packed(self) -> Iterator[bytes]:
        """The lines of each block as `pack_lines` makes them of it."""
        for place in self._places:
            self._file.seek(place.start)
            yield self._file.read(place.lines)

    def blocks(self) -> Iterator[Block]:
        """All pairs in their order, a block at a time."""
        for place in self._places:
            self._file.seek(place.start)
            lines, links = self._file.read(place.lines), self._file.read(place.links)
            sources, targets, *features = unpack_lines(lines, self.columns)
            kept = unpack_links(links) if self._links else ()
            yield Block(sources, targets, kept, [*zip(*features, strict=True)])

    def __iter__(self) -> Iterator[Example]:
        for block in self.blocks():
            links, features = block.links or itertools.repeat(None), block.features or itertools.repeat(())
            yield from map(Example, block.sources, block.targets, links, features)

    @property
    def sides(self) -> tuple[str, ...]:
        """The names of the columns: source, target, and those of features."""
        return *SIDES, *feature_sides(self.columns - len(SIDES))

    def lines(self, *sides: str, most: int = 0) -> "SideLines":
        """The lines of a side; at most so many, evenly spaced, where `most` is not 0.

        Args:
            sides: of several, the lines of each block of one are before those of the next.
        """
        return SideLines(self, [self.sides.index(side) for side in sides], most or len(sides) * len(self))

    @property
    def fingerprint(self) -> str:
        """A fingerprint of the lines of both sides, and of the features."""
        return self._hashed.hexdigest()


class SideLines(Iterable[str]):
    """Lines of one side of a corpus, or of both, which can be read several times."""

    def __init__(self, corpus: Corpus, sides: Sequence[int], most: int):
        self._corpus, self._sides = corpus, sides
        self._most, self._all = most, len(sides) * len(corpus)

    def __len__(self) -> int:
        return min(self._most, self._all)

    def __iter__(self) -> Iterator[str]:
        blocks = (unpack_lines(packed, self._corpus.columns) for packed in self._corpus.packed())
        lines = itertools.chain.from_iterable(block[side] for block in blocks for side in self._sides)
        most, all_lines = self._most, self._all
        if most >= all_lines:
            return lines
        return (
            line for number, line in enumerate(lines) if number * most // all_lines != (number - 1) * most // all_lines
        )


def blocks_of(examples: Iterable[Example]) -> Iterator[Block]:
    """The examples in blocks."""
    remaining = iter(examples)
    while some := list(itertools.islice(remaining, BLOCK)):
        yield Block(*zip(*some, strict=True))


def pack_lines(*columns: Sequence[str]) -> bytes:
    """The lines of a block, one column after another: their number, the characters of each, and their text."""
    lines = [*itertools.chain.from_iterable(columns)]
    lengths = np.array([len(columns[0]), *map(len, lines)], np.int32)
    return lengths.tobytes() + "".join(lines).encode("utf-8", "surrogatepass")


def unpack_lines(packed: bytes, columns: int = 2) -> list[list[str]]:
    """The lines of each column of a block: sources, targets, and each feature."""
    count = int(np.frombuffer(packed, np.int32, 1)[0])
    ends = np.cumsum(np.frombuffer(packed, np.int32, columns * count, offset=4), dtype=np.int64).tolist()
    text = packed[4 * (1 + columns * count) :].decode("utf-8", "surrogatepass")
    lines = [text[start:end] for start, end in itertools.pairwise([0, *ends])]
    return [lines[start : start + count] for start in range(0, columns * count, count)]


def pack_links(links: Sequence[Links | WordLinks | None]) -> bytes:
    """The links of a block: how many rows each pair has, -1 for unknown links, and the rows, of five numbers each."""
    rows = [np.zeros((0, 5), np.int32) if each is None else _link_rows(each) for each in links]
    counts = [-1 if each is None else len(some) for each, some in zip(links, rows, strict=True)]
    return np.array([len(rows), *counts], np.int32).tobytes() + np.concatenate(rows).tobytes()


def _link_rows(links: Links | WordLinks) -> np.ndarray:
    if isinstance(links, WordLinks):
        return np.concatenate([links.words, links.sure[:, None]], axis=1, dtype=np.int32, casting="unsafe")
    ends = np.array(links, np.int32).reshape(-1, 2)
    return np.stack([ends[:, 0], ends[:, 0] + 1, ends[:, 1], ends[:, 1] + 1, np.ones(len(ends), np.int32)], axis=1)


def unpack_links(packed: bytes) -> list[WordLinks | None]:
    """The links of a block; a link between two characters is one between two words of one character."""
    count = int(np.frombuffer(packed, np.int32, 1)[0])
    counts = np.frombuffer(packed, np.int32, count, offset=4)
    rows = np.frombuffer(packed, np.int32, offset=4 * (1 + count)).reshape(-1, 5)
    starts = np.cumsum(counts.clip(0)) - counts.clip(0)
    parts = [rows[start : start + size] for start, size in zip(starts, counts.clip(0), strict=True)]
    return [
        None if size < 0 else WordLinks(part[:, :4], part[:, 4].astype(bool))
        for size, part in zip(counts, parts, strict=True)
    ]
