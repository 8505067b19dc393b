"""Pairs of lines in, their probabilities out: in the order of the input, with memory that does not grow with it.

Pairs are scored in windows, those of like length together; shapes are rounded up as in translation.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from s2s_jax.decode.score import Scored, score
from s2s_jax.decode.search import SearchConfig
from s2s_jax.decode.translate import WINDOW, filled, prefetch_one
from s2s_jax.model.interface import Model, Params
from s2s_jax.shapes import Batch
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.text.tokenizers import append_eos

Ids = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]  # source and target of a pair


class ScoredPair(NamedTuple):
    """A given pair under forced decoding."""

    example: Example
    source_tokens: tuple[str, ...]  # the end token counted
    tokens: tuple[str, ...]  # of the target, the end token counted
    log_probs: Float[np.ndarray, " T"]  # of each target token, nats
    alignment: Float[np.ndarray, "T S"]
    correct: int  # tokens that would have been said in their place
    score: float  # by search.length_normalization

    @property
    def log_probability(self) -> float:
        """Of the whole target, nats."""
        return float(self.log_probs.sum())


class Scorer:
    """A model and the tokenizers on both sides of it, ready to score."""

    def __init__(self, model: Model, pair: PairTokenizer, search: SearchConfig):
        """Of the search, the ranking and the number of sentences count."""
        self._score = jax.jit(functools.partial(score, model, scoring=search.scoring()))
        self.pair, self.search = pair, search

    def score(self, params: Params, examples: Iterable[Example]) -> Iterator[ScoredPair]:
        """Log-probability and alignment of each pair, in their order; pairs are read a window at a time."""
        examples = iter(examples)
        while read := list(itertools.islice(examples, self.search.batch_size * WINDOW)):
            yield from self._window(params, read)

    def _window(self, params: Params, examples: list[Example]) -> list[ScoredPair]:
        ids = [self._ids(example) for example in examples]
        order = sorted(range(len(ids)), key=lambda member: sum(map(len, ids[member])))
        step, answers = self.search.batch_size, {}
        batches = [order[start : start + step] for start in range(0, len(order), step)]
        for members, scored in prefetch_one(
            (members, self._sent(params, [ids[n] for n in members])) for members in batches
        ):
            scored = jax.device_get(scored)
            for row, member in enumerate(members):
                answers[member] = self._score_batch(examples[member], ids[member], scored, row)
        return [answers[number] for number in range(len(examples))]

    def _ids(self, example: Example) -> Ids:
        source, target = (
            self.pair.encode_source(example.source),
            self.pair.encode_target(example.target, example.source),
        )
        return append_eos(source), append_eos(target)

    def _sent(self, params: Params, ids: list[Ids]) -> Scored:
        return self._score(params, Batch(*(filled(side) for side in zip(*ids, strict=True))))

    def _score_batch(self, example: Example, ids: Ids, scored: Scored, row: int) -> ScoredPair:
        source, target = ids
        return ScoredPair(
            example,
            tuple(self.pair.source_symbols(source.tolist(), example.source)),
            tuple(self.pair.target_symbols(target.tolist(), example.source)),
            np.array(scored.log_probs[row, : len(target)]),
            np.array(scored.alignment[row, : len(target), : len(source)]),
            int(scored.correct[row, : len(target)].sum()),
            float(scored.scores[row]),
        )
