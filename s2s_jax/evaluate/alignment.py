"""Attention alignments against gold alignments (alignment error rate), their entropy, and the Pharaoh format.

A link is a pair (source token, target token), counted from 0. Row t of an alignment holds the attention weights at the
step that produced target token t.
"""

import collections
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from s2s_jax.decode.forced_decoding import ScoredPair
from s2s_jax.decode.json_records import rounded

Link = tuple[int, int]


class GoldLinks(NamedTuple):
    """The gold alignment of a pair, between tokens or between words.

    Where it is between words, the units map each token to its word, and two words are linked by a prediction where any
    of their tokens are.
    """

    sure: Collection[Link]
    possible: Collection[Link]  # the sure ones among them
    source_units: Mapping[int, int] = {}  # token -> unit; a token that is left out is a unit by itself
    target_units: Mapping[int, int] = {}

    def units(self, links: Iterable[Link]) -> set[Link]:
        """Links between tokens as links between units; a token without a unit gets a number that no unit has."""
        sides = self.source_units, self.target_units
        if not any(sides):
            return set(links)
        return {(sides[0].get(s, -1 - s), sides[1].get(t, -1 - t)) for s, t in links}


def hard(alignment: Float[np.ndarray, "T S"]) -> frozenset[Link]:
    """One link per target token, to the source token of the largest weight (the first of equals).

    A row of zeros gives no link.

    Raises:
        ValueError: a weight is not a number.
    """
    if np.isnan(alignment).any():
        raise ValueError("alignment holds NaN, so it has no largest weight; look for the step where the model diverged")
    attended = np.flatnonzero(alignment.any(axis=1))
    return frozenset((int(alignment[target].argmax()), int(target)) for target in attended)


def alignment_error_rate(
    predicted: Sequence[Collection[Link]],
    *,
    sure: Sequence[Collection[Link]],
    possible: Sequence[Collection[Link]] | None = None,
    every_target: bool = False,
) -> float | None:
    """AER of a corpus, a fraction: 0 is perfect; None where neither side has a link.

    AER = 1 - (|A & S| + |A & P|) / (|A| + |S|), each size summed over the sentences first. A predicted, S sure,
    P possible and always holding S. Och & Ney 2003, "A Systematic Comparison of Various Statistical Alignment
    Models", Computational Linguistics 29(1).

    An attention model attends somewhere for every token that it produces, also for the end token and for separators,
    for which there is no gold link. So a predicted link counts only where its target token has a gold link, sure or
    possible; a gold link that was not predicted counts against the model all the same. `every_target` gives the plain
    rule of word aligners, where a link to an unlinked target token is an error.

    Args:
        predicted: the links of each sentence, as `hard` gives them.
        sure: the sure gold links of each sentence.
        possible: the possible gold links; None for the sure ones alone.
        every_target: count predictions for target tokens without a gold link too.

    Raises:
        ValueError: the lists differ in length.
    """
    possible = sure if possible is None else possible
    if not len(predicted) == len(sure) == len(possible):
        raise ValueError(
            "predicted, sure and possible must hold one set of links per sentence, "
            f"got {len(predicted)}, {len(sure)} and {len(possible)} sets"
        )
    counts = [
        link_agreement(links, sure=certain, possible=allowed, every_target=every_target)
        for links, certain, allowed in zip(predicted, sure, possible, strict=True)
    ]
    agreed, total = sum(each for each, _ in counts), sum(each for _, each in counts)
    return 1 - agreed / total if total else None


def link_agreement(
    predicted: Collection[Link], *, sure: Collection[Link], possible: Collection[Link], every_target: bool = False
) -> tuple[int, int]:
    """The two counts of the AER for one sentence, |A & S| + |A & P| and |A| + |S|, to be summed over a corpus."""
    links, certain = set(predicted), set(sure)
    allowed = certain | set(possible)
    counted = links if every_target else with_gold_target(links, allowed)
    return len(counted & certain) + len(counted & allowed), len(counted) + len(certain)


def sure_of(links: Collection[Link]) -> set[Link]:
    """The sure links: those of target tokens that are linked to one source token.

    Where a target token is linked to several (the digits of a month to all letters of its name) each link is possible:
    a model may attend to any of them.
    """
    counts = collections.Counter(target for _, target in links)
    return {link for link in links if counts[link[1]] == 1}


def guess_sure(links: Collection[Link]) -> GoldLinks:
    """Gold links between tokens of which it is not known which ones are sure: those of `sure_of` are."""
    return GoldLinks(sure_of(links), links)


def units_of(spans: Sequence[tuple[int, int]], words: Sequence[tuple[int, int]]) -> dict[int, int]:
    """The word that each token belongs to, by the first of its characters that is in a word."""
    word_at = {character: word for word, (start, end) in enumerate(words) for character in range(start, end)}
    units = {}
    for token, (start, end) in enumerate(spans):
        inside = next((word_at[character] for character in range(start, end) if character in word_at), None)
        if inside is not None:
            units[token] = inside
    return units


def with_gold_target(predicted: Iterable[Link], gold: Collection[Link]) -> set[Link]:
    """The predicted links whose target token has a gold link."""
    linked = {target for _, target in gold}
    return {link for link in predicted if link[1] in linked}


def to_tokens(
    links: Collection[Link], *, source_spans: Sequence[tuple[int, int]], target_spans: Sequence[tuple[int, int]]
) -> frozenset[Link]:
    """Token links from character links: two tokens are linked when any of their characters are.

    A character outside all spans (a space between words) links nothing; tokens may share a character.

    Args:
        links: pairs (source character, target character), counted from 0.
        source_spans: each source token's first character and the one after its last.
        target_spans: the same for the target.
    """
    source, target = tokens_at(source_spans), tokens_at(target_spans)
    return frozenset((s, t) for left, right in links for s in source.get(left, ()) for t in target.get(right, ()))


def tokens_at(spans: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """The tokens that each character belongs to."""
    tokens: dict[int, list[int]] = {}
    for token, (start, end) in enumerate(spans):
        for character in range(start, end):
            tokens.setdefault(character, []).append(token)
    return tokens


def alignment_entropy(alignment: Float[np.ndarray, "T S"]) -> Float[np.ndarray, " T"]:
    """The entropy of each row, in nats: 0 for one source token, log S for uniform weights; 0 log 0 is 0.

    A row that does not sum to 1 (sigmoid attention) is scaled to it first; a row of zeros has entropy 0.
    """
    weights = np.asarray(alignment, np.float64)
    sums = weights.sum(axis=1, keepdims=True)
    probabilities = np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return np.abs(np.einsum("ts,ts->t", probabilities, logs))  # a sum of terms <= 0; `-` alone would turn 0 into -0.0


def to_pharaoh(links: Iterable[Link]) -> str:
    """One line in Pharaoh format, in the order given; sort a set first."""
    return " ".join(f"{source}-{target}" for source, target in links)


def alignment_record(pair: ScoredPair) -> dict[str, Any]:
    """The alignment of a scored pair, for JSON."""
    return {
        "source_tokens": pair.source_tokens,
        "target_tokens": pair.tokens,
        "alignment": rounded(pair.alignment),
        "pharaoh": to_pharaoh(hard(pair.alignment)),
    }
