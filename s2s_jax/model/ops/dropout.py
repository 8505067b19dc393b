"""Dropout masks."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

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


def word_keys(key: Key[Array, ""], batch: Size) -> UInt32[Array, "B 2"]:
    """A raw key per sentence, for `keep_words`."""
    return jax.random.key_data(jax.random.split(key, batch))


def keep_words(keys: UInt32[Array, "B 2"], words: Int[Array, "*T B"], rate: float) -> Float[Array, "*T B"]:
    """1/(1-rate) where a word is kept and 0 where it is dropped: at all of its positions in a sentence, or at none.

    Gal & Ghahramani 2016, arXiv:1512.05287, section 4.2.
    """

    def draw(key, word):
        return jax.random.uniform(jax.random.fold_in(jax.random.wrap_key_data(key), word))

    of_row = jax.vmap(jax.vmap(draw, in_axes=(None, 0)), in_axes=(0, 1), out_axes=1)
    uniform = of_row(keys, words.reshape(-1, words.shape[-1])).reshape(words.shape)
    return (uniform >= rate).astype(jnp.float32) / (1 - rate)
