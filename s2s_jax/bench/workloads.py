"""The workloads that speed is measured on: models of fixed size on random ids, so that a benchmark runs anywhere."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from s2s_jax.bench.flops import product_flops
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.decoder.config import DecoderConfig
from s2s_jax.model.encoder import EncoderConfig
from s2s_jax.model.interface import Model, Params, unroll_targets
from s2s_jax.model.seq2seq import ModelConfig, build
from s2s_jax.shapes import EOS, Batch
from s2s_jax.text.batches import BatchConfig, BatchPlan, Pairs
from s2s_jax.text.ragged import Ragged
from s2s_jax.training.objectives import LossConfig
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig

TRAINING_SHAPES = 8
FIRST_WORD = 4  # below it are PAD, BOS, EOS, UNK
EOS_BIAS = -1e9  # in decoding, so that every search runs all its steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthDistribution:
    """The lengths of the lines of a corpus in tokens, without EOS."""

    mean: float
    """Mean length of a source line."""
    spread: float
    """Standard deviation of the source lengths over their mean."""
    ratio: float
    """Target tokens per source token."""
    noise: float
    """Standard deviation of that ratio over its mean."""
    longest: int
    """Largest length."""


# chosen to resemble Multi30k, English to German in words; not estimated from it
MULTI30K = LengthDistribution(mean=13.0, spread=0.31, ratio=0.955, noise=0.15, longest=41)
# chosen to resemble CMUdict, letters to phones; not estimated from it
CMUDICT = LengthDistribution(mean=7.5, spread=0.27, ratio=0.85, noise=0.1, longest=20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A model and the batches that it is measured on; every setting can be overridden, as those of experiments."""

    description: str
    """Cells, sizes and score."""
    model: ModelConfig
    """Architecture."""
    loss: LossConfig = LossConfig()
    """Training objective."""
    scheduled_sampling: ScheduledSamplingConfig = ScheduledSamplingConfig()
    """Decoder inputs in training."""
    accumulate: int = 1
    """Parts of a batch whose gradients are accumulated."""
    source_vocabulary: int
    """Size of the source vocabulary."""
    target_vocabulary: int
    """Size of the target vocabulary."""
    batch_size: int
    """Pairs per training batch."""
    lengths: LengthDistribution = MULTI30K
    """Lengths of the lines."""
    max_length: int = 30
    """Tokens that every search generates."""


WORKLOADS = {
    "W1": Workload(
        description="bi-LSTM 1 x (256+256), LSTM 512, general, input feeding",
        model=ModelConfig(
            embedding=256,
            encoder=EncoderConfig(cell="lstm", size=256),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="lstm", size=512),
        ),
        source_vocabulary=5921,
        target_vocabulary=7859,
        batch_size=64,
    ),
    "W2": Workload(
        description="bi-LSTM 2 x (512+512), LSTM 2 x 1024, additive, input feeding",
        model=ModelConfig(
            embedding=256,
            encoder=EncoderConfig(cell="lstm", size=512, layers=2),
            attention=AttentionConfig(score="additive", size=512),
            decoder=DecoderConfig(cell="lstm", size=1024, layers=2),
        ),
        source_vocabulary=5921,
        target_vocabulary=7859,
        batch_size=128,
    ),
    "W3": Workload(
        description="bi-LSTM 2 x (512+512), LSTM 4 x 1024 residual, additive, input feeding, vocabulary 32k",
        model=ModelConfig(
            embedding=1024,
            encoder=EncoderConfig(cell="lstm", size=512, layers=2),
            attention=AttentionConfig(score="additive", size=1024),
            decoder=DecoderConfig(cell="lstm", size=1024, layers=4, residual_from=2),
        ),
        source_vocabulary=32_000,
        target_vocabulary=32_000,
        batch_size=256,
    ),
    "W4": Workload(
        description="bi-GRU (256+256), GRU 256, general, input feeding, letters to phones",
        model=ModelConfig(
            embedding=128,
            encoder=EncoderConfig(cell="gru", size=256),
            attention=AttentionConfig(score="general"),
            decoder=DecoderConfig(cell="gru", size=256),
        ),
        source_vocabulary=32,
        target_vocabulary=76,
        batch_size=512,
        lengths=CMUDICT,
        max_length=20,
    ),
}


