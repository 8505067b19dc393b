"""How likely does a model find given translations?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore, uncovered
from s2s_jax.model.interface import Model, Params, unroll_targets
from s2s_jax.shapes import Batch, real


class Scored(NamedTuple):
    """What forced decoding says of given targets."""

    log_probs: Float[Array, "B T"]  # of each token, nats; 0 on padding
    alignment: Float[Array, "B T S"]  # zeros on padding
    correct: Bool[Array, "B T"]  # whether the model would have said this token in its place; False on padding
    scores: Float[Array, " B"]  # what a search would rank them by


def score(model: Model, params: Params, batch: Batch, *, scoring: HypothesisScore = LIKELIHOOD) -> Scored:
    """The log-probability and the alignment of every target token, EOS counted, given the tokens before it."""
    steps = unroll_targets(model, params, batch)
    log_probs = jax.nn.log_softmax(steps.logits)
    true = jnp.take_along_axis(log_probs, batch.target[..., None], axis=-1)[..., 0]
    weight = real(batch.target)
    correct = weight & (true >= log_probs.max(-1))
    true, alignment = jnp.where(weight, true, 0.0), jnp.where(weight[..., None], steps.alignment, 0.0)
    length = jnp.maximum(weight.sum(-1), 1).astype(jnp.float32)
    looked = uncovered(alignment.sum(1), real(batch.source)) if scoring.coverage else jnp.zeros(length.shape)
    return Scored(true, alignment, correct, scoring.score(true.sum(-1), length, looked))
