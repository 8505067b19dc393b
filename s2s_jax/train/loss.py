"""How wrong is the model? Sums and counts, never means: who adds up batches or devices divides once, at the end."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.choices import at_least, share
from s2s_jax.model.copying import NEVER
from s2s_jax.model.interface import Feed, Model, Noise, Params, Reading, forced
from s2s_jax.shapes import Batch, real
from s2s_jax.train.feed import scheduled_sampling
from s2s_jax.train.forcing import ForcingConfig, probability


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    label_smoothing: float = 0.0
    """Share of the truth spread evenly over the whole vocabulary, the true token included (Keras' and torch's form)."""
    chunk: int = 0
    """Most tokens whose logits are held at once: less memory for large vocabularies, a third more work; 0 for all."""

    def __post_init__(self):
        share("loss.label_smoothing", self.label_smoothing)
        at_least("loss.chunk", self.chunk, 0)


class Sums(NamedTuple):
    """What one or more batches add up to."""

    nats: Float[Array, ""]  # minus log-probability of all real target tokens
    smoothed: Float[Array, ""]  # the same with label smoothing: what is minimised
    tokens: Float[Array, ""]  # real target tokens, EOS counted
    correct: Float[Array, ""]  # tokens predicted rightly, given what was fed


class Losses(NamedTuple):
    """What each token adds to the sums; also that of padding, which nobody counts."""

    nats: Float[Array, "*B"]
    smoothed: Float[Array, "*B"]
    correct: Float[Array, "*B"]  # 0 or 1


def token_losses(logits: Float[Array, "*B V"], target: Int[Array, "*B"], *, label_smoothing: float = 0.0) -> Losses:
    """Cross-entropy of each token.

    With smoothing s: -(1 - s) log p(true) - s mean log p. Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    with jax.named_scope("loss"):
        return _token_losses(logits, target, label_smoothing)


def _token_losses(logits, target, label_smoothing: float) -> Losses:
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    true = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    nats = smoothed = normaliser - true
    if label_smoothing:
        # a slot that the sentence does not use has no word to be smoothed over
        smoothed = (1 - label_smoothing) * nats + label_smoothing * (normaliser - mean_of_sayable(logits))
    return Losses(nats, smoothed, (true >= logits.max(-1)).astype(jnp.float32))


def mean_of_sayable(logits: Float[Array, "*B V"]) -> Float[Array, "*B"]:
    """The mean of all logits but those of what cannot be said."""
    return jnp.mean(logits, axis=-1, where=logits > NEVER / 2)


def summed(losses: Losses, target: Int[Array, "B T"]) -> Sums:
    """The losses of real tokens added up."""
    weight = real(target).astype(jnp.float32)
    nats, smoothed, correct = ((loss * weight).sum() for loss in losses)
    return Sums(nats, smoothed, weight.sum(), correct)


def batch_sums(
    model: Model, params: Params, batch: Batch, key: Noise = None, *, config: LossConfig, feed: Feed | None = None
) -> Sums:
    """The sums of a batch; what is fed is the truth unless `feed` makes something else of it."""
    losses = functools.partial(token_losses, label_smoothing=config.label_smoothing)
    if config.chunk:
        reading = Reading(losses, batch.target, config.chunk)
        return summed(Losses(*forced(model, params, batch, key, feed=feed, reading=reading).logits), batch.target)
    return summed(losses(forced(model, params, batch, key, feed=feed).logits, batch.target), batch.target)


Loss = Callable[[Params, Batch, Int[Array, ""], Key[Array, ""]], Sums]


def make_loss(model: Model, config: LossConfig, forcing: ForcingConfig) -> Loss:
    """The training loss of a batch at a step, with noise."""

    def loss(params: Params, batch: Batch, step: Int[Array, ""], key: Key[Array, ""]) -> Sums:
        feed = None
        if not forcing.always_true:
            feed = scheduled_sampling(model, params, epsilon=probability(forcing, step), config=forcing)
        return batch_sums(model, params, batch, key, config=config, feed=feed)

    return loss


def plain_sums(model: Model, params: Params, batch: Batch, *, chunk: int = 0) -> Sums:
    """The sums of a batch without noise and without smoothing: validation."""
    return batch_sums(model, params, batch, config=LossConfig(chunk=chunk))
