"""Layer normalization without gain and bias."""

import jax
from jaxtyping import Array, Float


def layer_norm(x: Float[Array, "*B G"]) -> Float[Array, "*B G"]:
    """x with mean 0 and variance 1 over its last axis. Ba, Kiros & Hinton 2016, arXiv:1607.06450, eq. 3-4."""
    centered = x - x.mean(-1, keepdims=True)
    return centered * jax.lax.rsqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
