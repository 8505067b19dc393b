"""What a model predicts at each step of a given target: the compiled functions behind the explorer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from s2s_jax.model.interface import Model, Params, shift_right, time_first
from s2s_jax.model.ops.sown import replacing
from s2s_jax.shapes import BOS, PAD, Batch


class Steps(NamedTuple):
    """The steps of each target, the true token fed at each."""

    log_probs: Float[Array, "B T"]  # of the target's tokens, nats
    rank: Int[Array, "B T"]  # how many tokens are likelier
    entropy: Float[Array, "B T"]  # of the distribution, nats
    best: Int[Array, "B T N"]  # the likeliest tokens; PAD and BOS, which no search chooses, are left out
    best_log_probs: Float[Array, "B T N"]
    alignment: Float[Array, "B T S"]
    heads: PyTree  # of each head [B, T, N, S]; () with one head


class GivenWeights(NamedTuple):
    """Attention weights that take the place of the model's at some steps."""

    weights: Any  # Float[B, T, S]
    replaced: Any  # Bool[B, T]


class Distribution(NamedTuple):
    """The summary of one step's logits."""

    log_prob: Float[Array, " B"]
    rank: Int[Array, " B"]
    entropy: Float[Array, " B"]
    best: Int[Array, "B N"]
    best_log_probs: Float[Array, "B N"]


def steps_of(
    model: Model, params: Params, batch: Batch, given: GivenWeights | None = None, *, alternatives: int
) -> Steps:
    """What the model predicts at each step; with other attention weights where some are given.

    Given weights take the place of those of every head, and whatever the model makes of its weights follows: context,
    coverage, copying, and the states after the step.
    """
    memory, state = model.encode(params, batch.inputs)
    if given is None:
        shape = batch.target.shape
        given = GivenWeights(jnp.zeros((*shape, 0)), jnp.zeros(shape, bool))

    def body(state, inputs):
        token, target, weights, replaced = inputs

        def replace(own: Array) -> Array:
            return jnp.where(replaced[:, None], weights, own) if weights.shape[1] else own

        with replacing("attention", replace):
            state, output = model.step(params, memory, state, token)
        log_probs = output.logits - output.log_normalizer[:, None]
        return state, (distribution(log_probs, target, alternatives), output.alignment, output.heads)

    fed = shift_right(batch.target)
    inputs = (fed, batch.target, *given)
    _, (found, alignment, heads) = jax.lax.scan(body, state, jax.tree.map(time_first, inputs))
    return Steps(*jax.tree.map(time_first, (*found, alignment, heads)))


def distribution(log_probs: Float[Array, "B V"], target: Int[Array, " B"], alternatives: int) -> Distribution:
    """The summary of a distribution."""
    own = jnp.take_along_axis(log_probs, target[:, None], axis=-1)
    probabilities = jnp.exp(log_probs)
    entropy = -jnp.where(probabilities > 0, probabilities * log_probs, 0.0).sum(-1)
    tokens = jnp.arange(log_probs.shape[-1])
    allowed = jnp.where((tokens == PAD) | (tokens == BOS), -jnp.inf, log_probs)
    best_log_probs, best = jax.lax.top_k(allowed, min(alternatives, log_probs.shape[-1]))
    rank = (log_probs > own).sum(-1).astype(jnp.int32)
    return Distribution(own[:, 0], rank, entropy, best.astype(jnp.int32), best_log_probs)


def attention_shapes(model: Model, params: Params, batch: Batch) -> list[tuple[int, ...]]:
    """The shapes of the attention weights that can be replaced at a step; [] for a model without such weights."""
    shapes: list[tuple[int, ...]] = []

    def noted(weights: Array) -> Array:
        shapes.append(weights.shape)
        return weights

    def one_step(params, inputs, token):
        memory, state = model.encode(params, inputs)
        with replacing("attention", noted):
            return model.step(params, memory, state, token)[1].alignment

    jax.eval_shape(one_step, params, batch.inputs, batch.target[:, 0])
    return shapes


class FreeRun(NamedTuple):
    """A target under the model's own predictions: each step is fed the likeliest token of the one before."""

    tokens: Int[Array, "B T"]  # the likeliest at each step
    log_probs: Float[Array, "B T"]  # of the target's tokens, nats


def free_run(model: Model, params: Params, batch: Batch) -> FreeRun:
    """The losses of a target while the decoder is fed its own predictions (`evaluate.exposure_bias`)."""
    memory, state = model.encode(params, batch.inputs)

    def body(carry, target):
        state, token = carry
        state, output = model.step(params, memory, state, token)
        log_probs = output.logits - output.log_normalizer[:, None]
        chosen = jnp.argmax(output.logits, axis=-1).astype(jnp.int32)
        return (state, chosen), (chosen, jnp.take_along_axis(log_probs, target[:, None], axis=-1)[:, 0])

    first = jnp.full(batch.target.shape[0], BOS, jnp.int32)
    _, found = jax.lax.scan(body, (state, first), time_first(batch.target))
    return FreeRun(*map(time_first, found))
