"""On which work is speed measured? Models of fixed size on random ids, so that a benchmark runs anywhere."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from s2s_jax.bench.flops import multiplied
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.decoder import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import Model, Params, unroll_targets
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import EOS, Batch
from s2s_jax.text.batches import BatchConfig, BatchPlan, Pairs
from s2s_jax.train.objectives import LossConfig
from s2s_jax.train.scheduled_sampling import ScheduledSamplingConfig

SHAPES = 8  # of training batches
FIRST_WORD = 4  # below it are PAD, BOS, EOS, UNK
NEVER = -1e9  # bias of EOS in decoding: every search runs all its steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long the lines of a corpus are, EOS not counted."""

    mean: float
    """Tokens of a source line."""
    spread: float
    """Standard deviation of the source lengths over their mean."""
    ratio: float
    """Target tokens a source token."""
    noise: float
    """Standard deviation of that ratio over its mean."""
    longest: int
    """No line has more tokens."""


# set by hand to be like Multi30k, English to German in words; not counted from it
MULTI30K = Lengths(mean=13.0, spread=0.31, ratio=0.955, noise=0.15, longest=41)
# set by hand to be like CMUdict, letters to sounds; not counted from it
WORDS = Lengths(mean=7.5, spread=0.27, ratio=0.85, noise=0.1, longest=20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A model and the batches that it is measured on; like an experiment's, each setting can be overridden."""

    meaning: str
    """What it is, in words."""
    model: ModelConfig
    """The network."""
    loss: LossConfig = LossConfig()
    """What is minimized."""
    forcing: ScheduledSamplingConfig = ScheduledSamplingConfig()
    """What the decoder is fed while it learns."""
    parts: int = 1
    """Parts that a batch is computed in, one after the other."""
    source_vocabulary: int
    """Tokens of the source side."""
    target_vocabulary: int
    """Tokens of the target side."""
    sentences: int
    """Pairs in a training batch."""
    lengths: Lengths = MULTI30K
    """How long the lines are."""
    steps: int = 30
    """Tokens that every search writes."""


WORKLOADS = {
    "W1": Workload(
        meaning="bi-LSTM 1 x (256+256), LSTM 512, general, input feeding",
        model=ModelConfig(
            embedding=256,
            encoder=EncoderConfig(cell="lstm", size=256),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="lstm", size=512),
        ),
        source_vocabulary=5921,
        target_vocabulary=7859,
        sentences=64,
    ),
    "W2": Workload(
        meaning="bi-LSTM 2 x (512+512), LSTM 2 x 1024, additive, input feeding",
        model=ModelConfig(
            embedding=256,
            encoder=EncoderConfig(cell="lstm", size=512, layers=2),
            attention=AttentionConfig(score="additive", size=512),
            decoder=DecoderConfig(cell="lstm", size=1024, layers=2),
        ),
        source_vocabulary=5921,
        target_vocabulary=7859,
        sentences=128,
    ),
    "W3": Workload(
        meaning="bi-LSTM 2 x (512+512), LSTM 4 x 1024 residual, additive, input feeding, vocabulary 32k",
        model=ModelConfig(
            embedding=1024,
            encoder=EncoderConfig(cell="lstm", size=512, layers=2),
            attention=AttentionConfig(score="additive", size=1024),
            decoder=DecoderConfig(cell="lstm", size=1024, layers=4, residual_from=2),
        ),
        source_vocabulary=32_000,
        target_vocabulary=32_000,
        sentences=256,
    ),
    "W4": Workload(
        meaning="bi-GRU (256+256), GRU 256, general, input feeding, letters to sounds",
        model=ModelConfig(
            embedding=128,
            encoder=EncoderConfig(cell="gru", size=256),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="gru", size=256),
        ),
        source_vocabulary=32,
        target_vocabulary=76,
        sentences=512,
        lengths=WORDS,
        steps=20,
    ),
}


def built(work: Workload) -> tuple[Model, Params]:
    """The model of a work, and its parameters from seed 0."""
    model = build(work.model, source_vocabulary=work.source_vocabulary, target_vocabulary=work.target_vocabulary)
    return model, model.init(jax.random.key(0))


