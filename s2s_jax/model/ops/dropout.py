"""Dropout masks."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from s2s_jax.shapes import Size
from s2s_jax.validation import Traced, traced_value


def keep_mask(key: Key[Array, ""], rate: float | Traced, shape: tuple[Size, ...]) -> Float[Array, "..."] | None:
    """1/(1-rate) where a number is kept and 0 where it is dropped, so that the mean stays; None where the rate is 0.

    Srivastava et al. 2014.
    """
    if rate == 0:
        return None
    kept = 1 - traced_value(rate)
    flat = math.prod(shape[:-1]), shape[-1]  # two axes compile ten times faster than three; see `initializers`
    return jax.random.bernoulli(key, kept, flat).astype(jnp.float32).reshape(shape) / kept
