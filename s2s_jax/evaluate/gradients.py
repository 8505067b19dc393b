"""How much each target token depends on each source token: gradients, saliency and occlusion.

Gradients are with respect to the embedding e_s of a source token at its position, as if each position had an embedding
table of its own. They sum over every path from token to output: through the encoder into the fixed-size summary and
through the decoder to step t, and, with attention, directly through the keys and values of the token and of its
neighbors. So a gradient that shrinks with the distance between s and t took a long path, and one that does not took a
shorter one. A bidirectional encoder has a short path from each end of the sentence; to see distance alone, use
`model.encoder.bidirectional=false`.

All results are [B, T, S], exactly 0 where target or source is padding.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2s_jax.decode.forced_decoding import forced_decoding
from s2s_jax.model.interface import Model, Params, unroll_targets
from s2s_jax.shapes import UNK, Batch, real
from s2s_jax.validation import one_of

Magnitude = Callable[
    [Float[Array, "B S E"], Float[Array, "B S E"]], Float[Array, "B S"]
]  # (gradients, embeddings) -> magnitudes
REPLACEMENTS = ("unknown", "zero")


def log_prob(logits: Float[Array, "*B V"], target: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """The log-probability of the true token, minus the loss; its gradient vanishes where the model is certain."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], axis=-1)[..., 0]


def log_odds(logits: Float[Array, "*B V"], target: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """log p / (1 - p) of the true token; its gradient does not vanish where the model is certain."""
    true = jax.nn.one_hot(target, logits.shape[-1], dtype=bool)
    others = jax.nn.logsumexp(logits, axis=-1, where=~true)
    return jnp.sum(logits, axis=-1, where=true) - others


QUANTITIES = {"loss": log_prob, "log-odds": log_odds}


def gradient_norms(model: Model, params: Params, batch: Batch, *, of: str = "loss") -> Float[Array, "B T S"]:
    """|d loss_t / d e_s|, the learning signal that reaches source token s from step t; or that of the log-odds.

    Raises:
        ValueError: `of` is not in `QUANTITIES`, or the model has no `embed`.
    """
    return _gradients(model, params, batch, of, lambda gradients, _: jnp.linalg.norm(gradients, axis=-1))


def saliency(model: Model, params: Params, batch: Batch, *, of: str = "loss") -> Float[Array, "B T S"]:
    """|e_s * d loss_t / d e_s|, gradient times input. Denil et al. 2014, arXiv:1412.6815; Li et al. 2016.

    Raises:
        ValueError: `of` is not in `QUANTITIES`, or the model has no `embed`.
    """
    return _gradients(model, params, batch, of, lambda gradients, inputs: jnp.linalg.norm(gradients * inputs, axis=-1))


def occlusion(model: Model, params: Params, batch: Batch, *, replacement: str = "unknown") -> Float[Array, "B T S"]:
    """How much the log-probability of target token t falls when source token s is replaced; below 0 where it rises.

    Args:
        replacement: unknown, the unknown token; or zero, an embedding of zeros.

    Raises:
        ValueError: `replacement` is not in `REPLACEMENTS`, or it is zero and the model has no `embed`.
    """
    one_of("replacement", replacement, REPLACEMENTS)
    original, mask = forced_decoding(model, params, batch).log_probs, real(batch.source)
    embedded = _embedded(model, params, batch) if replacement == "zero" else None

    def decrease(place: Int[Array, ""]) -> Float[Array, "B T"]:
        if embedded is None:
            source = batch.source.at[:, place].set(jnp.where(mask[:, place], UNK, batch.source[:, place]))
            return original - forced_decoding(model, params, batch._replace(source=source)).log_probs
        return (
            original - forced_decoding(_with_embeddings(model, embedded.at[:, place].set(0.0)), params, batch).log_probs
        )

    decreases = jnp.moveaxis(jax.lax.map(decrease, jnp.arange(mask.shape[1])), 0, -1)
    return jnp.where(mask[:, None], decreases, 0.0)


def _gradients(model: Model, params: Params, batch: Batch, of: str, magnitude: Magnitude) -> Float[Array, "B T S"]:
    """One backward pass per target step, one after another, so that memory is that of a single pass."""
    one_of("of", of, QUANTITIES)
    embedded, weight = _embedded(model, params, batch), real(batch.target).astype(jnp.float32)

    def quantity(embedded: Float[Array, "B S E"]) -> Float[Array, "B T"]:
        return QUANTITIES[of](unroll_targets(_with_embeddings(model, embedded), params, batch).logits, batch.target)

    _, pull = jax.vjp(quantity, embedded)

    def of_step(step: Int[Array, ""]) -> Float[Array, "B S"]:
        (gradients,) = pull(jnp.where((jnp.arange(weight.shape[1]) == step)[None], weight, 0.0))
        return magnitude(gradients, embedded)

    return jax.lax.map(of_step, jnp.arange(weight.shape[1])).swapaxes(0, 1)


def _embedded(model: Model, params: Params, batch: Batch) -> Float[Array, "B S E"]:
    if model.embed is None:
        raise ValueError(
            "gradients with respect to source tokens need Model.embed, which this model does not have; give it "
            "embed(params, source) and encode_embedded(params, source, embedded, key)."
        )
    return model.embed(params, batch.inputs)


def _with_embeddings(model: Model, embedded: Float[Array, "B S E"]) -> Model:
    """The model, with its encoder reading these embeddings in place of tokens."""
    encode = model.encode_embedded
    if encode is None:
        raise ValueError(
            "gradients with respect to source tokens need Model.encode_embedded, which this model does not have; give "
            "it encode_embedded(params, source, embedded, key)."
        )
    return dataclasses.replace(model, encode=lambda params, source, key=None: encode(params, source, embedded, key))
