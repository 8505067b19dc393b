"""All the numbers that `s2s evaluate` reports of a split."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.decode.translate import Translation
from s2s_jax.evaluate.alignment import alignment_error_rate, hard, sure_of, to_tokens
from s2s_jax.evaluate.metrics import Predictions, by_length, measure, signatures
from s2s_jax.evaluate.text_counts import BLEU_TOKENIZERS, UnitName
from s2s_jax.text.example import Example
from s2s_jax.text.tokenizers import Tokenizer
from s2s_jax.validation import check_fields, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How translations are evaluated."""

    unit: UnitName = "word"
    """What a space-separated token of a target is: word (WER counts words) or phone (PER counts phones, WER items)."""

    def __post_init__(self):
        check_fields(self, "evaluation")
        one_of("evaluation.unit", self.unit, BLEU_TOKENIZERS)


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


def evaluate_split(
    translations: Sequence[Translation],
    grouped: Grouped,
    pairs: Sequence[ScoredPair],
    *,
    unit: str,
    links: Float[np.ndarray, "P 2"] | None = None,
) -> dict[str, Any]:
    """All numbers of a split: every entry of `METRICS` that its inputs allow, BLEU's signature, quality by length.

    Args:
        translations: one per source of `grouped`.
        pairs: the split's pairs under forced decoding.
        unit: as in EvaluationConfig.
        links: `link_counts` of the pairs; None where there is no gold alignment or no attention.
    """
    predictions = Predictions(
        [translation.text for translation in translations],
        grouped.references,
        unit,
        nats=np.array([-pair.log_probability for pair in pairs], np.float64),
        tokens=np.array([len(pair.tokens) for pair in pairs], np.float64),
        correct=np.array([pair.correct for pair in pairs], np.float64),
        link_counts=links,
    )
    lengths = [max(0, len(translation.source_tokens) - 1) for translation in translations]
    return {
        **measure(predictions),
        **({"aer": None} if links is None else {}),
        **signatures(predictions),
        "sources": len(translations),
        "references": sum(map(len, grouped.references)),
        "truncated": sum(translation.truncated for translation in translations),
        "by_source_length": [bucket._asdict() for bucket in by_length(predictions, lengths)],
    }


def token_links(example: Example, source: Tokenizer, target: Tokenizer) -> set[tuple[int, int]]:
    """The gold alignment of a pair, between tokens; EOS belongs to no character and is never linked."""
    spans = {"source_spans": source.spans(example.source), "target_spans": target.spans(example.target)}
    return set(to_tokens(example.links or (), **spans))


def error_of_alignments(alignments: Sequence, gold: Sequence[set[tuple[int, int]]]) -> float | None:
    """AER of the alignments of pairs against their gold links; None without any link."""
    sure = [sure_of(links) for links in gold]
    return alignment_error_rate([hard(alignment) for alignment in alignments], sure=sure, possible=gold)
