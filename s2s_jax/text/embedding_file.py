"""Word vectors in text files: word2vec (a first line `N D`, then one token per line) or GloVe (the same without it)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from s2s_jax.text.files import raw_lines


class Vectors(NamedTuple):
    """The vectors of those tokens of a vocabulary that a file knows."""

    ids: Int[np.ndarray, " N"]
    rows: Float[np.ndarray, "N E"]
    again: int  # lines of a token that had a vector already, which were not read


def embedding_files(setting: str) -> dict[str, str]:
    """The file of each side: FILE is for both, SOURCE_FILE,TARGET_FILE for one each, of which one may be empty.

    Raises:
        ValueError: there are more than two.
    """
    parts = [part.strip() for part in setting.split(",")]
    if len(parts) > 2 or (setting and not any(parts)):
        raise ValueError(f"data.embeddings must be FILE or SOURCE_FILE,TARGET_FILE, got {setting!r}")
    return {side: name for side, name in zip(("source", "target"), parts * (3 - len(parts)), strict=True) if name}


def read_vectors(path: Path, tokens: Mapping[str, int], *, width: int) -> Vectors:
    """The vectors of the given tokens (token -> id); only these are kept, and only their numbers are read.

    Of a token that occurs twice the first vector counts. Tokens are compared as they are written, byte by byte; one
    with spaces, as GloVe has, is all that stands before the last `width` numbers.

    Raises:
        FileNotFoundError, ValueError: with file and line where the content is at fault.
    """
    wanted = {token.encode("utf-8", "surrogatepass"): number for token, number in tokens.items()}
    found: dict[int, np.ndarray] = {}
    again = 0
    for number, (token, values) in _split_lines(path, width):
        index = wanted.get(token)
        if index is None:
            continue
        again += index in found
        if index not in found:
            found[index] = _parsed(values, f"{path}:{number}", width)
    ids = np.array(sorted(found), np.int64)
    return Vectors(ids, np.array([found[index] for index in ids.tolist()], np.float32).reshape(-1, width), again)


def _split_lines(path: Path, width: int) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    """The number of each line, its token and its numbers as text."""
    for number, raw in enumerate(raw_lines(path), 1):
        line = raw.rstrip(b" \r\n")
        spaces = line.count(b" ")
        if number == 1 and spaces == 1 and all(part.isdigit() for part in line.split(b" ")):
            _check_width(int(line.split(b" ")[1]), width, f"{path}:1")
        elif spaces == width:
            token, _, values = line.partition(b" ")
            yield number, (token, values)
        elif spaces > width and number > 1:
            parts = line.rsplit(b" ", width)
            yield number, (parts[0], b" ".join(parts[1:]))
        else:
            _check_width(spaces, width, f"{path}:{number}", first=number == 1)


def _check_width(found: int, width: int, place: str, *, first: bool = True) -> None:
    if found == width:
        return
    if not first:
        raise ValueError(f"{place}: a token and {width} numbers are wanted, got {found} numbers; is the file cut off?")
    raise ValueError(
        f"{place}: vectors of {found} numbers, and model.embedding={width}; set --model.embedding {found}, or give "
        f"vectors of {width}."
    )


def _parsed(values: bytes, place: str, width: int) -> Float[np.ndarray, " E"]:
    try:
        row = np.array([float(value) for value in values.split(b" ")], np.float32)
    except ValueError as error:
        raise ValueError(f"{place}: {error}; {width} numbers behind the token are wanted.") from None
    if not np.isfinite(row).all():
        raise ValueError(f"{place}: a number that is not finite; remove the line.")
    return row
