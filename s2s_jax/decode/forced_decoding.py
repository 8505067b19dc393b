"""Log-probabilities and alignments of given translations, the true token fed at each step."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.decode.batching import WINDOW, Ready, Shape, pad_rows, read_source, run_batches, windows
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore, log_coverage
from s2s_jax.decode.search import SearchConfig
from s2s_jax.model.fusion import fuse
from s2s_jax.model.interface import LogitsReader, Model, Params, scan_of_step, unroll_targets
from s2s_jax.shapes import Batch, real
from s2s_jax.text.copy_vocabulary import PairTokenizer
from s2s_jax.text.example import Example
from s2s_jax.text.tokenizers import append_eos

MOST_LOGITS = 1024  # tokens; with a vocabulary of 32,000 their logits take 131 MB
MOST_POSITION_PAIRS = 2**20  # rows x target x source positions; with a score of size 256 they take 1 GB


class ForcedScores(NamedTuple):
    """What forced decoding gives for a batch of pairs."""

    log_probs: Float[Array, "B T"]  # of each token, nats; 0 on padding
    alignment: Float[Array, "B T S"]  # given the whole target, where the model has a posterior; zeros on padding
    correct: Bool[Array, "B T"]  # whether the true token was the likeliest; False on padding
    scores: Float[Array, " B"]  # by which a search would rank them


def forced_decoding(
    model: Model,
    params: Params,
    batch: Batch,
    *,
    scoring: HypothesisScore = LIKELIHOOD,
    repetition_penalty: float = 1.0,
) -> ForcedScores:
    """The log-probability and the alignment of every target token, EOS included, given the true tokens before it.

    Where the logits of all tokens would be too many, only those of some are held at once; and long pairs are decoded
    step by step, since an unroll may hold something per pair of positions.

    Args:
        repetition_penalty: `search.rules.repetition_penalty`, which counts in the scores alone.
    """
    size, length = batch.target.shape
    if size * length * batch.source.shape[1] > MOST_POSITION_PAIRS:
        model = dataclasses.replace(model, unroll=scan_of_step(model.step))
    reader = LogitsReader(read_true_token, batch.target, MOST_LOGITS) if size * length > MOST_LOGITS else None
    steps = unroll_targets(model, params, batch, reader=reader)
    found = steps.logits
    if reader is None:
        flat = read_true_token(found.reshape(size * length, -1), batch.target.reshape(-1))
        found = jax.tree.map(lambda leaf: leaf.reshape(size, length), flat)
    true, total, likeliest = found
    weight = real(batch.target)
    unnormalized = 0.0 if isinstance(steps.given_log_normalizer, tuple) else total - steps.given_log_normalizer
    repeated = repeats(batch.target) if repetition_penalty != 1 else jnp.zeros(weight.shape, bool)
    ruled = jnp.where(repeated, repetition_penalty * true, true) + unnormalized
    true = jnp.where(weight, true + unnormalized, 0.0)
    alignment = jnp.where(weight[..., None], steps.alignment, 0.0)
    lengths = jnp.maximum(weight.sum(-1), 1).astype(jnp.float32)
    coverage = log_coverage(alignment.sum(1), real(batch.source)) if scoring.coverage else jnp.zeros(lengths.shape)
    scores = scoring.score(jnp.where(weight, ruled, 0.0).sum(-1), lengths, coverage)
    if model.posterior is not None:  # but a search ranks by what its steps see
        alignment = model.posterior(params, batch)
    return ForcedScores(true, alignment, weight & likeliest, scores)


def read_true_token(
    logits: Float[Array, "N V"], target: Int[Array, " N"]
) -> tuple[Float[Array, " N"], Float[Array, " N"], Bool[Array, " N"]]:
    """The log-probability of each target token, the log-normalizer, and whether that token is the likeliest."""
    log_probs = jax.nn.log_softmax(logits)
    true = jnp.take_along_axis(log_probs, target[:, None], axis=-1)[:, 0]
    return true, jax.nn.logsumexp(logits, axis=-1), true >= log_probs.max(-1)


def repeats(target: Int[Array, "B T"]) -> Bool[Array, "B T"]:
    """Whether the same token stands earlier in its row."""
    earlier = jnp.tril(jnp.ones((target.shape[1],) * 2, bool), -1)[None]
    return (earlier & (target[:, :, None] == target[:, None, :])).any(-1)


class ScoredPair(NamedTuple):
    """A given pair under forced decoding."""

    example: Example
    source_tokens: tuple[str, ...]  # the end token included
    tokens: tuple[str, ...]  # of the target, the end token included
    log_probs: Float[np.ndarray, " T"]  # of each target token, nats
    alignment: Float[np.ndarray, "T S"]
    correct: int  # target tokens that were the likeliest in their place
    score: float  # by which the search would rank it: search.length_normalization and what else counts there
    unread: int = 0  # source tokens beyond search.max_source

    @property
    def log_probability(self) -> float:
        """Of the whole target, nats."""
        return float(self.log_probs.sum())


class PairIds(NamedTuple):
    """A pair as token ids, the end tokens included."""

    source: Int[np.ndarray, " S"]
    target: Int[np.ndarray, " T"]
    unread: int  # source tokens beyond search.max_source
    features: tuple[Int[np.ndarray, " _"], ...] = ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """The tokens of each side."""
        return (len(self.source), len(self.target), *map(len, self.features))


class PairScorer:
    """A model and the tokenizers of both sides, ready to score pairs of lines.

    What else is to be known of pairs under forced decoding is a subclass, with another `_forced_decoding`, the compiled
    function of a batch, and `_scored_pair`, which makes the result of a pair of it.
    """

    def __init__(
        self, model: Model, pair: PairTokenizer, search: SearchConfig, language: tuple[Model, Params] | None = None
    ):
        """Of the search, all is used that changes the score of a given translation, and the bounds of a batch.

        Args:
            language: the language model of `search.language_model`, which counts in `ScoredPair.score` alone.
        """
        self.pair, self.search, self._language = pair, search, language
        options = {"scoring": search.scoring(), "repetition_penalty": search.rules.repetition_penalty}
        self._forced_decoding = jax.jit(functools.partial(forced_decoding, model, **options))
        if language is not None:
            fused = fuse(model, language[0], weight=search.language_weight)
            self._fused = jax.jit(functools.partial(forced_decoding, fused, **options))

    def score(
        self, params: Params, examples: Iterable[Example], *, window: int = 0, ready: Ready | None = None
    ) -> Iterator[Any]:
        """Log-probability and alignment of each pair, a `ScoredPair`, in the order of the input.

        Pairs are read one window at a time, so that memory does not grow with their number.

        Args:
            window: most pairs that are read before the first of them is scored; 0 for 16 full batches.
            ready: whether another pair comes at once; where none does, those that were read are scored.
        """
        for read in windows(examples, window or self.search.batch_size * WINDOW, ready):
            yield from self.score_encoded(params, read, list(map(self.encode, read)))

    def score_encoded(self, params: Params, examples: Sequence[Example], ids: Sequence[PairIds]) -> list[Any]:
        """As `score`, for pairs whose ids are known."""

        def compute(rows: list[int]) -> Any:
            members = [ids[row] for row in rows]
            return self._forced(params, members, self.search.batch_shape(members[0].lengths))

        results: dict[int, Any] = {}
        for rows, scores in run_batches(compute, [each.lengths for each in ids], **self.search.batching):
            for place, row in enumerate(rows):
                results[row] = self._scored_pair(examples[row], ids[row], scores, place)
        return [results[row] for row in range(len(examples))]

    def compile(self, params: Params, shape: Shape) -> None:
        """Compile the program of an invariant batch, by scoring a pair of nothing."""
        end = append_eos([])
        features = (end,) * len(self.pair.features.tokenizers)
        jax.block_until_ready(self._forced(params, [PairIds(end, end, 0, features)], shape))

    def _forced(self, params: Params, pairs: Sequence[PairIds], shape: Shape | None) -> Any:
        """Forced decoding of a batch."""
        source, target, *features = (
            pad_rows(side, shape)
            for side in zip(*((each.source, each.target, *each.features) for each in pairs), strict=True)
        )
        batch = Batch(source, target, features=tuple(features))
        scores = self._forced_decoding(params, batch)
        if self._language is None:
            return scores
        return scores._replace(scores=self._fused((params, self._language[1]), batch).scores)

    def encode(self, example: Example) -> PairIds:
        """The tokens of both sides of a pair."""
        source = self.pair.encode_source(example.source)
        read = read_source(source, self.search.max_source)
        target = append_eos(self.pair.encode_target(example.target, example.source))
        features = self.pair.features.with_eos(example.features)
        unread = len(source) + 1 - len(read)
        return PairIds(read, self.pair.drop_absent_slots(read, target), unread, features)

    def _scored_pair(self, example: Example, ids: PairIds, scores: Any, row: int) -> Any:
        source, target, unread, _ = ids
        order = self.pair.reading_order(target.tolist())
        return ScoredPair(
            example,
            tuple(self.pair.source_symbols(source.tolist(), example.source)),
            tuple(self.pair.target_symbols(target[order].tolist(), example.source)),
            np.array(scores.log_probs[row, order]),
            np.array(scores.alignment[row, order, : len(source)]),
            int(scores.correct[row, : len(target)].sum()),
            float(scores.scores[row]),
            unread,
        )