def build_workload(workload: Workload) -> tuple[Model, Params]:
    """The model of a workload, and its parameters from seed 0."""
    model = build(
        workload.model, source_vocabulary=workload.source_vocabulary, target_vocabulary=workload.target_vocabulary
    )
    return model, model.init(jax.random.key(0))


def without_eos(params: Params) -> Params:
    """The parameters with a bias that keeps EOS from being generated: every search runs all its steps."""
    decoder = params["decoder"]
    return {**params, "decoder": {**decoder, "output_bias": decoder["output_bias"].at[EOS].set(EOS_BIAS)}}


def sample_lengths(lengths: LengthDistribution, count: int, *, seed: int = 0) -> Int[np.ndarray, "N 2"]:
    """Source and target lengths of random pairs, log-normal, including EOS."""
    rng = np.random.default_rng(seed)
    spread = np.sqrt(np.log1p(np.array([lengths.spread, lengths.noise]) ** 2))
    words, ratio = np.exp(spread * rng.standard_normal((count, 2)) - spread**2 / 2).T
    source = np.clip(np.rint(lengths.mean * words), 1, lengths.longest)
    target = np.clip(np.rint(lengths.ratio * ratio * source), 1, lengths.longest)
    return np.stack([source, target], axis=1).astype(np.int64) + 1


def training_batches(workload: Workload, count: int) -> list[Batch]:
    """Batches of random ids, grouped by length and padded to few shapes as in training."""
    rng = np.random.default_rng(1)
    lengths = sample_lengths(workload.lengths, workload.batch_size * 64)
    sources, targets = (
        Ragged.of(_random_line(rng, vocabulary, int(length)) for length in side)
        for vocabulary, side in zip((workload.source_vocabulary, workload.target_vocabulary), lengths.T, strict=True)
    )
    config = BatchConfig(size=workload.batch_size, tokens=1 << 30, buckets=TRAINING_SHAPES)
    plan = BatchPlan(Pairs(sources, targets), config, seed=0)
    full = (batch for batch in map(plan.batch, range(plan.per_epoch)) if batch.target[-1, 0])
    return [batch for batch, _ in zip(full, range(count), strict=False)]


def median_batch(workload: Workload) -> Batch:
    """The batch with the median number of target steps."""
    batches = training_batches(workload, 64)
    return sorted(batches, key=lambda batch: batch.target.shape[1])[len(batches) // 2]


def decoding_batches(workload: Workload, count: int, *, rows: int) -> list[Batch]:
    """Batches of sources of similar length, as in a sorted file; their targets are not used."""
    rng = np.random.default_rng(2)
    quantiles = np.sort(sample_lengths(workload.lengths, 1000)[:, 0])
    middles = quantiles[(np.arange(count) * 2 + 1) * len(quantiles) // (2 * count)]
    lines = [[_random_line(rng, workload.source_vocabulary, int(length)) for _ in range(rows)] for length in middles]
    return [Batch(np.stack(sources), np.stack(sources)) for sources in lines]


def _random_line(rng: np.random.Generator, vocabulary: int, length: int) -> Int[np.ndarray, " L"]:
    return np.append(rng.integers(FIRST_WORD, vocabulary, length - 1), EOS).astype(np.int32)


def training_flops(workload: Workload) -> float:
    """Necessary floating-point operations per target token of training: forward, and twice that backward.

    The products of `unroll_targets` on one sentence of mean length.
    """
    source, target = (round(mean) for mean in sample_lengths(workload.lengths, 10_000).mean(0))
    model, params = abstract_workload(workload)
    batch = Batch(_ids(1, source), _ids(1, target))
    return 3 * product_flops(lambda params, batch: unroll_targets(model, params, batch), params, batch) / target


def decoding_flops(workload: Workload, width: int) -> float:
    """Floating-point operations per sentence: one encoding, and one step per token and hypothesis."""
    model, params = abstract_workload(workload)
    source = _ids(1, round(sample_lengths(workload.lengths, 10_000)[:, 0].mean()))
    memory, state = jax.eval_shape(model.encode, params, source)
    step_flops = product_flops(model.step, params, memory, state, _ids(1))
    return product_flops(model.encode, params, source) + workload.max_length * width * step_flops


def abstract_workload(workload: Workload) -> tuple[Model, Params]:
    """The model of a workload, and the shapes of its parameters."""
    model = build(
        workload.model, source_vocabulary=workload.source_vocabulary, target_vocabulary=workload.target_vocabulary
    )
    return model, jax.eval_shape(model.init, jax.random.key(0))


def _ids(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.int32)
