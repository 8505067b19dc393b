"""Which few numbers of each test sentence add up to a metric of the whole, so that sentences can be drawn again?

A corpus metric is a function of sums: BLEU of n-gram counts, a rate of a numerator and a denominator. With the numbers
of each source kept, a metric over any multiset of sources is a weighted sum and one formula. The formulas here take
many sums at once; `quality` and `evaluate` keep the rules (closest reference, signatures), and a law test holds the two
together.
"""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sacrebleu.metrics.base import Metric as SacreMetric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from s2s_jax.evaluate.alignment import Link, agreement, entropy, hard, sure_of
from s2s_jax.evaluate.quality import TOKENIZERS, UNITS, by_rank, check, closest, compare
from s2s_jax.validation import one_of

Numbers = Float[np.ndarray, "N K"]
Sums = Float[np.ndarray, "... K"]
Values = Float[np.ndarray, "..."]


class Predictions(NamedTuple):
    """What a model made of a split: all that its metrics are counted from. Lists have one entry a source.

    `nats`, `tokens` and `correct` are sums over a source's pairs, the true token fed; `by_source` makes them of pairs.
    What is None was not measured, and the metrics that need it are left out.
    """

    texts: Sequence[str]
    references: Sequence[Sequence[str]]
    unit: str = "word"  # as in `quality`
    bleu_tokenizer: str | None = None  # as in `quality`
    nats: Float[np.ndarray, " N"] | None = None
    tokens: Float[np.ndarray, " N"] | None = None
    correct: Float[np.ndarray, " N"] | None = None
    exposed: Float[np.ndarray, " N"] | None = None  # nats on the model's own words less those on true ones
    alignments: Sequence[Float[np.ndarray, "_ _"]] | None = None  # of the texts, where the model attends
    links: Float[np.ndarray, "N 2"] | None = None  # `link_counts` of the pairs, by source, where gold is known


class Metric(NamedTuple):
    """How one metric is counted and read."""

    label: str
    higher_is_better: bool | None  # None: neither; it describes
    counts: Callable[[Predictions], Numbers | None]  # one row a source; None where the answers do not say
    values: Callable[[Sums], Values]  # of summed counts, many at once; NaN where there is nothing to divide by


def counts_of(answers: Predictions) -> dict[str, Numbers]:
    """The counts of every metric that the answers allow, one row a source.

    Raises:
        ValueError: no texts, lists of unequal length, a source without reference, an unknown unit or tokenizer.
    """
    check(answers.texts, answers.references)
    one_of("unit", answers.unit, UNITS)
    made = {name: metric.counts(answers) for name, metric in METRICS.items()}
    return {name: counts for name, counts in made.items() if counts is not None}


def value(metric: str, summed: Float[np.ndarray, " K"]) -> float | None:
    """The metric of summed counts: the number that `quality` or `evaluate` gives; None where nothing is to divide by.

    Raises:
        ValueError: no such metric.
    """
    one_of("metric", metric, tuple(METRICS))
    found = float(METRICS[metric].values(np.asarray(summed, np.float64)[None])[0])
    return None if np.isnan(found) and not np.isnan(summed).any() else found


def by_source(numbers: Float[np.ndarray, "P *rest"], sources: Sequence[str]) -> Float[np.ndarray, "N *rest"]:
    """Numbers of pairs added up by source, in the order in which `grouped` lists the sources."""
    places: dict[str, int] = {}
    rows = np.array([places.setdefault(source, len(places)) for source in sources], np.int64)
    summed = np.zeros((len(places), *numbers.shape[1:]))
    np.add.at(summed, rows, numbers)
    return summed


def link_counts(
    alignments: Sequence[Float[np.ndarray, "_ _"]], gold: Sequence[Collection[Link]]
) -> Float[np.ndarray, "P 2"]:
    """The two numbers of the AER of each pair: forced alignments against gold links between tokens."""
    pairs = zip(alignments, gold, strict=True)
    counts = [agreement(hard(weights), sure=sure_of(links), possible=links) for weights, links in pairs]
    return np.array(counts, np.float64).reshape(-1, 2)


def _exact(answers: Predictions) -> Numbers:
    return _ratio([said in lines for said, lines in zip(answers.texts, answers.references, strict=True)])


def _edits(answers: Predictions) -> Numbers:
    pairs = zip(answers.texts, answers.references, strict=True)
    return np.array([closest([compare(said, line) for line in lines]) for said, lines in pairs], np.float64)


