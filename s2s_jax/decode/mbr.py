"""Which of several hypotheses agrees best with all of them?

Minimum Bayes risk: the hypothesis of the largest expected utility, the mean taken over the hypotheses by their
weights. Kumar & Byrne 2004, "Minimum Bayes-risk decoding for statistical machine translation".
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

MbrMetricName = Literal["none", "exact", "chrf", "bleu"]  # none: no reranking
T = TypeVar("T")  # a text, or a tuple of token ids


def exact(hypothesis: object, other: object) -> float:
    """1 for the same, else 0; with it, the hypothesis of the largest weight wins."""
    return float(hypothesis == other)


def chrf(hypothesis: str, other: str) -> float:
    """sacrebleu's chrF of one sentence, 0 to 100."""
    return _CHRF.sentence_score(hypothesis, [other]).score


def bleu(hypothesis: str, other: str) -> float:
    """sacrebleu's BLEU of one sentence, of the orders that it is long enough for, 0 to 100."""
    return min(_BLEU.sentence_score(hypothesis, [other]).score, 100.0)


_CHRF, _BLEU = CHRF(), BLEU(effective_order=True, force=True)  # force: no log line on lines that end in " ."
MBR_METRICS: dict[str, Callable[[str, str], float]] = {"exact": exact, "chrf": chrf, "bleu": bleu}


def consensus(
    hypotheses: Sequence[T], log_weights: Sequence[float], utility: Callable[[T, T], float]
) -> list[tuple[int, float]]:
    """The place of each different hypothesis (its first one) and its expected utility, best first.

    Of equals, the one of larger weight comes first, then the one that stands first.

    Args:
        hypotheses: the same one may stand there more than once, as samples do; its weights add up.
        log_weights: what each counts, up to a factor; -inf for nothing.
        utility: (hypothesis, the one it is held against) -> how good it is then.

    Raises:
        ValueError: there are no hypotheses, or not a weight for each, or none of them counts.
    """
    if len(hypotheses) != len(log_weights):
        raise ValueError(f"log_weights must be one a hypothesis, got {len(log_weights)} for {len(hypotheses)} of them")
    most = max(log_weights, default=-np.inf)
    if not np.isfinite(most):
        raise ValueError("hypotheses must hold one that counts, got none of finite weight; search again for more.")
    places: dict[T, int] = {}
    weights: dict[T, float] = {}
    for place, (hypothesis, log_weight) in enumerate(zip(hypotheses, log_weights, strict=True)):
        places.setdefault(hypothesis, place)
        weights[hypothesis] = weights.get(hypothesis, 0.0) + float(np.exp(log_weight - most))
    total = sum(weights.values())
    expected = {one: sum(weights[other] * utility(one, other) for other in weights) / total for one in weights}
    order = sorted(expected, key=lambda one: (-expected[one], -weights[one], places[one]))
    return [(places[one], expected[one]) for one in order]
