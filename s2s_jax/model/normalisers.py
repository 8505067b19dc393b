"""How do scores become weights?"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def softmax(scores: Float[Array, "B S"], mask: Bool[Array, "B S"]) -> Float[Array, "B S"]:
    """exp(e) / sum exp(e) over real tokens; exactly 0 on padding, and all zeros where no token is real."""
    safe = jnp.where(mask, scores, 0.0)  # what stands on padding must not reach the gradient, not even as NaN
    return jax.nn.softmax(safe, axis=-1, where=mask)


NORMALISERS = {"softmax": softmax}
