"""Logits: reading them, and what stands for no probability at all."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2s_jax.model.ops.target import launches_cost

IMPOSSIBLE = -1e9  # log-probability of what cannot be, such as an unused slot: far below any real one, and finite


def chosen_logits(logits: Float[Array, "*B V"], target: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """The logits of given tokens.

    Where launches cost, by comparison: a part of the kernels that read all logits anyway, whereas the gradient of a
    gather is a scatter and reads and writes them once more. A CPU gathers faster.
    """
    if not launches_cost():
        return jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    tokens = jax.lax.broadcasted_iota(target.dtype, logits.shape, logits.ndim - 1)
    return jnp.where(tokens == target[..., None], logits, 0.0).sum(-1)
