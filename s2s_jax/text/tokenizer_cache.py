"""Tokenizers that were learned from large corpora, kept for the next run that would learn the same ones."""

import contextlib
import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from s2s_jax.text.corpus import Corpus
from s2s_jax.text.id_cache import remove_old
from s2s_jax.text.tokenizers import (
    Tokenizer,
    TokenizerConfig,
    load_tokenizer,
    save_tokenizer,
    tokenizer_fingerprint,
)

LEARNING_FORMAT = 1  # goes up when the same lines and settings give another tokenizer
KEPT = 32  # most recently learned ones that are kept


class TokenizerCache:
    """The tokenizers in a folder; the name of each file ends with the fingerprint of the tokenizer in it."""

    def __init__(self, folder: Path, config: TokenizerConfig, corpus: Corpus, side: str):
        settings = dataclasses.asdict(config.learning())
        versions = LEARNING_FORMAT, unicodedata.unidata_version, version("sentencepiece")
        hashed = hashlib.blake2b(repr((versions, settings, side, corpus.fingerprint)).encode(), digest_size=16)
        self._folder, self._name = folder, hashed.hexdigest()

    def read(self, print_line: Callable[[str], None]) -> Tokenizer | None:
        """The tokenizer that was learned with these settings from these lines; None where there is none.

        One that is damaged is printed.
        """
        for path in self._folder.glob(f"{self._name}-*.tokenizer.json"):
            problem = "its fingerprint is another one"
            try:
                tokenizer = load_tokenizer(path)
                if path.name == self._file_name(tokenizer):
                    return tokenizer
            except (OSError, ValueError) as error:
                problem = str(error)
            print_line(f"warning: {path} is damaged ({problem}); the vocabulary is learned again.")
        return None

    def write(self, tokenizer: Tokenizer) -> None:
        """Keep a tokenizer; a disk that is full or read-only costs time alone."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            save_tokenizer(tokenizer, self._folder / self._file_name(tokenizer))
            remove_old(self._folder.glob("*.tokenizer.json"), keep=KEPT)

    def _file_name(self, tokenizer: Tokenizer) -> str:
        return f"{self._name}-{tokenizer_fingerprint(tokenizer)[:32]}.tokenizer.json"
