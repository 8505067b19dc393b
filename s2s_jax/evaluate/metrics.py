"""The one table of metrics that validation, `evaluate`, sweeps and reports read.

A corpus metric is a function of sums: BLEU of n-gram counts, a rate of a numerator and a denominator. With the counts
of each source kept, a metric over any multiset of sources (a bootstrap draw, for instance) is a weighted sum and one
formula. The formulas take many sums at once. A new metric is one entry of `METRICS`.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from s2s_jax.evaluate.alignment import GoldLinks, alignment_entropy, hard, link_agreement
from s2s_jax.evaluate.text_counts import (
    BLEU_TOKENIZERS,
    Edits,
    MetricValues,
    SummedCounts,
    bleu_scorer,
    bleu_values,
    check_references,
    chrf_scorer,
    chrf_values,
    closest,
    edit_distance,
    ngram_counts,
    signature,
)
from s2s_jax.validation import one_of

Counts = Float[np.ndarray, "N K"]
# what a metric may need, and where it comes from
INPUTS = {
    "texts": "translations",
    "references": "reference translations",
    "nats": "forced decoding",
    "tokens": "forced decoding",
    "correct": "forced decoding",
    "exposure_nats": "free-running decoding",
    "alignments": "translations by a model with attention",
    "link_counts": "a model with attention and data with gold alignments",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicted for a split: all that its metrics are counted from.

    Texts, references and alignments have one entry per source. The sums of forced decoding (the true token fed at
    each step) may have a row per source, per pair or per batch: a metric of the whole is the same, while counts that
    are to be drawn again by source need a row per source (`by_item`). An input that is None was not measured, and
    metrics that need it cannot be computed.
    """

    texts: Sequence[str] | None = None
    references: Sequence[Sequence[str]] | None = None  # one or more per source; an empty string is a legal one
    unit: str = "word"  # what a target token between ASCII spaces is: see EvaluationConfig.unit
    bleu_tokenizer: str | None = None  # sacrebleu's name, such as "zh"; None for "13a" (word) and "none" (phone)
    nats: Float[np.ndarray, " N"] | None = None  # negative log-probability of the targets
    tokens: Float[np.ndarray, " N"] | None = None  # target tokens, the end token counted
    correct: Float[np.ndarray, " N"] | None = None  # target tokens that were the likeliest in their place
    exposure_nats: Float[np.ndarray, " N"] | None = None  # nats when fed the predicted tokens, less those above
    alignments: Sequence[Float[np.ndarray, "_ _"]] | None = None  # of the texts
    link_counts: Float[np.ndarray, "N 2"] | None = None  # `link_counts` of the pairs

    @property
    def inputs(self) -> frozenset[str]:
        """The inputs that were measured, those of `INPUTS`."""
        return frozenset(name for name in INPUTS if getattr(self, name) is not None)

    @functools.cached_property
    def edits(self) -> list[list[Edits]]:
        """The edit distance of each text to each of its references."""
        pairs = zip(self.texts or (), self.references or (), strict=True)
        return [[edit_distance(text, line) for line in lines] for text, lines in pairs]

    def check(self) -> None:
        """Refuse texts and references that do not belong together, and an unknown unit.

        Raises:
            ValueError: no texts, lists of unequal length, a source without reference, an unknown unit.
        """
        one_of("unit", self.unit, BLEU_TOKENIZERS)
        if self.texts is not None and self.references is not None:
            check_references(self.texts, self.references)


