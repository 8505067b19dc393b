"""All the numbers that `s2s evaluate` reports of a split."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.decode.lexical_constraints import ConstrainedLine, InputLine
from s2s_jax.decode.translate import Translation
from s2s_jax.evaluate.alignment import GoldLinks, guess_sure, to_tokens, units_of
from s2s_jax.evaluate.config import EvaluationConfig
from s2s_jax.evaluate.metrics import Predictions, by_item, by_length, link_counts, measure, signatures, value
from s2s_jax.text.example import Example, WordLinks
from s2s_jax.text.pairs import word_spans
from s2s_jax.text.tokenizers import Tokenizer

FORCED_COLUMNS = ("nats", "tokens", "correct", "exposure_nats")  # inputs of metrics that come from given targets


class Grouped(NamedTuple):
    """The items of an evaluation, in the order of their first pairs."""

    inputs: list[InputLine]  # source lines, with their features where there are some
    references: list[list[str]]
    items: Int[np.ndarray, " P"]  # the item of each pair


def group_by_source(examples: Sequence[Example], *, merge: bool = True) -> Grouped:
    """Pairs of one source with its features are one item with several references; without `merge` each pair is one."""
    places: dict[Any, int] = {}
    keys = ((example.source, *example.features) if merge else number for number, example in enumerate(examples))
    items = np.array([places.setdefault(key, len(places)) for key in keys], np.int64)
    grouped = Grouped([""] * len(places), [[] for _ in places], items)
    for item, example in zip(items, examples, strict=True):
        grouped.inputs[item] = (example.source, *example.features) if example.features else example.source
        grouped.references[item].append(example.target)
    return grouped


def source_lines(inputs: Sequence[InputLine]) -> list[str]:
    """The source of each input, without its features."""
    return [ConstrainedLine.of(line).line for line in inputs]


def forced_sums(pairs: Sequence[ScoredPair]) -> Float[np.ndarray, "P 3"]:
    """The sums of forced decoding of each pair: nats, tokens and correct tokens."""
    rows = [(-pair.log_probability, len(pair.tokens), pair.correct) for pair in pairs]
    return np.array(rows, np.float64).reshape(-1, 3)


def predictions_of(
    translations: Sequence[Translation] | None,
    references: Sequence[Sequence[str]],
    forced: Float[np.ndarray, "N K"],
    *,
    evaluation: EvaluationConfig,
    attends: bool,
    links: Float[np.ndarray, "_ 2"] | None = None,
) -> Predictions:
    """All inputs of metrics that a model's outputs hold, for validation, `s2s evaluate` and sweeps alike.

    Args:
        translations: one per source; None where nothing is translated.
        references: the references of each source.
        forced: the first K of `FORCED_COLUMNS`, one row per source, pair or batch.
        evaluation: the unit and the tokenizer of BLEU.
        attends: whether the model has attention; without it there are no alignments.
        links: `link_counts` of pairs or sources; None where there is no gold alignment or no attention.
    """
    texts = None if translations is None else [translation.text for translation in translations]
    alignments = None
    if attends and translations is not None:
        alignments = [np.asarray(translation.alignment, np.float64) for translation in translations]
    return Predictions(
        texts,
        None if translations is None else references,
        evaluation.unit,
        evaluation.tokenizer,
        **dict(zip(FORCED_COLUMNS, forced.T, strict=False)),
        alignments=alignments,
        link_counts=links,
    )


def evaluate_split(
    translations: Sequence[Translation],
    grouped: Grouped,
    pairs: Sequence[ScoredPair],
    *,
    evaluation: EvaluationConfig,
    attends: bool,
    links: Float[np.ndarray, "P 2"] | None = None,
) -> dict[str, Any]:
    """All numbers of a split: every entry of `METRICS` that its inputs allow, BLEU's signature, quality by length.

    The exposure gap is left out: it costs one more decoding of the split, and a sweep reports it.

    Args:
        translations: one per source of `grouped`.
        pairs: the split's pairs under forced decoding.
        evaluation: the unit and the tokenizer of BLEU.
        attends: whether the model has attention.
        links: `link_counts` of the pairs; None where there is no gold alignment or no attention.
    """
    forced = by_item(forced_sums(pairs), grouped.items)
    predictions = predictions_of(
        translations, grouped.references, forced, evaluation=evaluation, attends=attends, links=links
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


def gold_links(example: Example, source: Tokenizer, target: Tokenizer) -> GoldLinks:
    """The gold alignment of a pair as the AER counts it: between words where it was given so, else between tokens.

    Whoever aligns words says which links are sure. Between the tokens of a synthetic task that is guessed: `sure_of`.
    """
    if not isinstance(example.links, WordLinks):
        return guess_sure(token_links(example, source, target))
    words = [word_spans(example.source), word_spans(example.target)]
    starts = [{start: number for number, (start, _) in enumerate(side)} for side in words]
    links = [(starts[0][row[0]], starts[1][row[2]]) for row in example.links.words.tolist()]
    return GoldLinks(
        sure={link for link, sure in zip(links, example.links.sure, strict=True) if sure},
        possible=set(links),
        source_units=units_of(source.spans(example.source), words[0]),
        target_units=units_of(target.spans(example.target), words[1]),
    )


def aer_links(examples: Sequence[Example]) -> str:
    """Which links the AER of these pairs counts; the pairs have gold links."""
    between_words = [example.links for example in examples if isinstance(example.links, WordLinks)]
    if not between_words:
        return "of tokens; the only link of a target token is sure, several are possible"
    marked = any(not links.sure.all() for links in between_words)
    return "of words; " + ("sure and possible" if marked else "sure ones alone, none is marked as possible")


def error_of_alignments(alignments: Sequence, gold: Sequence[GoldLinks]) -> float | None:
    """AER of the alignments of pairs against their gold links; None without any link."""
    return value("aer", link_counts(alignments, gold).sum(0)) if gold else None
