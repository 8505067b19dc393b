"""How does a pair become ids when its target may say words that no vocabulary knows, but its source holds?

The k-th distinct word of a source line that its vocabulary does not know is one of the sentence's own words. It has the
id `source vocabulary + k` on one side and `target vocabulary + k` on the other, as long as k is below the number of
slots: an id above the vocabulary means what it means in this sentence alone. Without slots there are no such ids.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from s2s_jax.shapes import EOS, PAD, SPECIAL, UNK
from s2s_jax.text.tokenizers import Tokenizer, until_end

NOTHING = -1  # the target id of a source token that no target token equals


class PairTokenizer:
    """Both tokenizers of a run, and between them a sentence's own words."""

    def __init__(self, source: Tokenizer, target: Tokenizer, *, slots: int = 0):
        if slots and source.type != target.type:
            raise ValueError(different_kinds(source.type, target.type))
        self.source, self.target, self.slots = source, target, slots

    def copyable_words(self, line: str) -> list[str]:
        """The words of a source line that get a slot, in the order of the slots."""
        if not self.slots:
            return []
        written = zip(self.source.written(line), self.source.encode(line), strict=True)
        return list(dict.fromkeys(word for word, number in written if number == UNK))[: self.slots]

    def encode_source(self, line: str) -> list[int]:
        """The ids of a source line, its own words told apart."""
        ids = self.source.encode(line)
        own = _numbered(self.copyable_words(line), self.source.size)
        if not own:
            return ids
        written = zip(self.source.written(line), ids, strict=True)
        return [own.get(word, UNK) if number == UNK else number for word, number in written]

    def encode_target(self, line: str, source: str) -> list[int]:
        """The ids of a target line; a word that is the source line's own has its slot, known to the target or not.

        It is to be learned as copied; to say it by heart too would be a second way to the same text.
        """
        ids = self.target.encode(line)
        own = _numbered(self.copyable_words(source), self.target.size)
        if not own:
            return ids
        return [own.get(word, number) for word, number in zip(self.target.written(line), ids, strict=True)]

    def copy_table(self) -> Int[np.ndarray, " V"]:
        """The target id of each source id, slots counted: what copying that token says, NOTHING where there is none.

        The end of one side is the end of the other; PAD, BOS and UNK say nothing.
        """
        known = range(len(SPECIAL), self.target.size)
        of_symbol = dict(zip(self.target.symbols(known), known, strict=True))
        symbols = self.source.symbols(range(self.source.size))
        table = np.array([of_symbol.get(symbol, NOTHING) for symbol in symbols], np.int32)
        table[: len(SPECIAL)] = NOTHING
        table[EOS] = EOS
        return np.concatenate([table, self.target.size + np.arange(self.slots, dtype=np.int32)])

    def decode(self, ids: Sequence[int], source: str, *, instead: Sequence[str] = ()) -> str:
        """The line that target ids stand for, up to the end token.

        Args:
            source: the line whose own words they may hold.
            instead: for each id a word to say where it is UNK; `<unk>` where there is none.
        """
        ended = until_end(ids)
        plain, unknown = self._plain(ended, source, instead)
        return self.target.decode(plain, unknown)

    def target_symbols(self, ids: Sequence[int], source: str, *, instead: Sequence[str] = ()) -> list[str]:
        """How each target id is shown to a person."""
        plain, unknown = self._plain(ids, source, instead)
        own = iter(unknown)
        shown = zip(self.target.symbols(plain), plain, strict=True)
        return [next(own) if number == UNK else symbol for symbol, number in shown]

    def source_symbols(self, ids: Sequence[int], line: str) -> list[str]:
        """How each source id is shown to a person."""
        size, words = self.source.size, self.copyable_words(line)
        symbols = self.source.symbols([number if number < size else UNK for number in ids])
        return [symbol if number < size else words[number - size] for symbol, number in zip(symbols, ids, strict=True)]

    def _plain(self, ids: Sequence[int], source: str, instead: Sequence[str]) -> tuple[list[int], list[str]]:
        """Target ids with UNK for all that the vocabulary does not know, and what each of these UNKs is."""
        ids, size = list(map(int, ids)), self.target.size
        if UNK not in ids and max(ids, default=PAD) < size:
            return ids, []
        words, plain, unknown = self.copyable_words(source), [], []
        for place, number in enumerate(ids):
            slot = number - size
            if slot >= 0:
                unknown.append(words[slot] if slot < len(words) else SPECIAL[UNK])
            elif number == UNK:
                unknown.append(instead[place] if place < len(instead) and instead[place] else SPECIAL[UNK])
            plain.append(UNK if slot >= 0 else number)
        return plain, unknown

    def without_lost(self, source: Int[np.ndarray, " S"], target: Int[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
        """Target ids with UNK for each slot whose word the source ids do not hold, as when a line was cut short."""
        slots = target - self.target.size
        lost = (slots >= 0) & ~np.isin(slots + self.source.size, source)
        return np.where(lost, UNK, target).astype(target.dtype)


def different_kinds(source: str, target: str) -> str:
    """Why words cannot be copied between sides that are cut differently."""
    return (
        f"model.decoder.copy needs both sides cut alike, got tokenizer.source.type={source} and tokenizer.target.type={target}; "
        "a token of the one is no token of the other. Take one kind, or model.decoder.copy=none."
    )


def _numbered(words: Sequence[str], first: int) -> dict[str, int]:
    return {word: first + slot for slot, word in enumerate(words)}
