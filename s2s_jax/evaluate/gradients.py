"""How much does each target token hang on each source token? By slopes, and by taking the token away.

Slopes are by the embedding e_s of a source token in its place, as if each place had a table of its own. They hold every
path from token to answer: along the encoder into the thought vector and along the decoder to step t, and, with
attention, past all of that through the keys and values of the token and of its neighbors. So a slope that shrinks with
the distance between s and t has shrunk on the way, and one that does not has found a shorter way. An encoder that reads
from both ends has a short way from each end of the sentence; to see distance alone, let it read from one
(`model.encoder.bidirectional=false`).

All answers are [B, T, S], exactly 0 where target or source is padding.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2s_jax.decode.score import score
from s2s_jax.model.interface import Model, Params, unroll_targets
from s2s_jax.shapes import UNK, Batch, real
from s2s_jax.validation import one_of

Measure = Callable[[Float[Array, "B S E"], Float[Array, "B S E"]], Float[Array, "B S"]]  # of slopes and embeddings
REPLACEMENTS = ("unknown", "zero")


def log_prob(logits: Float[Array, "*B V"], target: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Of the right token: minus the loss. Its slope goes to 0 where the model is sure, however short the way."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], axis=-1)[..., 0]


def log_odds(logits: Float[Array, "*B V"], target: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """log p / (1 - p) of the right token: how the answer is made, whether it is learned already or not."""
    right = jax.nn.one_hot(target, logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(logits, axis=-1, where=~right)
    return jnp.sum(logits, axis=-1, where=right) - others


NUMBERS = {"loss": log_prob, "log-odds": log_odds}


def gradient_norms(model: Model, params: Params, batch: Batch, *, of: str = "loss") -> Float[Array, "B T S"]:
    """|d loss_t / d e_s|, the signal from which a token that is so far away is learned; or that of the log-odds.

    Raises:
        ValueError: `of` is none of `NUMBERS`, or the model has no `embed`.
    """
    return _slopes(model, params, batch, of, lambda slopes, _: jnp.linalg.norm(slopes, axis=-1))


def saliency(model: Model, params: Params, batch: Batch, *, of: str = "loss") -> Float[Array, "B T S"]:
    """|e_s * d loss_t / d e_s|, gradient times input. Denil et al. 2014, arXiv:1412.6815; Li et al. 2016.

    Raises:
        ValueError: `of` is none of `NUMBERS`, or the model has no `embed`.
    """
    return _slopes(model, params, batch, of, lambda slopes, inputs: jnp.linalg.norm(slopes * inputs, axis=-1))


def occlusion(model: Model, params: Params, batch: Batch, *, instead: str = "unknown") -> Float[Array, "B T S"]:
    """How much the log-probability of target token t falls when source token s is not there; below 0 where it rises.

    Args:
        instead: what stands in its place: the unknown token, or an embedding of zeros.

    Raises:
        ValueError: `instead` is none of `REPLACEMENTS`, or the model has no `embed` where zeros are asked for.
    """
    one_of("instead", instead, REPLACEMENTS)
    there, mask = score(model, params, batch).log_probs, real(batch.source)
    embedded = _embedded(model, params, batch) if instead == "zero" else None

    def fall(place: Int[Array, ""]) -> Float[Array, "B T"]:
        if embedded is None:
            source = batch.source.at[:, place].set(jnp.where(mask[:, place], UNK, batch.source[:, place]))
            return there - score(model, params, batch._replace(source=source)).log_probs
        return there - score(_reading(model, embedded.at[:, place].set(0.0)), params, batch).log_probs

    falls = jnp.moveaxis(jax.lax.map(fall, jnp.arange(mask.shape[1])), 0, -1)
    return jnp.where(mask[:, None], falls, 0.0)


def _slopes(model: Model, params: Params, batch: Batch, of: str, measure: Measure) -> Float[Array, "B T S"]:
    """One way back for each target step, since no two of them can share one; so that memory is one way's."""
    one_of("of", of, NUMBERS)
    embedded, weight = _embedded(model, params, batch), real(batch.target).astype(jnp.float32)

    def numbers(embedded: Float[Array, "B S E"]) -> Float[Array, "B T"]:
        return NUMBERS[of](unroll_targets(_reading(model, embedded), params, batch).logits, batch.target)

    _, pull = jax.vjp(numbers, embedded)

    def of_step(step: Int[Array, ""]) -> Float[Array, "B S"]:
        (slopes,) = pull(jnp.where((jnp.arange(weight.shape[1]) == step)[None], weight, 0.0))
        return measure(slopes, embedded)

    return jax.lax.map(of_step, jnp.arange(weight.shape[1])).swapaxes(0, 1)


def _embedded(model: Model, params: Params, batch: Batch) -> Float[Array, "B S E"]:
    if model.embed is None:
        raise ValueError(
            "slopes by the source tokens need Model.embed, which this model has not; give it embed(params, source) "
            "and encode_embedded(params, source, embedded, key)."
        )
    return model.embed(params, batch.source)


def _reading(model: Model, embedded: Float[Array, "B S E"]) -> Model:
    """The model, which reads these embeddings wherever it would read tokens."""
    encode = model.encode_embedded
    if encode is None:
        raise ValueError("gradients by the source tokens need Model.encode_embedded, which this model does not have.")
    return dataclasses.replace(model, encode=lambda params, source, key=None: encode(params, source, embedded, key))
