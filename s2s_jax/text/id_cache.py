"""Files that keep the ids of large corpora for the next run on the same data: whole ones, or none.

A file is a header of `HEADER` bytes (JSON: format, fingerprint, dtype, counts, checksum), the ids of one side, one line
after another, and the length of each line. It is written under another name first, and its checksum is verified
before it is used; it is mapped, not read into memory.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s2s_jax.text.corpus import SIDES, feature_sides
from s2s_jax.text.ragged import Ragged, mapped

CACHE_FORMAT = 2
CACHED_FILES = 32  # most recently used ones that are kept, two per corpus
HEADER = 4096  # bytes
CHUNK = 1 << 24  # bytes that are verified at once
STALE_SECONDS = 24 * 3600  # after which what a killed process left is removed
LENGTHS = np.dtype(np.int32)
PrintLine = Callable[[str], None]


class IdCache:
    """The ids of corpora by fingerprint, in a folder that is made when something is kept."""

    def __init__(self, folder: Path):
        self.folder = folder

    def read(
        self, fingerprint: str, *, pairs: int, sizes: Sequence[int], print_line: PrintLine
    ) -> tuple[Ragged, ...] | None:
        """The ids of all sides; None where they are not there, or damaged, which is printed.

        Args:
            sizes: of the vocabularies, slots included: every id is below them.
        """
        sides = []
        for path, size in zip(self._paths(fingerprint, len(sizes)), sizes, strict=True):
            try:
                sides.append(_read(path, fingerprint, lines=pairs, size=size))
                os.utime(path)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                return None
            except (OSError, ValueError, KeyError, TypeError) as error:
                print_line(f"warning: {path} is damaged ({error}); the data is tokenized again.")
                return None
        return tuple(sides)

    def write(self, fingerprint: str, sides: tuple[Ragged, ...], *, print_line: PrintLine) -> tuple[Ragged, ...]:
        """Keep ids, and give them as they are kept; a disk that is full or read-only is printed and harms nothing."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            paths = self._paths(fingerprint, len(sides))
            for path, side in zip(paths, sides, strict=True):
                _write(path, fingerprint, side)
            kept = tuple(_open(path, fingerprint) for path in paths)
            self._remove_old()
        except (OSError, ValueError) as error:
            print_line(f"warning: the ids are not kept in {self.folder}: {error}; the next run tokenizes again.")
            return sides
        return kept

    def _paths(self, fingerprint: str, sides: int) -> list[Path]:
        names = *SIDES, *feature_sides(sides - len(SIDES))
        return [self.folder / f"{fingerprint}.{side}.ids" for side in names]

    def _remove_old(self) -> None:
        """Remove the files that were not used for longest, and drafts of processes that were killed."""
        remove_old(self.folder.glob("*.ids"), keep=CACHED_FILES)
        drafts = self.folder.glob("*.ids.*.part")
        remove_old([each for each in drafts if each.stat().st_mtime < time.time() - STALE_SECONDS], keep=0)


def remove_old(files: Iterable[Path], *, keep: int) -> None:
    """Remove all but so many files: those that were not used for longest."""
    for old in sorted(files, key=lambda each: each.stat().st_mtime, reverse=True)[keep:]:
        old.unlink(missing_ok=True)


def _read(path: Path, fingerprint: str, *, lines: int, size: int) -> Ragged:
    """The ids in a file, after every bit of it was compared with its checksum.

    Raises:
        FileNotFoundError: there is none.
        ValueError, KeyError, TypeError: it is damaged, or another corpus'.
    """
    side = _open(path, fingerprint)
    if len(side) != lines or np.iinfo(side.flat.dtype).max < size - 1:
        raise ValueError("it is that of another corpus")
    with path.open("rb") as file:
        header = _header(file.read(HEADER), fingerprint)
        hashed = hashlib.blake2b(digest_size=16)
        while part := file.read(CHUNK):
            hashed.update(part)
    if hashed.hexdigest() != header["checksum"]:
        raise ValueError("its checksum is another one")
    return side


def _open(path: Path, fingerprint: str) -> Ragged:
    with path.open("rb") as file:
        header = _header(file.read(HEADER), fingerprint)
        dtype, lines, tokens = np.dtype(header["dtype"]), int(header["lines"]), int(header["tokens"])
        if os.fstat(file.fileno()).st_size != HEADER + dtype.itemsize * tokens + LENGTHS.itemsize * lines:
            raise ValueError("it is not whole")
        flat = mapped(file, dtype, (tokens,), offset=HEADER)
        file.seek(HEADER + dtype.itemsize * tokens)
        lengths = np.frombuffer(file.read(), LENGTHS)
    if int(lengths.sum()) != tokens:
        raise ValueError("its lengths do not fit")
    return Ragged(flat, lengths)


def _header(content: bytes, fingerprint: str) -> dict[str, Any]:
    header = json.loads(content)
    if header["format"] != CACHE_FORMAT or header["fingerprint"] != fingerprint:
        raise ValueError("it has another format or fingerprint")
    return header


def _parts_of(side: Ragged) -> Iterator[bytes]:
    """The ids and the lengths of a side."""
    for part in side.parts():
        yield part.numbers().astype(side.flat.dtype).tobytes()
    yield side.lengths.astype(LENGTHS).tobytes()


def _write(path: Path, fingerprint: str, side: Ragged) -> None:
    """Write a file, whole or not at all."""
    hashed = hashlib.blake2b(digest_size=16)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(bytes(HEADER))
            for content in _parts_of(side):
                hashed.update(content)
                file.write(content)
            header = {
                "format": CACHE_FORMAT,
                "fingerprint": fingerprint,
                "dtype": side.flat.dtype.str,
                "lines": len(side),
                "tokens": int(side.lengths.sum()),
                "checksum": hashed.hexdigest(),
            }
            file.seek(0)
            file.write(json.dumps(header).encode().ljust(HEADER))
        Path(draft).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
