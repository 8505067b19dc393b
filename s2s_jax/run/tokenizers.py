"""The tokenizers of a run: its own ones, those of another run's files, or new ones trained on the training split."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from s2s_jax.run.run_dir import SIDES
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.corpus import Corpus
from s2s_jax.text.encoding import LARGE
from s2s_jax.text.subwords import Subwords
from s2s_jax.text.tokenizers import (
    TOKENIZERS,
    Tokenizer,
    TokenizersConfig,
    load_tokenizer,
    save_tokenizer,
    tokenizer_fingerprint,
    train_tokenizer,
)
from s2s_jax.training.checkpoint.disk import sync_directory


def make_tokenizers(
    config: TokenizersConfig,
    corpus: Corpus,
    resumed: Path | None,
    *,
    copy_slots: int,
    print_line: Callable[[str], None],
) -> PairTokenizer:
    """The tokenizers of the directory of a resumed run, else new ones or those of files, as configured."""
    sides = {side: _make_tokenizer(config, corpus, resumed, side, print_line) for side in SIDES}
    return PairTokenizer(**sides, slots=copy_slots)


def load_tokenizers(directory: Path, facts: Mapping[str, Any], *, copy_slots: int) -> PairTokenizer:
    """The tokenizers of a trained run.

    Raises:
        ValueError: one of them is not that with which the run was trained.
    """
    return PairTokenizer(**{side: check_tokenizer(directory, side, facts) for side in SIDES}, slots=copy_slots)


def check_tokenizer(directory: Path, side: str, facts: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a side of a trained run.

    Raises:
        ValueError: it is not that with which the run was trained.
    """
    path = tokenizer_path(directory, side)
    tokenizer = load_tokenizer(path)
    current, trained = tokenizer_fingerprint(tokenizer)[:12], facts[f"{side}_tokenizer"][:12]
    if current != trained:
        raise ValueError(
            f"{path} is not the one the run was trained with (sha256 {current}, the run has {trained}); restore it "
            f"from a copy, or delete it and train it again on the same data: s2s train {directory}"
        )
    return tokenizer


def save_tokenizers(tokenizers: PairTokenizer, directory: Path) -> None:
    """Write the tokenizers into a run directory."""
    for side in SIDES:
        save_tokenizer(getattr(tokenizers, side), tokenizer_path(directory, side))
    sync_directory(directory)


def tokenizer_path(directory: Path, side: str) -> Path:
    """The file of a side's tokenizer in a run directory."""
    return directory / f"{side}.tokenizer.json"


def _same_as_file(tokenizer: Tokenizer, file: str, side: str) -> Tokenizer:
    """The tokenizer of a run, after a look whether the file that it came from is still the same, where there is one."""
    if file and Path(file).exists():
        fingerprint, there = (tokenizer_fingerprint(one)[:12] for one in (tokenizer, load_tokenizer(Path(file))))
        if there != fingerprint:
            raise ValueError(
                f"tokenizer.{side}.file={file} is not the tokenizer that the run was trained with (sha256 {there}, "
                f"the run has {fingerprint}); restore it, or give another --run."
            )
    return tokenizer


def _make_tokenizer(
    config: TokenizersConfig, corpus: Corpus, resumed: Path | None, side: str, print_line: Callable[[str], None]
) -> Tokenizer:
    own = getattr(config, side)
    if resumed is not None and (path := tokenizer_path(resumed, side)).exists():
        return _same_as_file(load_tokenizer(path), own.file, side)
    if own.file:
        return load_tokenizer(Path(own.file))
    lines = corpus.lines(side, most=own.lines if issubclass(TOKENIZERS[own.type], Subwords) else 0)
    if len(corpus) >= LARGE:
        part = f" of {len(corpus):,}" if len(lines) < len(corpus) else ""
        print_line(f"{side} vocabulary: {own.type}, learned from {len(lines):,}{part} lines")
    # subwords cannot be trained on empty lines, and need not be
    usable = own if any(lines) else dataclasses.replace(own, type="char")
    return train_tokenizer(lines, usable, group=f"tokenizer.{side}")
