"""The extended vocabulary per sentence, for targets that copy source words which no vocabulary knows.

The k-th distinct word of a source line that the source vocabulary does not know has the id `source vocabulary + k` on
the source side and `target vocabulary + k` on the target side, as long as k is below the number of slots: an id above
the vocabulary has a meaning in this sentence alone. Without slots there are no such ids. See et al. 2017,
arXiv:1704.04368, section 2.2.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from s2s_jax.shapes import EOS, PAD, SPECIAL, UNK
from s2s_jax.text.corpus import feature_sides
from s2s_jax.text.features import FeatureTokenizers
from s2s_jax.text.ragged import Rows, reversed_before_last, with_eos
from s2s_jax.text.tokenizers import Tokenizer, encode_lines, until_eos

NO_FEATURES = FeatureTokenizers()
NO_COPY = -1  # the target id of a source token that no target token equals


class PairTokenizer:
    """The source and the target tokenizer, those of features, and per sentence the slots of its unknown words.

    With `reverses_target` the model writes targets from their last token to the first. Target ids that are encoded are
    in the model's order; those that are decoded or displayed are in reading order (`reading_order`).
    """

    def __init__(
        self,
        source: Tokenizer,
        target: Tokenizer,
        *,
        slots: int = 0,
        reverses_target: bool = False,
        features: FeatureTokenizers = NO_FEATURES,
    ):
        if slots and source.type != target.type:
            raise ValueError(unequal_types(source.type, target.type))
        self.source, self.target, self.slots, self.reverses_target = source, target, slots, reverses_target
        self.features = features

    @property
    def sides(self) -> dict[str, Tokenizer]:
        """All tokenizers by side: source, target, feature1, ..."""
        features = self.features.tokenizers
        names = "source", "target", *feature_sides(len(features))
        return dict(zip(names, (self.source, self.target, *features), strict=True))

    @property
    def one_vocabulary(self) -> bool:
        """Whether each id stands for the same token on both sides, as the settings that tie embeddings need it."""
        return self.source.size == self.target.size and self.source.symbols(range(self.source.size)) == (
            self.target.symbols(range(self.target.size))
        )

    def slot_words(self, line: str) -> list[str]:
        """The out-of-vocabulary words of a source line that have a slot, in the order of the slots."""
        if not self.slots:
            return []
        tokens = zip(self.source.tokenize(line), self.source.encode(line), strict=True)
        return list(dict.fromkeys(word for word, number in tokens if number == UNK))[: self.slots]

    def encode_source(self, line: str) -> list[int]:
        """The ids of a source line, with slots for its out-of-vocabulary words."""
        ids = self.source.encode(line)
        slots = _numbered(self.slot_words(line), self.source.size)
        if not slots:
            return ids
        tokens = zip(self.source.tokenize(line), ids, strict=True)
        return [slots.get(word, UNK) if number == UNK else number for word, number in tokens]

    def encode_target(self, line: str, source: str) -> list[int]:
        """The ids of a target line; a word that has a slot in its source line gets it, also if the target knows it.

        It is to be learned as copied; generating it as well would be a second path to the same text.
        """
        ids = self.target.encode(line)
        slots = _numbered(self.slot_words(source), self.target.size)
        if slots:
            ids = [slots.get(word, number) for word, number in zip(self.target.tokenize(line), ids, strict=True)]
        return ids[::-1] if self.reverses_target else ids

    def encode_pairs(
        self, sources: Sequence[str], targets: Sequence[str], *features: Sequence[str]
    ) -> tuple[Rows, ...]:
        """The ids of source lines, of their target lines and of each of their features, all ended by EOS."""
        encoded = self.features.encode_lines(*features)
        if not self.slots:
            source, target = encode_lines(self.source, sources), encode_lines(self.target, targets)
            return source, reversed_before_last(target) if self.reverses_target else target, *encoded
        pairs = map(self.encode_source, sources), map(self.encode_target, targets, sources)
        return *map(with_eos, pairs), *encoded

    def reading_order(self, ids: Sequence[int]) -> Int[np.ndarray, " T"]:
        """The place among target ids in the model's order of each one in reading order; an EOS stays the last."""
        places = np.arange(len(ids))
        if self.reverses_target:
            written = len(ids) - (len(ids) > 0 and ids[-1] == EOS)
            places[:written] = places[:written][::-1]
        return places

    def links_in_model_order(self, links: Iterable[tuple[int, int]], target: str) -> list[tuple[int, int]]:
        """Links (source token, target token) of a pair, in reading order, as the model writes the target line."""
        if not self.reverses_target:
            return sorted(links)
        last = len(self.target.spans(target)) - 1
        return sorted((source, last - place) for source, place in links)

    def copy_table(self) -> Int[np.ndarray, " V"]:
        """The target id that copying each source id gives, slots included; NO_COPY where there is none.

        EOS of the source copies as EOS of the target; PAD, BOS and UNK are not copied.
        """
        known = range(len(SPECIAL), self.target.size)
        target_ids = dict(zip(self.target.symbols(known), known, strict=True))
        symbols = self.source.symbols(range(self.source.size))
        table = np.array([target_ids.get(symbol, NO_COPY) for symbol in symbols], np.int32)
        table[: len(SPECIAL)] = NO_COPY
        table[EOS] = EOS
        return np.concatenate([table, self.target.size + np.arange(self.slots, dtype=np.int32)])

    def decode(self, ids: Sequence[int], source: str, *, replacements: Sequence[str] = ()) -> str:
        """The line that target ids, in reading order, stand for, up to the first EOS.

        Args:
            source: the line whose words the slots stand for.
            replacements: for each id the word to write if it is UNK; `<unk>` where there is none.
        """
        in_vocabulary, unknown = self._without_slots(until_eos(ids), source, replacements)
        return self.target.decode(in_vocabulary, unknown)

    def target_symbols(self, ids: Sequence[int], source: str, *, replacements: Sequence[str] = ()) -> list[str]:
        """The text that each target id is displayed as."""
        in_vocabulary, unknown = self._without_slots(ids, source, replacements)
        words = iter(unknown)
        symbols = zip(self.target.symbols(in_vocabulary), in_vocabulary, strict=True)
        return [next(words) if number == UNK else symbol for symbol, number in symbols]

    def source_symbols(self, ids: Sequence[int], line: str) -> list[str]:
        """The text that each source id is displayed as."""
        size, words = self.source.size, self.slot_words(line)
        symbols = self.source.symbols([number if number < size else UNK for number in ids])
        return [symbol if number < size else words[number - size] for symbol, number in zip(symbols, ids, strict=True)]

    def _without_slots(
        self, ids: Sequence[int], source: str, replacements: Sequence[str]
    ) -> tuple[list[int], list[str]]:
        """Target ids with UNK for every slot, and the word for each UNK among them."""
        ids, size = list(map(int, ids)), self.target.size
        if UNK not in ids and max(ids, default=PAD) < size:
            return ids, []
        words, in_vocabulary, unknown = self.slot_words(source), [], []
        for place, number in enumerate(ids):
            slot = number - size
            if slot >= 0:
                unknown.append(words[slot] if slot < len(words) else SPECIAL[UNK])
            elif number == UNK:
                unknown.append((replacements[place] if place < len(replacements) else "") or SPECIAL[UNK])
            in_vocabulary.append(UNK if slot >= 0 else number)
        return in_vocabulary, unknown

    def drop_absent_slots(self, source: Int[np.ndarray, " S"], target: Int[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
        """Target ids with UNK for each slot that is not among the source ids, as when the source was truncated."""
        slots = target - self.target.size
        absent = (slots >= 0) & ~np.isin(slots + self.source.size, source)
        return np.where(absent, UNK, target).astype(target.dtype)


def unequal_types(source: str, target: str) -> str:
    """Why words cannot be copied between sides with tokenizers of different types: the message of an error."""
    return (
        "model.decoder.copy needs tokenizers of one type on both sides, got "
        f"tokenizer.source.type={source} and tokenizer.target.type={target}, whose tokens differ; "
        "take one type for both, or model.decoder.copy=none."
    )


def _numbered(words: Sequence[str], first: int) -> dict[str, int]:
    return {word: first + slot for slot, word in enumerate(words)}