def endless(params: Params) -> Params:
    """The parameters of our own models with an EOS that never wins: every search runs all its steps."""
    decoder = params["decoder"]
    return {**params, "decoder": {**decoder, "output_bias": decoder["output_bias"].at[EOS].set(NEVER)}}


def drawn_lengths(lengths: Lengths, count: int, *, seed: int = 0) -> Int[np.ndarray, "N 2"]:
    """Source and target lengths of random pairs, log-normal, EOS counted."""
    chance = np.random.default_rng(seed)
    spread = np.sqrt(np.log1p(np.array([lengths.spread, lengths.noise]) ** 2))
    words, ratio = np.exp(spread * chance.standard_normal((count, 2)) - spread**2 / 2).T
    source = np.clip(np.rint(lengths.mean * words), 1, lengths.longest)
    target = np.clip(np.rint(lengths.ratio * ratio * source), 1, lengths.longest)
    return np.stack([source, target], axis=1).astype(np.int64) + 1


def training_batches(work: Workload, count: int) -> list[Batch]:
    """Batches of random ids as training sees them: grouped by length, padded to few shapes."""
    chance = np.random.default_rng(1)
    lengths = drawn_lengths(work.lengths, work.sentences * 64)
    sides = [
        [_line(chance, vocabulary, int(length)) for length in side]
        for vocabulary, side in zip((work.source_vocabulary, work.target_vocabulary), lengths.T, strict=True)
    ]
    plan = BatchPlan(Pairs(*sides), BatchConfig(size=work.sentences, tokens=1 << 30, buckets=SHAPES), seed=0)
    full = (batch for batch in map(plan.batch, range(plan.per_epoch)) if batch.target[-1, 0])
    return [batch for batch, _ in zip(full, range(count), strict=False)]


def typical_batch(work: Workload) -> Batch:
    """A batch in the middle by its number of target steps."""
    batches = training_batches(work, 64)
    return sorted(batches, key=lambda batch: batch.target.shape[1])[len(batches) // 2]


def decoding_batches(work: Workload, count: int, *, rows: int) -> list[Batch]:
    """Sources of like length, as a sorted file has them; the targets are not used."""
    chance = np.random.default_rng(2)
    quantiles = np.sort(drawn_lengths(work.lengths, 1000)[:, 0])
    middles = quantiles[(np.arange(count) * 2 + 1) * len(quantiles) // (2 * count)]
    lines = [[_line(chance, work.source_vocabulary, int(length)) for _ in range(rows)] for length in middles]
    return [Batch(np.stack(some), np.stack(some)) for some in lines]


def _line(chance: np.random.Generator, vocabulary: int, length: int) -> Int[np.ndarray, " L"]:
    return np.append(chance.integers(FIRST_WORD, vocabulary, length - 1), EOS).astype(np.int32)


def training_flops(work: Workload) -> float:
    """Floating-point operations a target token that training cannot do without: forward, and twice that backward.

    Counted in the products of `forced` on one sentence of mean length.
    """
    source, target = (round(mean) for mean in drawn_lengths(work.lengths, 10_000).mean(0))
    model, params = _abstract(work)
    batch = Batch(_ids(1, source), _ids(1, target))
    return 3 * multiplied(lambda params, batch: unroll_targets(model, params, batch), params, batch) / target


def decoding_flops(work: Workload, width: int) -> float:
    """Floating-point operations a sentence: one encoding, and a step for each token and each hypothesis."""
    model, params = _abstract(work)
    source = _ids(1, round(drawn_lengths(work.lengths, 10_000)[:, 0].mean()))
    memory, state = jax.eval_shape(model.encode, params, source)
    a_step = multiplied(model.step, params, memory, state, _ids(1))
    return multiplied(model.encode, params, source) + work.steps * width * a_step


def _abstract(work: Workload) -> tuple[Model, Params]:
    model = build(work.model, source_vocabulary=work.source_vocabulary, target_vocabulary=work.target_vocabulary)
    return model, jax.eval_shape(model.init, jax.random.key(0))


def _ids(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.int32)
