"""In which precision does the network multiply?

Parameters and sums are float32 always; `dtype` is what the factors are rounded to before a product.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def product(x: Float[Array, "*B I"], weight: Float[Array, "*D I O"], dtype: DTypeLike) -> Float[Array, "*B O"]:
    """x @ weight with factors in `dtype` and a float32 sum.

    With directions, weight is [D, I, O] and x is [..., D, B, I].
    """
    form = "...i,io->...o" if weight.ndim == 2 else "...dbi,dio->...dbo"
    return jnp.einsum(form, x.astype(dtype), weight.astype(dtype), preferred_element_type=jnp.float32)


def wide(vector: Float[Array, "*D G"], rank: int) -> Float[Array, "*B G"]:
    """A vector a direction that adds to arrays of a rank: [G] to [..., G], or [D, G] to [..., D, B, G]."""
    inner = vector.shape if vector.ndim == 1 else (*vector.shape[:-1], 1, vector.shape[-1])
    return vector.reshape((1,) * (rank - len(inner)) + inner)
