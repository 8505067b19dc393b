"""Initial values of parameters.

All numbers of a parameter are drawn as one matrix: XLA takes seconds to compile a draw of three axes, and a tenth of
that for the same numbers in two.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def glorot(key: Key[Array, ""], *shape: int) -> Float[Array, "..."]:
    """Uniform in +-sqrt(6 / (rows + columns)), matrices in the last two axes. Glorot & Bengio 2010, eq. 16."""
    *lead, rows, columns = shape
    bound = math.sqrt(6 / max(1, rows + columns))
    return jax.random.uniform(key, (math.prod(lead) * rows, columns), minval=-bound, maxval=bound).reshape(shape)


def orthogonal(key: Key[Array, ""], *shape: int) -> Float[Array, "..."]:
    """Square orthogonal matrices in the last two axes, evenly distributed. Saxe et al. 2014, arXiv:1312.6120."""
    size = shape[-1]
    normal = jax.random.normal(key, (math.prod(shape[:-1]), size)).reshape(-1, size, size)
    # one by one: two batched ones that run concurrently deadlock on the two threads of a small CPU
    # (jaxlib 0.10.2, LAPACK kernels blocking XLA's own pool)
    matrix, triangle = jax.lax.map(jnp.linalg.qr, normal)
    signs = jnp.sign(jnp.diagonal(triangle, axis1=-2, axis2=-1))  # without them the distribution is not even
    return (matrix * signs[:, None, :]).reshape(shape)


def gates(blocks: Float[Array, "*D G I O"]) -> Float[Array, "*D I W"]:
    """The matrices of a cell's gates, concatenated along their columns."""
    *directions, count, rows, columns = blocks.shape
    return jnp.moveaxis(blocks, -3, -2).reshape(*directions, rows, count * columns)


def embedding(key: Key[Array, ""], vocabulary: int, size: int) -> Float[Array, "V E"]:
    """Normal with variance 1 / size, so that an embedding has length 1."""
    return jax.random.normal(key, (vocabulary, size)) * size**-0.5
