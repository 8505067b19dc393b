"""Whole corpora as ids: all lines at once where the tokenizer can, and kept on disk for the next run on them."""

import contextlib
import hashlib
import itertools
import os
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from jaxtyping import Int

from s2s_jax.shapes import EOS
from s2s_jax.text.subwords import Subwords
from s2s_jax.text.tokenizers import Tokenizer, append_eos, tokenizer_fingerprint

CACHE_FORMAT = 1
CACHED_LINES = 100_000  # from this many on, reading a file is worth its space
CACHED_FILES = 16  # most recently used ones that are kept

Ids = list[Int[np.ndarray, "_"]]


def encode_lines(tokenizer: Tokenizer, lines: Sequence[str], *, cache: str = "") -> Ids:
    """The ids of each line, ended by EOS.

    Args:
        cache: folder that keeps what was encoded by subwords, by a fingerprint of tokenizer and lines; empty for none.
    """
    if not isinstance(tokenizer, Subwords):
        return [append_eos(tokenizer.encode(line)) for line in lines]
    if not cache or len(lines) < CACHED_LINES:
        return tokenizer.encode_all(lines)
    path = Path(cache).expanduser() / f"{_fingerprint(tokenizer, lines)}.npz"
    encoded = _read(path, lines=len(lines), size=tokenizer.size)
    if encoded is None:
        encoded = tokenizer.encode_all(lines)
        with contextlib.suppress(OSError):  # a full or read-only disk costs time alone
            _write(path, encoded)
    return encoded


def _fingerprint(tokenizer: Tokenizer, lines: Sequence[str]) -> str:
    hashed = hashlib.blake2b(digest_size=16)
    hashed.update(f"{CACHE_FORMAT} {version('sentencepiece')} {tokenizer_fingerprint(tokenizer)}".encode())
    for line in lines:
        text = line.encode("utf-8", "surrogatepass")
        hashed.update(b"%d " % len(text) + text)
    return hashed.hexdigest()


def _read(path: Path, *, lines: int, size: int) -> Ids | None:
    """What a file of the cache holds; None where there is none, or it is damaged."""
    try:
        # a zip archive, whose checksums are verified
        with path.open("rb") as file, np.load(file) as stored:
            ids, lengths = stored["ids"].astype(np.int32), stored["lengths"]
        os.utime(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    ends = np.cumsum(lengths)
    if len(lengths) != lines or ends[-1] != len(ids) or ids.max() >= size or (ids[ends - 1] != EOS).any():
        return None
    return [ids[start:end] for start, end in itertools.pairwise([0, *ends.tolist()])]


def _write(path: Path, encoded: Ids) -> None:
    """Write a file of the cache, whole or not at all, and remove those that were not used for longest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.concatenate(encoded)
    draft = path.with_suffix(f".{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            np.savez(file, ids=ids.astype(np.min_scalar_type(ids.max())), lengths=np.array([*map(len, encoded)]))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    newest = sorted(path.parent.glob("*.npz"), key=lambda each: each.stat().st_mtime, reverse=True)
    for old in newest[CACHED_FILES:]:
        old.unlink(missing_ok=True)
