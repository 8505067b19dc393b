"""Training objectives. They return sums and counts, never means: whoever adds batches or devices divides at the end.

An objective of the user's own is a function with the signature of `Objective` and an entry of `OBJECTIVES`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.model.interface import InputPolicy, LogitsReader, Model, Noise, Params, unroll_targets
from s2s_jax.model.ops.logits import IMPOSSIBLE, chosen_logits
from s2s_jax.model.output_distribution import SPARSE_OUTPUTS, entmax_loss
from s2s_jax.shapes import Batch, real
from s2s_jax.training.alignment_losses import coverage_loss, diagonal_loss, entropy_loss, fertility_loss, guided_loss
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig, scheduled_sampling
from s2s_jax.training.schedules import value_at
from s2s_jax.training.sequence_level.config import SequenceTraining
from s2s_jax.training.sequence_level.estimators import Estimator, minimum_risk, reinforce, self_critical
from s2s_jax.training.sequence_level.raml import raml
from s2s_jax.validation import Traced, at_least, check_fields, fraction, one_of, traced_value

ObjectiveName = Literal["cross-entropy", "minimum-risk", "reinforce", "self-critical", "raml"]
DEFAULT_SEQUENCE = SequenceTraining()
BESIDE_CROSS_ENTROPY = 3  # folded into a key: `unroll_targets` splits the same key, into numbers 0 to 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimized."""

    objective: ObjectiveName = "cross-entropy"
    """What is minimized: cross-entropy of the target tokens; a loss of whole outputs, minimum-risk, reinforce,
    self-critical or raml, mixed with cross-entropy (`sequence_training`); or an entry of yours in OBJECTIVES."""
    label_smoothing: float = 0.0
    """Probability mass spread evenly over the whole vocabulary, the true token included (as in Keras and torch)."""
    vocabulary_chunk: int = 0
    """Most tokens whose logits are held at once: less memory for large vocabularies, a third more work; 0 for all."""
    coverage: float = 0.0
    """Weight of the coverage loss, attention to source tokens already attended to: See et al. 2017. 0 for none."""
    fertility: float = 0.0
    """Weight of the squared distance of each source token's total attention from 1: Cohn et al. 2016. 0 for none."""
    entropy: float = 0.0
    """Weight of the entropy of attention per step, nats; below 0 a high entropy is rewarded. 0 for none."""
    diagonal: float = 0.0
    """Weight of attention away from the diagonal: Tachibana et al. 2018. 0 for none."""
    diagonal_width: float = 0.2
    """Width of the band around the diagonal that costs little, as a fraction of the sentence."""
    guided: float = 0.0
    """Weight of the cross-entropy of attention with gold alignments, those of the task or of data.alignment: Chen et
    al. 2016. 0 for none."""

    def __post_init__(self):
        check_fields(self, "loss")
        one_of("loss.objective", self.objective, OBJECTIVES)
        fraction("loss.label_smoothing", self.label_smoothing)
        at_least("loss.vocabulary_chunk", self.vocabulary_chunk, 0)
        for name in ("coverage", "fertility", "diagonal", "guided"):
            at_least(f"loss.{name}", getattr(self, name), 0)
        if not self.diagonal_width > 0:
            raise ValueError(f"loss.diagonal_width must be above 0, got {self.diagonal_width}")

    @property
    def terms(self) -> list[str]:
        """The alignment terms that have a weight; only these are computed."""
        return [name for name in ("coverage", "fertility", "entropy", "diagonal", "guided") if getattr(self, name)]


class LossSums(NamedTuple):
    """Sums over one or more batches."""

    nats: Float[Array, ""]  # negative log-probability of all real target tokens
    smoothed: Float[Array, ""]  # the same with label smoothing
    tokens: Float[Array, ""]  # real target tokens, EOS included
    correct: Float[Array, ""]  # tokens for which the true one had the largest logit
    auxiliary: Any = ()  # alignment terms times their weights, Float[Array, ""]; () where none has a weight
    reward: Any = ()  # of the candidates of each sentence the mean, Float[Array, ""]; () without sequence-level loss
    sentences: Any = ()  # Float[Array, ""]; () without

    @property
    def objective(self) -> Float[Array, ""]:
        """The sum that training minimizes, divided by the tokens."""
        return self.smoothed if isinstance(self.auxiliary, tuple) else self.smoothed + self.auxiliary


