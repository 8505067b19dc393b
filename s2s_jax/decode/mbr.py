"""Minimum Bayes risk decoding: which of several hypotheses agrees best with all of them.

It is the hypothesis of the largest expected utility, the mean taken over the hypotheses by their
weights. Kumar & Byrne 2004, "Minimum Bayes-risk decoding for statistical machine translation".
"""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

MbrMetricName = Literal["none", "exact", "chrf", "bleu"]  # none: no reranking
_T = TypeVar("_T")  # a text, or a tuple of token ids


def exact_utility(hypothesis: object, other: object) -> float:
    """1 for equal hypotheses, else 0; with it, the hypothesis of the largest weight wins."""
    return float(hypothesis == other)


def chrf_utility(hypothesis: str, other: str) -> float:
    """sacrebleu's chrF of one sentence, 0 to 100."""
    return _chrf().sentence_score(hypothesis, [other]).score


def bleu_utility(hypothesis: str, other: str) -> float:
    """sacrebleu's BLEU of one sentence, over the n-gram orders that it is long enough for, 0 to 100."""
    return min(_bleu().sentence_score(hypothesis, [other]).score, 100.0)


@functools.cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@functools.cache
def _bleu() -> "BLEU":
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True, force=True)  # force: no log line on lines that end in " ."


MBR_METRICS: dict[str, Callable[[str, str], float]] = {
    "exact": exact_utility,
    "chrf": chrf_utility,
    "bleu": bleu_utility,
}


def consensus(
    hypotheses: Sequence[_T], log_weights: Sequence[float], utility: Callable[[_T, _T], float]
) -> list[tuple[int, float]]:
    """The first place of each distinct hypothesis and its expected utility, best first.

    Of equals, the one of larger weight comes first, then the one that stands first.

    Args:
        hypotheses: one may occur more than once, as samples do; its weights are added up.
        log_weights: log of the weight of each, up to a constant; -inf for none.
        utility: (hypothesis, reference) -> how good it is.

    Raises:
        ValueError: there are no hypotheses, not one weight per hypothesis, or no finite weight.
    """
    if len(hypotheses) != len(log_weights):
        raise ValueError(
            f"log_weights must be one per hypothesis, got {len(log_weights)} for {len(hypotheses)} of them"
        )
    most = max(log_weights, default=-np.inf)
    if not np.isfinite(most):
        raise ValueError("hypotheses must include one of finite weight, got none; search again for more.")
    places: dict[_T, int] = {}
    weights: dict[_T, float] = {}
    for place, (hypothesis, log_weight) in enumerate(zip(hypotheses, log_weights, strict=True)):
        places.setdefault(hypothesis, place)
        weights[hypothesis] = weights.get(hypothesis, 0.0) + float(np.exp(log_weight - most))
    total = sum(weights.values())
    expected = {one: sum(weights[other] * utility(one, other) for other in weights) / total for one in weights}
    order = sorted(expected, key=lambda one: (-expected[one], -weights[one], places[one]))
    return [(places[one], expected[one]) for one in order]
