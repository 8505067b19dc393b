"""Log-probabilities and alignments of given translations, the true token fed at each step."""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.decode.batching import WINDOW, Ready, pad_rows, run_batches, windows
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore, log_coverage
from s2s_jax.decode.search import SearchConfig
from s2s_jax.model.interface import Model, Params, unroll_targets
from s2s_jax.shapes import Batch, real
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.text.tokenizers import append_eos

PairIds = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]  # source and target of a pair


class ForcedScores(NamedTuple):
    """What forced decoding gives for a batch of pairs."""

    log_probs: Float[Array, "B T"]  # of each token, nats; 0 on padding
    alignment: Float[Array, "B T S"]  # zeros on padding
    correct: Bool[Array, "B T"]  # whether the true token was the likeliest; False on padding
    scores: Float[Array, " B"]  # by which a search would rank them


def forced_decoding(
    model: Model, params: Params, batch: Batch, *, scoring: HypothesisScore = LIKELIHOOD
) -> ForcedScores:
    """The log-probability and the alignment of every target token, EOS included, given the true tokens before it."""
    steps = unroll_targets(model, params, batch)
    log_probs = jax.nn.log_softmax(steps.logits)
    true = jnp.take_along_axis(log_probs, batch.target[..., None], axis=-1)[..., 0]
    weight = real(batch.target)
    correct = weight & (true >= log_probs.max(-1))
    true, alignment = jnp.where(weight, true, 0.0), jnp.where(weight[..., None], steps.alignment, 0.0)
    length = jnp.maximum(weight.sum(-1), 1).astype(jnp.float32)
    coverage = log_coverage(alignment.sum(1), real(batch.source)) if scoring.coverage else jnp.zeros(length.shape)
    return ForcedScores(true, alignment, correct, scoring.score(true.sum(-1), length, coverage))


class ScoredPair(NamedTuple):
    """A given pair under forced decoding."""

    example: Example
    source_tokens: tuple[str, ...]  # the end token included
    tokens: tuple[str, ...]  # of the target, the end token included
    log_probs: Float[np.ndarray, " T"]  # of each target token, nats
    alignment: Float[np.ndarray, "T S"]
    correct: int  # target tokens that were the likeliest in their place
    score: float  # by search.length_normalization

    @property
    def log_probability(self) -> float:
        """Of the whole target, nats."""
        return float(self.log_probs.sum())


class PairScorer:
    """A model and the tokenizers of both sides, ready to score pairs of lines."""

    def __init__(self, model: Model, pair: PairTokenizer, search: SearchConfig):
        """Of the search, the scoring and the bounds of a batch are used."""
        self._forced_decoding = jax.jit(functools.partial(forced_decoding, model, scoring=search.scoring()))
        self.pair, self.search = pair, search

    def score(
        self, params: Params, examples: Iterable[Example], *, window: int = 0, ready: Ready | None = None
    ) -> Iterator[ScoredPair]:
        """Log-probability and alignment of each pair, in the order of the input.

        Pairs are read one window at a time, so that memory does not grow with their number.

        Args:
            window: most pairs that are read before the first of them is scored; 0 for 16 full batches.
            ready: whether another pair comes at once; where none does, those that were read are scored.
        """
        for read in windows(examples, window or self.search.batch_size * WINDOW, ready):
            yield from self._score_window(params, read)

    def _score_window(self, params: Params, examples: list[Example]) -> list[ScoredPair]:
        ids = [self._encode(example) for example in examples]

        def compute(rows: list[int]) -> ForcedScores:
            return self._forced_decoding(
                params, Batch(*(pad_rows([ids[row][side] for row in rows]) for side in (0, 1)))
            )

        lengths = [(len(source), len(target)) for source, target in ids]
        results: dict[int, ScoredPair] = {}
        bounds = {"size": self.search.batch_size, "tokens": self.search.batch_tokens}
        for rows, scores in run_batches(compute, lengths, **bounds):
            for place, row in enumerate(rows):
                results[row] = self._scored_pair(examples[row], ids[row], scores, place)
        return [results[row] for row in range(len(examples))]

    def _encode(self, example: Example) -> PairIds:
        source = self.pair.encode_source(example.source)
        return append_eos(source), append_eos(self.pair.encode_target(example.target, example.source))

    def _scored_pair(self, example: Example, ids: PairIds, scores: ForcedScores, row: int) -> ScoredPair:
        source, target = ids
        return ScoredPair(
            example,
            tuple(self.pair.source_symbols(source.tolist(), example.source)),
            tuple(self.pair.target_symbols(target.tolist(), example.source)),
            np.array(scores.log_probs[row, : len(target)]),
            np.array(scores.alignment[row, : len(target), : len(source)]),
            int(scores.correct[row, : len(target)].sum()),
            float(scores.scores[row]),
        )
