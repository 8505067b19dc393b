"""Whole corpora as ids: by several processes where it pays, and kept on disk for the next run on the same data."""

import contextlib
import hashlib
import os
import unicodedata
from collections.abc import Callable, Generator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.corpus import SIDES, Corpus, unpack_lines
from s2s_jax.text.encoding_processes import CannotStart, EncodingProcesses, is_built_in
from s2s_jax.text.id_cache import IdCache
from s2s_jax.text.progress import reported
from s2s_jax.text.ragged import Ragged, RaggedWriter, Rows
from s2s_jax.text.tokenizers import tokenizer_fingerprint

ENCODING_FORMAT = 1  # goes up when a tokenizer of the same state gives other ids
LARGE = 100_000  # pairs from which on a file of the cache and more processes are worth it
MOST_WORKERS = 16  # where data.workers is 0: this process can hardly feed more

PrintLine = Callable[[str], None]
Encoded = tuple[Rows, ...]  # the source ids, target ids and ids of each feature of some pairs


def encode_corpus(
    corpus: Corpus,
    tokenizers: PairTokenizer,
    *,
    cache: str = "",
    workers: int = 0,
    print_line: PrintLine = lambda line: None,
) -> tuple[Ragged, ...]:
    """The ids of each source line, target line and feature, ended by EOS.

    Args:
        cache, workers: as data.cache and data.workers.

    Raises:
        OSError: the disk is full.
        ValueError: a tokenizer gives ids beyond its size.
    """
    sides = tokenizers.sides
    sizes = [each.size + tokenizers.slots * (side in SIDES) for side, each in sides.items()]
    kept = cache and len(corpus) >= LARGE and all(map(is_built_in, sides.values()))
    stored, name = IdCache(Path(cache).expanduser()), _fingerprint(corpus, tokenizers) if kept else ""
    if kept and (found := stored.read(name, pairs=len(corpus), sizes=sizes, print_line=print_line)):
        print_line(f"the ids of {len(corpus):,} pairs were found in {stored.folder}")
        return found
    folder = folder_for_data(cache)
    writers = [RaggedWriter(np.min_scalar_type(size - 1), folder) for size in sizes]
    with contextlib.closing(_encoded(corpus, tokenizers, workers, print_line)) as blocks:
        blocks_read = reported(
            blocks, print_line, "tokenized", count=lambda block: len(block[0].lengths), total=len(corpus)
        )
        for block in blocks_read:
            for writer, rows, size in zip(writers, block, sizes, strict=True):
                _check_ids(rows, size)
                writer.write(rows)
    ids = tuple(writer.finish() for writer in writers)
    return stored.write(name, ids, print_line=print_line) if kept else ids


def folder_for_data(cache: str) -> Path | None:
    """Where data is written while it is read: the folder of the cache, or None for the system's where there is none."""
    folder = Path(cache).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if cache and os.access(folder, os.W_OK) else None


def _check_ids(rows: Rows, size: int) -> None:
    if len(rows.flat) and not 0 <= rows.flat.min() <= rows.flat.max() < size:
        wrong = rows.flat.min() if rows.flat.min() < 0 else rows.flat.max()
        raise ValueError(f"a tokenizer of {size} ids gives id {wrong}; make its `size` count all of its ids.")


def _encoded(
    corpus: Corpus, tokenizers: PairTokenizer, workers: int, print_line: PrintLine
) -> Generator[Encoded, None, None]:
    """The ids of each block of the corpus."""
    count = worker_count(len(corpus), workers)
    if count > 1:
        try:
            with EncodingProcesses(tokenizers, count) as processes:
                print_line(f"tokenizing {len(corpus):,} pairs in {count} processes")
                yield from processes.encode(corpus.packed())
            return
        except CannotStart as error:
            print_line(f"note: the data is tokenized in one process ({error}).")
    for packed in corpus.packed():
        yield tokenizers.encode_pairs(*unpack_lines(packed, len(tokenizers.sides)))


def worker_count(pairs: int, workers: int) -> int:
    """The number of processes that tokenize so many pairs; 1 for this process alone."""
    return 1 if pairs < LARGE else workers or min(MOST_WORKERS, _cores())


def _cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fingerprint(corpus: Corpus, tokenizers: PairTokenizer) -> str:
    """What the ids depend on: lines, tokenizers, and the versions of what computes them."""
    versions = [ENCODING_FORMAT, unicodedata.unidata_version, version("sentencepiece"), tokenizers.slots]
    versions += ["reversed"] * tokenizers.reverses_target
    parts = [*versions, *map(tokenizer_fingerprint, tokenizers.sides.values()), corpus.fingerprint]
    if tokenizers.features.separator:
        parts.append(repr(tokenizers.features.separator))
    return hashlib.blake2b(" ".join(map(str, parts)).encode(), digest_size=16).hexdigest()
