"""What a search notes at every step, kept as one array: on a GPU each array that a step writes is a kernel.

Whole numbers, and floats by their bits, stand side by side along the last axis.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2s_jax.shapes import Size


def no_records(rows: Size, steps: Size, *inner: Size) -> Int[Array, "R T *I"]:
    """The records before the first step: zeros, and so 0.0 and PAD."""
    return jnp.zeros((rows, steps, *inner), jnp.int32)


def write_record(records: Int[Array, "R T *I"], time: Int[Array, ""], *entries: Array) -> Int[Array, "R T *I"]:
    """The records with those of one step, as `pack` takes them."""
    return jax.lax.dynamic_update_index_in_dim(records, pack(*entries), time, axis=1)


def pack(*entries: Array) -> Int[Array, "*I N"]:
    """Numbers [R, ...] side by side; an entry with one more axis than the first is several numbers."""
    rank = entries[0].ndim
    columns = [bits_of(entry if entry.ndim > rank else entry[..., None]) for entry in entries]
    return jnp.concatenate(columns, axis=-1)


def unpack_hypotheses(
    bits: Int[Array, "*H N"],
) -> tuple[Int[Array, "*H"], Float[Array, "*H"], Float[Array, "*H S"]]:
    """Tokens, log-probabilities and alignments that were packed in this order."""
    return bits[..., 0], floats_of(bits[..., 1]), floats_of(bits[..., 2:])


def bits_of(x: Array) -> Int[Array, "..."]:
    """Whole numbers as they are, floats by their bits."""
    return x if x.dtype == jnp.int32 else jax.lax.bitcast_convert_type(x, jnp.int32)


def floats_of(bits: Int[Array, "..."]) -> Float[Array, "..."]:
    """The floats of which these are the bits."""
    return jax.lax.bitcast_convert_type(bits, jnp.float32)