class Losses(NamedTuple):
    """The contribution of each token, padding included; `sum_losses` leaves padding out."""

    nats: Float[Array, "*B"]
    smoothed: Float[Array, "*B"]
    correct: Float[Array, "*B"]  # 0 or 1


def token_losses(
    logits: Float[Array, "*B V"], target: Int[Array, "*B"], *, label_smoothing: float | Traced = 0.0
) -> Losses:
    """Cross-entropy of each token.

    With smoothing s: -(1 - s) log p(true) - s mean log p. Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    with jax.named_scope("loss"):
        return _token_losses(logits, target, label_smoothing)


def _token_losses(logits, target, label_smoothing: float | Traced) -> Losses:
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    true = chosen_logits(logits, target)
    nats = smoothed = normalizer - true
    if label_smoothing != 0:
        # copy slots that a sentence does not use have no word and get no probability mass
        spread = traced_value(label_smoothing)
        smoothed = (1 - spread) * nats + spread * (normalizer - mean_of_possible_logits(logits))
    return Losses(nats, smoothed, (true >= logits.max(-1)).astype(jnp.float32))


def mean_of_possible_logits(logits: Float[Array, "*B V"]) -> Float[Array, "*B"]:
    """The mean of all logits but those of impossible tokens."""
    return jnp.mean(logits, axis=-1, where=logits > IMPOSSIBLE / 2)


def sparse_losses(scores: Float[Array, "*B V"], target: Int[Array, "*B"], *, output: str) -> Losses:
    """The Fenchel-Young loss of each token, in the place of nats, for a sparse distribution over the vocabulary."""
    with jax.named_scope("loss"):
        loss = entmax_loss(output, scores, target)
        true = chosen_logits(scores, target)
        return Losses(loss, loss, (true >= scores.max(-1)).astype(jnp.float32))


def sum_losses(losses: Losses, target: Int[Array, "B T"]) -> LossSums:
    """The losses of real tokens, summed."""
    weight = real(target).astype(jnp.float32)
    nats, smoothed, correct = ((loss * weight).sum() for loss in losses)
    return LossSums(nats, smoothed, weight.sum(), correct)


def batch_sums(
    model: Model,
    params: Params,
    batch: Batch,
    key: Noise = None,
    *,
    config: LossConfig,
    policy: InputPolicy | None = None,
) -> LossSums:
    """The sums of a batch under teacher forcing, or under an input policy."""
    losses = functools.partial(token_losses, label_smoothing=config.label_smoothing)
    if model.output in SPARSE_OUTPUTS:
        losses = functools.partial(sparse_losses, output=model.output)
    chunk = config.vocabulary_chunk
    reader = LogitsReader(losses, batch.target, chunk, reads_scores=True) if chunk else None
    output = unroll_targets(model, params, batch, key, policy=policy, reader=reader)
    logits = output.logits if isinstance(output.scores, tuple) else output.scores
    each = losses(logits, batch.target) if reader is None else Losses(*output.logits)
    return sum_losses(each, batch.target)._replace(auxiliary=alignment_terms(output.alignment, batch, config=config))


def alignment_terms(
    alignment: Float[Array, "B T S"], batch: Batch, *, config: LossConfig
) -> Float[Array, ""] | tuple[()]:
    """The alignment terms times their weights, summed over a batch; () where none has a weight.

    Raises:
        ValueError: a guided loss of a batch without gold links.
    """
    if not config.terms:
        return ()
    if config.guided and not hasattr(batch.links, "shape"):
        raise ValueError(
            f"loss.guided={config.guided} needs the gold links of a batch, and this one has none; give "
            "Batch(source, target, links), or set loss.guided=0."
        )
    terms = {
        "coverage": coverage_loss,
        "fertility": fertility_loss,
        "entropy": entropy_loss,
        "diagonal": functools.partial(diagonal_loss, width=config.diagonal_width),
        "guided": functools.partial(guided_loss, links=batch.links),
    }
    masks = {"target": real(batch.target), "source": real(batch.source)}
    with jax.named_scope("loss"):
        each = [getattr(config, name) * terms[name](alignment, **masks).sum() for name in config.terms]
    return functools.reduce(jnp.add, each)


Loss = Callable[[Params, Batch, Int[Array, ""], Key[Array, ""]], LossSums]


class Objective(Protocol):
    """The signature of a training objective: the sums of a batch, of which `LossSums.objective` is minimized."""

    def __call__(
        self,
        model: Model,
        params: Params,
        batch: Batch,
        step: Int[Array, ""],
        key: Key[Array, ""],
        /,
        *,
        loss: LossConfig,
        sampling: ScheduledSamplingConfig,
        sequence: SequenceTraining,
    ) -> LossSums:
        """The sums of a batch at a training step; `key` is for dropout and sampling."""
        ...


def cross_entropy(
    model: Model,
    params: Params,
    batch: Batch,
    step: Int[Array, ""],
    key: Key[Array, ""],
    *,
    loss: LossConfig,
    sampling: ScheduledSamplingConfig,
    sequence: SequenceTraining = DEFAULT_SEQUENCE,
) -> LossSums:
    """Cross-entropy with label smoothing and alignment terms, under teacher forcing or scheduled sampling."""
    policy = None
    if not sampling.is_teacher_forcing:
        policy = scheduled_sampling(model, params, epsilon=value_at(sampling, step), config=sampling)
    return batch_sums(model, params, batch, key, config=loss, policy=policy)


@dataclasses.dataclass(frozen=True)
class SequenceLevel:
    """The objective w cross-entropy + (1 - w) estimate, summed over sentences; `sequence_training` has w."""

    estimate: Estimator

    def __call__(
        self,
        model: Model,
        params: Params,
        batch: Batch,
        step: Int[Array, ""],
        key: Key[Array, ""],
        *,
        loss: LossConfig,
        sampling: ScheduledSamplingConfig,
        sequence: SequenceTraining,
    ) -> LossSums:
        """Cross-entropy is computed in any case, since it is recorded; without a gradient where it has no weight."""
        mixed = sequence.config.has_cross_entropy
        known = params if mixed else jax.lax.stop_gradient(params)
        sums = cross_entropy(model, known, batch, step, key, loss=loss, sampling=sampling, sequence=sequence)
        own_key = jax.random.fold_in(key, BESIDE_CROSS_ENTROPY)
        with jax.named_scope("candidates"):
            estimate = self.estimate(model, params, batch, own_key, sequence=sequence, chunk=loss.vocabulary_chunk)
        filled = real(batch.target).any(-1)
        cost, reward = (jnp.where(filled, each, 0.0).sum() for each in estimate)
        weight = value_at(sequence.config, step) if mixed else jnp.zeros(())
        return sums._replace(
            smoothed=weight * sums.smoothed + (1 - weight) * cost,
            auxiliary=jax.tree.map(lambda terms: weight * terms, sums.auxiliary),
            reward=reward,
            sentences=filled.sum().astype(jnp.float32),
        )


OBJECTIVES: dict[str, Objective] = {
    "cross-entropy": cross_entropy,
    "minimum-risk": SequenceLevel(minimum_risk),
    "reinforce": SequenceLevel(reinforce),
    "self-critical": SequenceLevel(self_critical),
    "raml": SequenceLevel(raml),
}


def make_loss(
    model: Model,
    config: LossConfig,
    sampling: ScheduledSamplingConfig,
    sequence: SequenceTraining = DEFAULT_SEQUENCE,
) -> Loss:
    """The training loss of a batch at a step, with noise."""
    objective = OBJECTIVES[config.objective]

    def loss(params: Params, batch: Batch, step: Int[Array, ""], key: Key[Array, ""]) -> LossSums:
        return objective(model, params, batch, step, key, loss=config, sampling=sampling, sequence=sequence)

    return loss


def plain_sums(model: Model, params: Params, batch: Batch, *, chunk: int = 0) -> LossSums:
    """The sums of a batch under teacher forcing, without noise, label smoothing and alignment terms: validation."""
    return batch_sums(model, params, batch, config=LossConfig(vocabulary_chunk=chunk))
