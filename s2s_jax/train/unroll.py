"""What does a model predict while it is fed, token by token, partly the truth and partly its own words?

The other way, the truth alone, is `model.interface.forced`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from s2s_jax.model.interface import Model, Params, Step, shifted
from s2s_jax.shapes import Batch
from s2s_jax.train.forcing import ForcingConfig, own_token


def mixed(
    model: Model, params: Params, batch: Batch, *, epsilon: Float[Array, ""], config: ForcingConfig, key: Key[Array, ""]
) -> Step:
    """All steps [B, T, ...]; at each, for each sentence, a coin of its own says whether the truth is fed.

    Args:
        epsilon: probability of the true token, traced. At 1 every token fed is the true one, at 0 none is but BOS.
        key: noise for dropout, coins and samples.
    """
    for_encode, for_steps, for_coins = jax.random.split(key, 3)
    memory, state = model.encode(params, batch.source, for_encode)
    gold = shifted(batch.target).T
    coins = jax.random.uniform(for_coins, gold.shape) < epsilon

    def body(last, now):
        state, own = last
        true, heads, time = now
        noise, chance = jax.random.split(jax.random.fold_in(for_steps, time))
        state, step = model.step(params, memory, state, jnp.where(heads, true, own), noise)
        return (state, own_token(step.logits, config.tail, chance)), step

    times = jnp.arange(len(gold))
    coins = coins.at[0].set(True)  # before the first step there is nothing of the model's own
    _, steps = jax.lax.scan(body, (state, gold[0]), (gold, coins, times))
    return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), steps)
