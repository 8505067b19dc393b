"""The largest numbers of a long row, faster than by sorting it."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BLOCK = 64  # numbers per block; the largest of each is found first
KERNEL_COUNT, KERNEL_WIDTH = 16, 1024  # XLA's kernel for GPUs finds at most so many, of at least so many


def top_k(x: Float[Array, "*B V"], count: int) -> tuple[Float[Array, "*B C"], Int[Array, "*B C"]]:
    """The `count` largest numbers and their places, largest first, of equals the first one: a faster `lax.top_k`.

    XLA sorts whole rows, which are searched by blocks instead; on GPUs it has a kernel for few of many numbers.
    """
    if x.shape[-1] <= 2 * count * BLOCK:
        return _direct_top_k(x, count)
    blocked, direct = (functools.partial(find, count=count) for find in (_blocked_top_k, _direct_top_k))
    if count > KERNEL_COUNT or x.shape[-1] < KERNEL_WIDTH:
        return blocked(x)
    return jax.lax.platform_dependent(x, cpu=blocked, default=direct)


def _direct_top_k(x, count: int):
    best, place = jax.lax.top_k(x, count)
    return best, place


def _blocked_top_k(x, count: int):
    """They stand in the `count` blocks whose own largest numbers are largest; only those blocks are searched."""
    width = x.shape[-1]
    whole = width // BLOCK * BLOCK
    tops = x[..., :whole].reshape(*x.shape[:-1], -1, BLOCK).max(-1)
    if whole < width:  # the last block is shorter; padding it would copy all numbers
        tops = jnp.concatenate([tops, x[..., whole:].max(-1, keepdims=True)], axis=-1)
    _, chosen = jax.lax.top_k(tops, count)
    chosen = jnp.sort(chosen, axis=-1)  # in order of their places, so that of equals the first one stays the first
    offsets = jnp.arange(BLOCK, dtype=jnp.int32).reshape((1,) * chosen.ndim + (BLOCK,))
    places = (chosen.astype(jnp.int32)[..., None] * BLOCK + offsets).reshape(*x.shape[:-1], -1)
    candidates = jnp.take_along_axis(x, jnp.minimum(places, width - 1), axis=-1)
    best, place = jax.lax.top_k(jnp.where(places < width, candidates, -jnp.inf), count)
    return best, jnp.take_along_axis(places, place, axis=-1)


def argmax(logits: Float[Array, "*B V"]) -> Int[Array, "*B"]:
    """The place of the largest number, of equals the first.

    A maximum and then the first place that holds it: XLA's argmax, which carries both along, takes three times as long.
    """
    places = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    places = places.reshape((1,) * (logits.ndim - 1) + places.shape)
    return jnp.where(logits == logits.max(-1, keepdims=True), places, logits.shape[-1] - 1).min(-1)
