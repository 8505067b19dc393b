"""What is the decoder fed while it learns: the truth, and how much of what it would say itself?

Which token is fed next is picked once a step has spoken, in the same `unroll` that the loss sees; no gradient passes
through the choice. In passes, tokens are found first, and the loss sees them as it sees true ones. Soft tails feed
weights over the vocabulary instead, found first likewise, through which gradients do pass.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from s2s_jax.model.interface import (
    DecoderInputs,
    InputPolicy,
    LogitsReader,
    Memory,
    Model,
    Params,
    State,
    TokenSampler,
    time_first,
)
from s2s_jax.train.scheduled_sampling import (
    SOFT_PREDICTIONS,
    ScheduledSamplingConfig,
    predicted_token,
    predicted_weights,
)


class Draw(NamedTuple):
    """What decides, beside the model, which tokens are fed."""

    true: Int[Array, "B T"]
    coins: Bool[Array, "B T"]  # whether the true token is fed
    key: Key[Array, ""]  # of the sampled tail


def scheduled_sampling(
    model: Model, params: Params, *, epsilon: Float[Array, ""], config: ScheduledSamplingConfig
) -> InputPolicy:
    """The tokens fed where at each step, for each sentence, a coin of its own says whether it is the truth.

    Bengio et al. 2015, arXiv:1506.03099. With `config.passes`, the model's own tokens come from that many passes over
    all steps at once, each fed what the last one gave: as many passes as there are steps give what one step after the
    other gives. Duckworth et al. 2019, arXiv:1906.04331.

    Args:
        epsilon: probability of the true token, traced. At 1 every token fed is the true one, at 0 none is but BOS.
    """
    choose = _in_passes if config.parallel_passes else _softly if config.prediction in SOFT_PREDICTIONS else _one_by_one

    def feed(memory: Memory, state: State, true: Int[Array, "B T"], key: Key[Array, ""]) -> DecoderInputs:
        for_coins, for_choice = jax.random.split(key)
        coins = jax.random.uniform(for_coins, true.shape) < epsilon
        coins = coins.at[:, 0].set(True)  # before the first step there is nothing of the model's own
        given = (params, memory, state)
        given = given if config.prediction in SOFT_PREDICTIONS else jax.lax.stop_gradient(given)
        return choose(model, *given, Draw(true, coins, for_choice), config)

    return feed


def _one_by_one(
    model: Model, params: Params, memory: Memory, state: State, draw: Draw, config: ScheduledSamplingConfig
) -> DecoderInputs:
    def pick(logits: Float[Array, "B V"], given: tuple[Array, Array], key: Key[Array, ""]) -> Int[Array, " B"]:
        true, heads = given
        return jnp.where(heads, true, predicted_token(logits, config.prediction, key))

    return DecoderInputs(draw.true, TokenSampler(pick, (draw.true, draw.coins), draw.key))


def _softly(
    model: Model, params: Params, memory: Memory, state: State, draw: Draw, config: ScheduledSamplingConfig
) -> DecoderInputs:
    """Weights [B, T, V]: all on the true token where the coin shows heads."""
    true, coins, key = draw
    vocabulary = jax.eval_shape(model.step, params, memory, state, true[:, 0])[1].logits.shape[-1]
    first = jax.nn.one_hot(true[:, 0], vocabulary)

    def body(last, now):
        state, fed = last
        true, heads, time = now
        state, step = model.step(params, memory, state, fed)
        own = predicted_weights(step.logits, config, jax.random.fold_in(key, time))
        fed = jnp.where(heads[:, None], jax.nn.one_hot(true, vocabulary), own)
        return (state, fed), fed

    times = jnp.arange(true.shape[1] - 1)
    _, fed = jax.lax.scan(body, (state, first), (true.T[1:], coins.T[1:], times))
    return DecoderInputs(jnp.concatenate([first[:, None], time_first(fed)], axis=1))


def _in_passes(
    model: Model, params: Params, memory: Memory, state: State, draw: Draw, config: ScheduledSamplingConfig
) -> DecoderInputs:
    true, coins, key = draw
    tokens, times = true, jnp.broadcast_to(jnp.arange(true.shape[1]), true.shape)
    for chance in jax.random.split(key, config.parallel_passes):

        def read(logits, times, chance=chance):
            return predicted_token(logits, config.prediction, jax.random.fold_in(chance, times[0]))

        _, said = model.unroll(params, memory, state, tokens, reader=LogitsReader(read, times, true.size))
        tokens = jnp.where(coins, true, jnp.roll(said.logits, 1, axis=1))
    return DecoderInputs(tokens)
