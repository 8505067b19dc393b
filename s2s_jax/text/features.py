"""Features of a source line: further texts beside it, such as morphological tags, or the same text in other languages.

Each is tokenized on its own; as on every side, its ids end with EOS, so that a blank feature is EOS alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from s2s_jax.text.corpus import SideLines
from s2s_jax.text.ragged import Rows
from s2s_jax.text.tokenizers import FeatureTokenizerConfig, Tokenizer, TokenizerConfig, append_eos, encode_lines


def separator_of(config: TokenizerConfig, *types: str) -> str:
    """What tokenizers of features of these types read as a space; empty for nothing."""
    return config.separator if isinstance(config, FeatureTokenizerConfig) and "word" in types else ""


class SeparatedLines(Iterable[str]):
    """Lines with a space in place of each separator, which can be read several times."""

    def __init__(self, lines: SideLines, separator: str):
        self._lines, self._separator = lines, separator

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[str]:
        return (line.replace(self._separator, " ") for line in self._lines)


class FeatureTokenizers(NamedTuple):
    """The tokenizer of each feature, in the order of `data.features`."""

    tokenizers: tuple[Tokenizer, ...] = ()
    separator: str = ""  # of words, read as a space; empty for none

    def readable(self, text: str) -> str:
        """A feature as its tokenizer reads it."""
        return text.replace(self.separator, " ") if self.separator else text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each feature of one line, without EOS.

        Raises:
            ValueError: the line has another number of features.
        """
        if len(texts) != len(self.tokenizers):
            raise ValueError(
                f"{len(self.tokenizers)} features are wanted beside each source line (data.features), got {len(texts)}"
                f"{': ' * bool(texts) + ', '.join(map(repr, texts))}."
            )
        return [each.encode(self.readable(text)) for each, text in zip(self.tokenizers, texts, strict=True)]

    def with_eos(self, texts: Sequence[str]) -> tuple[Int[np.ndarray, " _"], ...]:
        """The ids of each feature of one line, ended by EOS."""
        return tuple(map(append_eos, self.encode(texts)))

    def encode_lines(self, *features: Sequence[str]) -> tuple[Rows, ...]:
        """The ids of each feature of many lines, ended by EOS."""
        columns = zip(self.tokenizers, features, strict=True)
        return tuple(encode_lines(each, [*map(self.readable, texts)]) for each, texts in columns)
