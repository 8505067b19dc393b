"""How translations are evaluated: the settings, and notes about what they mean for the data at hand."""

import collections
import dataclasses
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from s2s_jax.evaluate.text_counts import BLEU_TOKENIZERS, UnitName, bleu_scorer
from s2s_jax.text.example import Example
from s2s_jax.validation import check_fields, one_of

BleuTokenizer = Literal["auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none"]
# where words are not separated by spaces, or punctuation is not that of ASCII: the first word of the letters' names in
# Unicode, and the tokenizer that suits them; scripts that are not listed here need intl
TOKENIZER_OF_SCRIPT = {
    "CJK": "zh",
    "HIRAGANA": "ja-mecab",
    "KATAKANA": "ja-mecab",
    "HANGUL": "ko-mecab",
    **dict.fromkeys(("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"), "char"),
}
SAMPLE = 100_000  # letters that are looked at


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How translations are evaluated."""

    unit: UnitName = "word"
    """What a space-separated token of a target is: word (WER counts words) or phone (PER counts phones, WER items)."""
    bleu_tokenizer: BleuTokenizer = "auto"
    """sacrebleu's tokenizer for BLEU: 13a, intl, zh, ja-mecab, ko-mecab, char, none; or auto: 13a where the unit is a
    word, none where it is a phone."""
    merge_sources: bool = True
    """Evaluate all pairs with the same source as one item with several references; false: one item per pair."""

    def __post_init__(self):
        check_fields(self, "evaluation")
        one_of("evaluation.unit", self.unit, BLEU_TOKENIZERS)
        one_of("evaluation.bleu_tokenizer", self.bleu_tokenizer, get_args(BleuTokenizer))

    @property
    def tokenizer(self) -> str:
        """sacrebleu's name of the tokenizer."""
        return BLEU_TOKENIZERS[self.unit] if self.bleu_tokenizer == "auto" else self.bleu_tokenizer

    def check_installed(self) -> None:
        """Refuse a tokenizer of BLEU whose packages are not installed.

        Raises:
            ValueError: with what to install.
        """
        if "mecab" in self.tokenizer:
            bleu_scorer(self.tokenizer)


def evaluation_notes(examples: Sequence[Example], sources: int, config: EvaluationConfig) -> list[str]:
    """What a reader of the results of a split must know: how its pairs became items, and a tokenizer that misfits.

    Args:
        examples: the pairs of the split.
        sources: the number of items that they became.
    """
    notes = []
    if sources < len(examples):
        notes.append(
            f"{len(examples):,} pairs have {sources:,} different sources, and the pairs of each are one item with "
            "several references; --evaluation.merge-sources false evaluates every pair"
        )
    return [*notes, *_tokenizer_notes(examples, config)]


def _tokenizer_notes(examples: Sequence[Example], config: EvaluationConfig) -> Iterator[str]:
    if config.tokenizer != "13a":
        return
    letters = itertools.islice((letter for one in examples for letter in one.target if letter.isalpha()), SAMPLE)
    scripts: collections.Counter[str] = collections.Counter()
    for letter, count in collections.Counter(letters).items():
        scripts[unicodedata.name(letter, "").split(" ")[0]] += count
    if 2 * scripts["LATIN"] >= scripts.total():
        return
    # Japanese has more characters of Chinese origin than kana, and Chinese has no kana
    kana = 10 * (scripts["HIRAGANA"] + scripts["KATAKANA"]) > scripts.total()
    script = "HIRAGANA" if kana else scripts.most_common(1)[0][0]
    better = TOKENIZER_OF_SCRIPT.get(script, "intl")
    yield (
        f"BLEU is computed with the tokenizer 13a, and {1 - scripts['LATIN'] / scripts.total():.0%} of the letters are "
        f"not Latin; --evaluation.bleu-tokenizer {better} suits them"
    )