class Metric(NamedTuple):
    """How one metric is counted and computed."""

    label: str
    higher_is_better: bool | None  # None: neither; it describes
    unit: str  # "nats per token", "nats"; empty for fractions and for scores from 0 to 100
    counts: Callable[[Predictions], Counts]  # sufficient statistics, one row per source, pair or batch
    values: Callable[
        [SummedCounts], MetricValues
    ]  # of summed counts, many at once; NaN where there is nothing to divide by
    needs: tuple[str, ...]  # names of `INPUTS`; without one of them there is no value
    units: tuple[str, ...] = tuple(BLEU_TOKENIZERS)  # values of evaluation.unit for which it is defined

    @property
    def title(self) -> str:
        """The label, with the unit where it has one."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


def measure(predictions: Predictions, metrics: Collection[str] | None = None) -> dict[str, float | None]:
    """The value of each metric; None where it has nothing to divide by or is not defined for the unit.

    Args:
        metrics: names of `METRICS`; None for all whose inputs were measured.

    Raises:
        ValueError: an unknown metric, one whose inputs were not measured, or predictions that do not belong together.
    """
    predictions.check()
    if metrics is None:
        metrics = [name for name, metric in METRICS.items() if predictions.inputs.issuperset(metric.needs)]
    for name in metrics:
        check_metric("metric", name, inputs=predictions.inputs)
    defined = [name for name in metrics if predictions.unit in METRICS[name].units]
    values = {name: value(name, METRICS[name].counts(predictions).sum(0)) for name in defined}
    return {name: values.get(name) for name in metrics}


def check_metric(setting: str, metric: str, *, inputs: Collection[str], unit: str | None = None) -> None:
    """Refuse a metric that cannot be computed from the inputs that there will be, before anything is computed.

    Args:
        setting: where the name comes from, such as `validation.metric`.
        inputs: names of `INPUTS` that are or will be measured.
        unit: the value of evaluation.unit; None where it does not matter.

    Raises:
        ValueError: naming the setting and what is missing.
    """
    one_of(setting, metric, METRICS)
    if missing := [name for name in METRICS[metric].needs if name not in inputs]:
        sources = " and ".join(dict.fromkeys(INPUTS.get(name, name) for name in missing))
        raise ValueError(
            f"{setting}={metric} needs {sources}, and there is no {' and no '.join(missing)}; choose another "
            "metric, or provide what it needs."
        )
    if unit is not None and unit not in METRICS[metric].units:
        units = " or ".join(METRICS[metric].units)
        raise ValueError(f"{setting}={metric} needs evaluation.unit={units}, got evaluation.unit={unit}.")


def counts_of(predictions: Predictions, metrics: Collection[str] | None = None) -> dict[str, Counts]:
    """The counts of every metric that the predictions allow, one row per source.

    Args:
        metrics: names of `METRICS`; None for all.

    Raises:
        ValueError: predictions that do not belong together, an unknown unit or tokenizer.
    """
    predictions.check()
    inputs = predictions.inputs
    return {
        name: metric.counts(predictions)
        for name, metric in METRICS.items()
        if (metrics is None or name in metrics) and inputs.issuperset(metric.needs) and predictions.unit in metric.units
    }


def value(metric: str, summed: Float[np.ndarray, " K"]) -> float | None:
    """The metric of summed counts; None where there is nothing to divide by, NaN where a count is NaN.

    Raises:
        ValueError: no such metric.
    """
    one_of("metric", metric, METRICS)
    result = float(METRICS[metric].values(np.asarray(summed, np.float64)[None])[0])
    return None if np.isnan(result) and not np.isnan(summed).any() else result


def by_item(numbers: Float[np.ndarray, "P *rest"], items: Int[np.ndarray, " P"]) -> Float[np.ndarray, "N *rest"]:
    """Numbers of pairs added up by item: `items` holds the item of each pair, as `group_by_source` numbers them."""
    summed = np.zeros((int(items.max(initial=-1)) + 1, *numbers.shape[1:]))
    np.add.at(summed, items, numbers)
    return summed


def link_counts(alignments: Sequence[Float[np.ndarray, "_ _"]], gold: Sequence[GoldLinks]) -> Float[np.ndarray, "P 2"]:
    """The two counts of the AER of each pair: forced alignments against gold links."""
    counts = [
        link_agreement(links.units(hard(weights)), sure=links.sure, possible=links.possible)
        for weights, links in zip(alignments, gold, strict=True)
    ]
    return np.array(counts, np.float64).reshape(-1, 2)


def signatures(predictions: Predictions) -> dict[str, str]:
    """How BLEU and chrF were computed, in sacrebleu's words: `bleu_signature` and `chrf_signature`."""
    references = predictions.references or ()
    return {
        "bleu_signature": signature(_bleu_scorer(predictions), references),
        "chrf_signature": signature(chrf_scorer(), references),
    }


class LengthBucket(NamedTuple):
    """Quality over the sources of one length: a row of the table and a point of the curve."""

    label: str
    sources: int
    exact_match: float | None
    error_rate: float | None  # token edits per reference token: WER of words, PER of phones
    bleu: float | None


def by_length(
    predictions: Predictions, lengths: Sequence[int], *, edges: Sequence[int] = (10, 20, 30, 40, 50, 60)
) -> list[LengthBucket]:
    """Quality by source length, shortest first; a bucket that holds no source is left out.

    Args:
        predictions: with texts and references.
        lengths: the length of each source, in whatever unit the caller reports.
        edges: the longest length of each bucket, rising; longer sources go into one more bucket.

    Raises:
        ValueError: edges that do not rise, and whatever `measure` refuses.
    """
    predictions.check()
    texts, references = predictions.texts or (), predictions.references or ()
    if len(lengths) != len(texts):
        raise ValueError(f"lengths must be one per hypothesis, got {len(lengths)} for {len(texts)} hypotheses")
    if list(edges) != sorted(set(edges)):
        raise ValueError(f"edges must rise, got {tuple(edges)}")
    lows = [0, *(edge + 1 for edge in edges)]
    labels = [*(f"{low}-{high}" for low, high in zip(lows, edges, strict=False)), f"{lows[-1]}+"]
    error_rate = "per" if predictions.unit == "phone" else "wer"
    buckets = []
    for label, low, high in zip(labels, lows, [*edges, float("inf")], strict=True):
        members = [index for index, length in enumerate(lengths) if low <= length <= high]
        if members:
            some = Predictions(
                [texts[index] for index in members],
                [references[index] for index in members],
                predictions.unit,
                predictions.bleu_tokenizer,
            )
            values = measure(some, ("exact_match", error_rate, "bleu"))
            buckets.append(LengthBucket(label, len(members), *values.values()))
    return buckets


