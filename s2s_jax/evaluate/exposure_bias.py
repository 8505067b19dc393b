"""How much worse does a model fare on its own words than on true ones?"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s2s_jax.model.interface import Model, Params, shift_right
from s2s_jax.shapes import Batch, real
from s2s_jax.train.feed import scheduled_sampling
from s2s_jax.train.objectives import token_losses
from s2s_jax.train.scheduled_sampling import ScheduledSamplingConfig


def free_running_nats(model: Model, params: Params, batch: Batch) -> Float[Array, " B"]:
    """The loss of each target when each step is fed what the model found likeliest at the one before, not the truth.

    Less the loss under teacher forcing it is the exposure gap, in nats. Ranzato et al. 2016, arXiv:1511.06732, call
    what opens it exposure bias.
    """
    memory, state = model.encode(params, batch.source)
    feed = scheduled_sampling(model, params, epsilon=jnp.zeros(()), config=ScheduledSamplingConfig(start=0.0))
    fed = feed(memory, state, shift_right(batch.target), jax.random.key(0))
    _, steps = model.unroll(params, memory, state, fed.tokens, sampler=fed.sampler)
    nats = token_losses(steps.logits, batch.target).nats
    return jnp.where(real(batch.target), nats, 0.0).sum(1)