def _wer(answers: Predictions) -> Numbers:
    edits = _edits(answers)
    return _ratio(edits[:, 0] > 0) if answers.unit == "phone" else edits


def _per(answers: Predictions) -> Numbers | None:
    return _edits(answers) if answers.unit == "phone" else None


def _ratio(holds: Sequence[bool] | Bool[np.ndarray, " N"]) -> Numbers:
    return np.stack([np.asarray(holds, np.float64), np.ones(len(holds))], 1)


def _bleu(answers: Predictions) -> Numbers:
    tokenizer = answers.bleu_tokenizer or TOKENIZERS[answers.unit]
    one_of("bleu_tokenizer", tokenizer, tuple(BLEU.TOKENIZERS))
    return _sacrebleu(BLEU(tokenize=tokenizer, force=True), answers)


def _chrf(answers: Predictions) -> Numbers:
    return _sacrebleu(CHRF(), answers)


def _sacrebleu(metric: SacreMetric, answers: Predictions) -> Numbers:
    """The numbers that sacrebleu's own paired tests draw from; a law test notices when a release changes them."""
    return np.array(metric._extract_corpus_statistics(answers.texts, by_rank(answers.references)), np.float64)


def _forced(numerator: str) -> Callable[[Predictions], Numbers | None]:
    def counts(answers: Predictions) -> Numbers | None:
        counted = getattr(answers, numerator)
        if counted is None or answers.tokens is None:
            return None
        return np.stack([np.asarray(counted, np.float64), np.asarray(answers.tokens, np.float64)], 1)

    return counts


def _links(answers: Predictions) -> Numbers | None:
    return answers.links


def _entropies(answers: Predictions) -> Numbers | None:
    if answers.alignments is None:
        return None
    return np.array([(entropy(weights).sum(), len(weights)) for weights in answers.alignments], np.float64)


def _rate(sums: Sums) -> Values:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def _one_minus_rate(sums: Sums) -> Values:
    return 1 - _rate(sums)


def _perplexity(sums: Sums) -> Values:
    return np.exp(np.minimum(_rate(sums), 700.0))  # as `evaluate`: e^709 is the last number that a float can say


def _bleu_values(sums: Sums) -> Values:
    """BLEU of sums (said, wanted, 4 matches, 4 n-grams), with sacrebleu's exponential smoothing.

    Papineni et al. 2002; an order without a match counts as 1 / (2^k x n-grams), k orders without one so far
    (Chen & Cherry 2014, method 3).
    """
    said, wanted, matches, grams = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    with np.errstate(divide="ignore", invalid="ignore"):
        smoothed = np.where(matches > 0, matches, 0.5 ** np.cumsum(matches == 0, axis=-1))
        logs = np.log(smoothed / grams).mean(-1)
        penalty = np.where(said < wanted, 1 - wanted / said, 0.0)
        score = 100 * np.exp(logs + penalty)
    sayable = (matches > 0).any(-1) & (grams > 0).all(-1)
    return np.where(sayable, np.minimum(score, 100.0), 0.0)


def _chrf_values(sums: Sums) -> Values:
    """chrF2 of sums (said, wanted, matched) for character n-grams of 1 to 6. Popović 2015, W15-3049."""
    said, wanted, matched = (sums[..., start::3] for start in range(3))
    usable = (said > 0) & (wanted > 0)
    orders = np.maximum(usable.sum(-1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(usable, matched / said, 0.0).sum(-1) / orders
        recall = np.where(usable, matched / wanted, 0.0).sum(-1) / orders
        score = 100 * 5 * precision * recall / (4 * precision + recall)
    return np.where(precision + recall > 0, score, 0.0)


METRICS = {
    "exact_match": Metric("Exact match", True, _exact, _rate),
    "wer": Metric("WER", False, _wer, _rate),
    "per": Metric("PER", False, _per, _rate),
    "bleu": Metric("BLEU", True, _bleu, _bleu_values),
    "chrf": Metric("chrF", True, _chrf, _chrf_values),
    "token_accuracy": Metric("Token accuracy", True, _forced("correct"), _rate),
    "perplexity": Metric("Perplexity", False, _forced("nats"), _perplexity),
    "exposure_gap": Metric("Exposure gap (nats a token)", False, _forced("exposed"), _rate),
    "aer": Metric("AER", False, _links, _one_minus_rate),
    "attention_entropy": Metric("Attention entropy (nats)", None, _entropies, _rate),
}
