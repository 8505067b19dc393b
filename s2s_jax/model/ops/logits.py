"""Reading logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2s_jax.model.ops.target import launches_cost


def chosen_logits(logits: Float[Array, "*B V"], target: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """The logits of given tokens.

    Where launches cost, by comparison: a part of the kernels that read all logits anyway, whereas the gradient of a
    gather is a scatter and reads and writes them once more. A CPU gathers faster.
    """
    if not launches_cost():
        return jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    tokens = jax.lax.broadcasted_iota(target.dtype, logits.shape, logits.ndim - 1)
    return jnp.where(tokens == target[..., None], logits, 0.0).sum(-1)
