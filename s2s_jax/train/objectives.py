"""How wrong is the model? Sums and counts, never means: who adds up batches or devices divides once, at the end."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.model.copy_mechanism import IMPOSSIBLE
from s2s_jax.model.interface import InputPolicy, LogitsReader, Model, Noise, Params, unroll_targets
from s2s_jax.shapes import Batch, real
from s2s_jax.train.alignment_losses import coverage, diagonal, entropy, fertility, guided
from s2s_jax.train.feed import scheduled_sampling
from s2s_jax.train.scheduled_sampling import ScheduledSamplingConfig, probability
from s2s_jax.validation import Traced, at_least, check_fields, fraction, traced_value


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimized."""

    label_smoothing: float = 0.0
    """Share of the truth spread evenly over the whole vocabulary, the true token included (Keras' and torch's form)."""
    vocabulary_chunk: int = 0
    """Most tokens whose logits are held at once: less memory for large vocabularies, a third more work; 0 for all."""
    coverage: float = 0.0
    """Weight of looking at a source token again, what earlier steps gave it counted: See et al. 2017. 0 for none."""
    fertility: float = 0.0
    """Weight of how far each source token is from being looked at once in all: Cohn et al. 2016. 0 for none."""
    entropy: float = 0.0
    """Weight of how widely each step looks, in nats; below 0 looking widely is rewarded. 0 for none."""
    diagonal: float = 0.0
    """Weight of looking away from the diagonal: Tachibana et al. 2018. 0 for none."""
    diagonal_width: float = 0.2
    """How far from the diagonal looking is cheap, as a share of the sentence."""
    guided: float = 0.0
    """Weight of looking elsewhere than gold alignments say: Chen et al. 2016; a task's or data.alignment's. 0: none."""

    def __post_init__(self):
        check_fields(self, "loss")
        fraction("loss.label_smoothing", self.label_smoothing)
        at_least("loss.vocabulary_chunk", self.vocabulary_chunk, 0)
        for name in ("coverage", "fertility", "diagonal", "guided"):
            at_least(f"loss.{name}", getattr(self, name), 0)
        if not self.diagonal_width > 0:
            raise ValueError(f"loss.diagonal_width must be above 0, got {self.diagonal_width}")

    @property
    def terms(self) -> list[str]:
        """The terms on the alignment that have a weight; the others are not computed at all."""
        return [name for name in ("coverage", "fertility", "entropy", "diagonal", "guided") if getattr(self, name)]


class Sums(NamedTuple):
    """What one or more batches add up to."""

    nats: Float[Array, ""]  # minus log-probability of all real target tokens
    smoothed: Float[Array, ""]  # the same with label smoothing
    tokens: Float[Array, ""]  # real target tokens, EOS counted
    correct: Float[Array, ""]  # tokens predicted rightly, given what was fed
    auxiliary: Any = ()  # terms on the alignment times their weights, Float[Array, ""]; () where none has a weight

    @property
    def objective(self) -> Float[Array, ""]:
        """What training minimizes, over the tokens."""
        return self.smoothed if isinstance(self.auxiliary, tuple) else self.smoothed + self.auxiliary


class Losses(NamedTuple):
    """What each token adds to the sums; also that of padding, which nobody counts."""

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
    true = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    nats = smoothed = normalizer - true
    if label_smoothing != 0:
        # a slot that the sentence does not use has no word to be smoothed over
        spread = traced_value(label_smoothing)
        smoothed = (1 - spread) * nats + spread * (normalizer - mean_of_sayable(logits))
    return Losses(nats, smoothed, (true >= logits.max(-1)).astype(jnp.float32))


def mean_of_sayable(logits: Float[Array, "*B V"]) -> Float[Array, "*B"]:
    """The mean of all logits but those of what cannot be said."""
    return jnp.mean(logits, axis=-1, where=logits > IMPOSSIBLE / 2)


def sum_losses(losses: Losses, target: Int[Array, "B T"]) -> Sums:
    """The losses of real tokens added up."""
    weight = real(target).astype(jnp.float32)
    nats, smoothed, correct = ((loss * weight).sum() for loss in losses)
    return Sums(nats, smoothed, weight.sum(), correct)


def batch_sums(
    model: Model,
    params: Params,
    batch: Batch,
    key: Noise = None,
    *,
    config: LossConfig,
    policy: InputPolicy | None = None,
) -> Sums:
    """The sums of a batch; what is fed is the truth unless `feed` makes something else of it."""
    losses = functools.partial(token_losses, label_smoothing=config.label_smoothing)
    reader = LogitsReader(losses, batch.target, config.vocabulary_chunk) if config.vocabulary_chunk else None
    said = unroll_targets(model, params, batch, key, policy=policy, reader=reader)
    each = losses(said.logits, batch.target) if reader is None else Losses(*said.logits)
    return sum_losses(each, batch.target)._replace(auxiliary=on_alignment(said.alignment, batch, config=config))


def on_alignment(alignment: Float[Array, "B T S"], batch: Batch, *, config: LossConfig) -> Float[Array, ""] | tuple[()]:
    """The terms on the alignment times their weights, added up over a batch; () where none has a weight.

    Raises:
        ValueError: a guided loss of a batch without gold links.
    """
    if not config.terms:
        return ()
    if config.guided and not hasattr(batch.links, "shape"):
        raise ValueError(
            f"loss.guided={config.guided} needs the gold links of a batch, and this one has none; give "
            "Batch(source, target, links), or say loss.guided=0."
        )
    terms = {
        "coverage": coverage,
        "fertility": fertility,
        "entropy": entropy,
        "diagonal": functools.partial(diagonal, width=config.diagonal_width),
        "guided": functools.partial(guided, links=batch.links),
    }
    masks = {"target": real(batch.target), "source": real(batch.source)}
    with jax.named_scope("loss"):
        each = [getattr(config, name) * terms[name](alignment, **masks).sum() for name in config.terms]
    return functools.reduce(jnp.add, each)


Loss = Callable[[Params, Batch, Int[Array, ""], Key[Array, ""]], Sums]


def make_loss(model: Model, config: LossConfig, forcing: ScheduledSamplingConfig) -> Loss:
    """The training loss of a batch at a step, with noise."""

    def loss(params: Params, batch: Batch, step: Int[Array, ""], key: Key[Array, ""]) -> Sums:
        policy = None
        if not forcing.is_teacher_forcing:
            policy = scheduled_sampling(model, params, epsilon=probability(forcing, step), config=forcing)
        return batch_sums(model, params, batch, key, config=config, policy=policy)

    return loss


def plain_sums(model: Model, params: Params, batch: Batch, *, chunk: int = 0) -> Sums:
    """The sums of a batch without noise, smoothing and terms on the alignment: validation."""
    return batch_sums(model, params, batch, config=LossConfig(vocabulary_chunk=chunk))