def _exact_match(predictions: Predictions) -> Counts:
    return _is_true([text in lines for text, lines in _pairs(predictions)])


def _exact_match_per_line(predictions: Predictions) -> Counts:
    return np.array([(lines.count(text), len(lines)) for text, lines in _pairs(predictions)], np.float64)


def _edits(predictions: Predictions) -> Counts:
    return np.array([closest(edits) for edits in predictions.edits], np.float64)


def _edits_per_line(predictions: Predictions) -> Counts:
    return np.array([np.sum(edits, axis=0) for edits in predictions.edits], np.float64)


def _wer(predictions: Predictions) -> Counts:
    edits = _edits(predictions)
    return _is_true(edits[:, 0] > 0) if predictions.unit == "phone" else edits


def _wer_per_line(predictions: Predictions) -> Counts:
    if predictions.unit == "word":
        return _edits_per_line(predictions)
    wrong = [(sum(edit.distance > 0 for edit in edits), len(edits)) for edits in predictions.edits]
    return np.array(wrong, np.float64)


def _pairs(predictions: Predictions) -> list[tuple[str, list[str]]]:
    return [
        (text, list(lines)) for text, lines in zip(predictions.texts or (), predictions.references or (), strict=True)
    ]


def _is_true(holds: Sequence[bool] | Bool[np.ndarray, " N"]) -> Counts:
    return np.stack([np.asarray(holds, np.float64), np.ones(len(holds))], 1)


def _bleu_scorer(predictions: Predictions):
    return bleu_scorer(predictions.bleu_tokenizer or BLEU_TOKENIZERS[predictions.unit])


def _bleu(predictions: Predictions) -> Counts:
    return ngram_counts(_bleu_scorer(predictions), predictions.texts or (), predictions.references or ())


def _chrf(predictions: Predictions) -> Counts:
    return ngram_counts(chrf_scorer(), predictions.texts or (), predictions.references or ())


def _per_token(numerator: str) -> Callable[[Predictions], Counts]:
    def counts(predictions: Predictions) -> Counts:
        columns = (getattr(predictions, numerator), predictions.tokens)
        return np.stack([np.asarray(column, np.float64) for column in columns], 1)

    return counts


def _links(predictions: Predictions) -> Counts:
    return np.asarray(predictions.link_counts, np.float64)


def _entropies(predictions: Predictions) -> Counts:
    alignments = predictions.alignments or ()
    return np.array([(alignment_entropy(weights).sum(), len(weights)) for weights in alignments], np.float64).reshape(
        -1, 2
    )


def _rate(sums: SummedCounts) -> MetricValues:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums[..., 1] > 0, sums[..., 0] / sums[..., 1], np.nan)


def _one_minus_rate(sums: SummedCounts) -> MetricValues:
    return 1 - _rate(sums)


def _perplexity(sums: SummedCounts) -> MetricValues:
    return np.exp(np.minimum(_rate(sums), 700.0))  # e^709 is the largest float


# Of the edit distances to a source's references the smallest counts, of equals the one to the longest reference. The
# metrics that end in `_per_line` count each pair of a text and one of its references, so that a source with three
# references counts three times. Rates are fractions (a WER can pass 1). Where the unit is a phone (grapheme to phoneme)
# PER counts phones, and WER is the fraction of items whose phones are not exactly a reference's.
TEXT, FORCED = ("texts", "references"), ("nats", "tokens")
METRICS: dict[str, Metric] = {
    "exact_match": Metric("Exact match", True, "", _exact_match, _rate, TEXT),
    "exact_match_per_line": Metric("Exact match per reference", True, "", _exact_match_per_line, _rate, TEXT),
    "bleu": Metric("BLEU", True, "", _bleu, bleu_values, TEXT),
    "chrf": Metric("chrF", True, "", _chrf, chrf_values, TEXT),
    "wer": Metric("WER", False, "", _wer, _rate, TEXT),
    "wer_per_line": Metric("WER per reference", False, "", _wer_per_line, _rate, TEXT),
    "per": Metric("PER", False, "", _edits, _rate, TEXT, ("phone",)),
    "per_per_line": Metric("PER per reference", False, "", _edits_per_line, _rate, TEXT, ("phone",)),
    "loss": Metric("Loss", False, "nats per token", _per_token("nats"), _rate, FORCED),
    "perplexity": Metric("Perplexity", False, "", _per_token("nats"), _perplexity, FORCED),
    "token_accuracy": Metric("Token accuracy", True, "", _per_token("correct"), _rate, ("correct", "tokens")),
    "exposure_gap": Metric(
        "Exposure gap", False, "nats per token", _per_token("exposure_nats"), _rate, ("exposure_nats", "tokens")
    ),
    "aer": Metric("AER", False, "", _links, _one_minus_rate, ("link_counts",)),
    "attention_entropy": Metric("Attention entropy", None, "nats", _entropies, _rate, ("alignments",)),
}
