"""How is a vector brought to mean 0 and variance 1? For layer normalization, wherever it stands."""

import jax
from jaxtyping import Array, Float


def layer_norm(x: Float[Array, "*B G"]) -> Float[Array, "*B G"]:
    """x with mean 0 and variance 1 over its last axis. Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 3-4."""
    centerd = x - x.mean(-1, keepdims=True)
    return centerd * jax.lax.rsqrt((centerd**2).mean(-1, keepdims=True) + 1e-6)
