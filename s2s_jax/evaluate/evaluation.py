"""How good are the translations of a whole split, in all the numbers that are reported?"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from s2s_jax.decode.translate import Translation
from s2s_jax.evaluate.alignment import alignment_error_rate, hard, sure_of, to_tokens
from s2s_jax.evaluate.quality import by_length, quality
from s2s_jax.text.example import Example
from s2s_jax.text.tokenizers import Tokenizer
from s2s_jax.validation import check_fields, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How translations are measured."""

    unit: str = "word"
    """What a space-separated token of a target is: word (wer counts words) or phone (per counts phones, wer items)."""

    def __post_init__(self):
        check_fields(self, "evaluation")
        one_of("evaluation.unit", self.unit, ("word", "phone"))


class Grouped(NamedTuple):
    """Each source once, with all its targets, in the order of their first occurrence."""

    sources: list[str]
    references: list[list[str]]


def group_by_source(examples: Sequence[Example]) -> Grouped:
    """Pairs with one source are one item with several references."""
    by_source: dict[str, list[str]] = {}
    for example in examples:
        by_source.setdefault(example.source, []).append(example.target)
    return Grouped(list(by_source), list(by_source.values()))


def evaluate(
    translations: Sequence[Translation],
    items: Grouped,
    *,
    nats: float,
    tokens: float,
    correct: float,
    unit: str,
    aer: float | None,
) -> dict[str, Any]:
    """All numbers of a split: quality of the translations, perplexity and token accuracy under forced decoding.

    Args:
        nats, tokens, correct: sums over the split's pairs, the true token fed at every step.
        aer: the alignment error rate, or None where there is no gold alignment or no attention.
    """
    texts = [translation.text for translation in translations]
    measured = quality(texts, items.references, unit=unit)
    lengths = [max(0, len(translation.source_tokens) - 1) for translation in translations]
    rows = by_length(lengths, texts, items.references, bleu_tokenizer="none" if unit == "phone" else "13a")
    return {
        **measured,
        "token_accuracy": correct / tokens,
        "perplexity": math.exp(min(nats / tokens, 700.0)),  # e^709 is the last number that a float can say
        "aer": aer,
        "sources": len(texts),
        "references": sum(map(len, items.references)),
        "truncated": sum(bool(one.hypotheses and one.hypotheses[0].truncated) for one in translations),
        "by_source_length": [row._asdict() for row in rows],
    }


def token_links(example: Example, source: Tokenizer, target: Tokenizer) -> set[tuple[int, int]]:
    """The gold alignment of a pair between tokens; EOS, behind them, stands for no character and is not linked."""
    spans = {"source_spans": source.spans(example.source), "target_spans": target.spans(example.target)}
    return set(to_tokens(example.links or (), **spans))


def error_of_alignments(alignments: Sequence, gold: Sequence[set[tuple[int, int]]]) -> float | None:
    """AER of the alignments of pairs against their gold links; None without any link."""
    sure = [sure_of(links) for links in gold]
    return alignment_error_rate([hard(alignment) for alignment in alignments], sure=sure, possible=gold)
