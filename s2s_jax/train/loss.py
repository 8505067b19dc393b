"""How wrong is the model? Sums and counts, never means: who adds up batches or devices divides once, at the end."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.choices import share
from s2s_jax.model.interface import Model, Params, forced
from s2s_jax.shapes import Batch, real
from s2s_jax.train.forcing import ForcingConfig, probability
from s2s_jax.train.unroll import mixed


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What is minimised."""

    label_smoothing: float = 0.0
    """Share of the truth spread evenly over the whole vocabulary, the true token included (Keras' and torch's form)."""

    def __post_init__(self):
        share("loss.label_smoothing", self.label_smoothing)


class Sums(NamedTuple):
    """What one or more batches add up to."""

    nats: Float[Array, ""]  # minus log-probability of all real target tokens
    smoothed: Float[Array, ""]  # the same with label smoothing: what is minimised
    tokens: Float[Array, ""]  # real target tokens, EOS counted
    correct: Float[Array, ""]  # tokens predicted rightly, given what was fed


def token_sums(logits: Float[Array, "B T V"], target: Int[Array, "B T"], *, label_smoothing: float = 0.0) -> Sums:
    """Cross-entropy summed over real tokens.

    With smoothing s: -(1 - s) log p(true) - s mean log p. Szegedy et al. 2016, arXiv:1512.00567, section 7.
    """
    weight = real(target).astype(jnp.float32)
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    true = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    nats = ((normaliser - true) * weight).sum()
    smoothed = nats
    if label_smoothing:
        spread = ((normaliser - logits.mean(-1)) * weight).sum()
        smoothed = (1 - label_smoothing) * nats + label_smoothing * spread
    correct = jnp.where(true >= logits.max(-1), weight, 0.0).sum()
    return Sums(nats, smoothed, weight.sum(), correct)


Loss = Callable[[Params, Batch, Int[Array, ""], Key[Array, ""]], Sums]


def make_loss(model: Model, config: LossConfig, forcing: ForcingConfig) -> Loss:
    """The training loss of a batch at a step, with noise."""

    def loss(params: Params, batch: Batch, step: Int[Array, ""], key: Key[Array, ""]) -> Sums:
        if forcing.always_true:
            steps = forced(model, params, batch, key)
        else:
            epsilon = probability(forcing, step)
            steps = mixed(model, params, batch, epsilon=epsilon, config=forcing, key=key)
        return token_sums(steps.logits, batch.target, label_smoothing=config.label_smoothing)

    return loss


def plain_sums(model: Model, params: Params, batch: Batch) -> Sums:
    """The sums of a batch without noise and without smoothing: validation."""
    return token_sums(forced(model, params, batch).logits, batch.target)
