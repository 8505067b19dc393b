"""Matrix products in a chosen precision.

Parameters and sums are always float32; `dtype` is what the factors are rounded to before a product, forward and
backward: the cotangent of a product is a factor of two more products.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def matmul(x: Float[Array, "*B I"], weight: Float[Array, "*D I O"], dtype: DTypeLike) -> Float[Array, "*B O"]:
    """x @ weight with factors in `dtype` and a float32 sum.

    With directions, weight is [D, I, O] and x is [D, B, I].
    """
    return _product(x, weight, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _product(x, weight, dtype):
    return _multiplied(x.astype(dtype), weight.astype(dtype))


def _product_forward(x, weight, dtype):
    factors = x.astype(dtype), weight.astype(dtype)
    return _multiplied(*factors), factors


def _product_backward(dtype, factors, cotangent):
    x, weight = factors
    cotangent = cotangent.astype(dtype)
    return _multiplied(cotangent, weight.swapaxes(-1, -2)), weight_gradient(x, cotangent, weight.ndim)


_product.defvjp(_product_forward, _product_backward)


def matmul_transposed(
    x: Float[Array, "*B I"], rows: Float[Array, "O I"], dtype: DTypeLike, known: Float[Array, "*B O"] | None = None
) -> Float[Array, "*B O"]:
    """x @ rows.T, for matrices that are stored as one row per output.

    Written as one contraction: a transpose would copy the whole matrix at every step of a search.

    Args:
        known: the product, if it has been computed before; only gradients are then computed here.
    """
    return _transposed(x, rows, dtype) if known is None else _known(x, rows, known, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _transposed(x, rows, dtype):
    return _float32_sum("...i,oi->...o", x.astype(dtype), rows.astype(dtype))


def _transposed_forward(x, rows, dtype):
    factors = x.astype(dtype), rows.astype(dtype)
    return _float32_sum("...i,oi->...o", *factors), factors


def _transposed_backward(dtype, factors, cotangent):
    x, rows = factors
    cotangent = cotangent.astype(dtype)
    return _multiplied(cotangent, rows), weight_gradient(cotangent, x, 2)


_transposed.defvjp(_transposed_forward, _transposed_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _known(x, rows, known, dtype):
    return known


def _known_forward(x, rows, known, dtype):
    return known, (x.astype(dtype), rows.astype(dtype))


def _known_backward(dtype, factors, cotangent):
    return *_transposed_backward(dtype, factors, cotangent), None


_known.defvjp(_known_forward, _known_backward)


def _multiplied(x, weight):
    form = "...i,io->...o" if weight.ndim == 2 else "dbi,dio->dbo"
    return _float32_sum(form, x, weight)


def weight_gradient(x, cotangent, rank: int):
    """The sum of outer products over all axes except that of the directions."""
    if rank == 2:
        rows, columns = (factor.reshape(-1, factor.shape[-1]) for factor in (x, cotangent))
        return _float32_sum("bi,bo->io", rows, columns)
    if x.ndim == 3:
        return _float32_sum("dbi,dbo->dio", x, cotangent)
    directions = range(x.shape[1])
    return jnp.stack([weight_gradient(x[:, index], cotangent[:, index], 2) for index in directions])


def contract(form: str, x: Float[Array, "..."], y: Float[Array, "..."], dtype: DTypeLike) -> Float[Array, "..."]:
    """`einsum(form, x, y)` with factors in `dtype` and a float32 sum, for two arrays that are both computed.

    Args:
        form: such as "bq,bsq->bs": every axis of a factor is one of the other factor or of the result.
    """
    if dtype == jnp.float32:
        return _float32_sum(form, x, y)
    return _contracted(form, dtype, x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _contracted(form, dtype, x, y):
    return _float32_sum(form, x.astype(dtype), y.astype(dtype))


def _contracted_forward(form, dtype, x, y):
    factors = x.astype(dtype), y.astype(dtype)
    return _float32_sum(form, *factors), factors


def _contracted_backward(form, dtype, factors, cotangent):
    (of_x, of_y), result = form.split("->")[0].split(","), form.split("->")[1]
    x, y = factors
    cotangent = cotangent.astype(dtype)
    return (
        _float32_sum(f"{result},{of_y}->{of_x}", cotangent, y),
        _float32_sum(f"{of_x},{result}->{of_y}", x, cotangent),
    )


_contracted.defvjp(_contracted_forward, _contracted_backward)


def _float32_sum(form, x, y):
    """`einsum` with a float32 sum. A product of two bfloat16 numbers is exact in float32, and CPUs multiply those.

    On CPUs the compiler of jax 0.10 accepts every product of two bfloat16 factors and has kernels for some alone.
    """
    product = functools.partial(jnp.einsum, form, preferred_element_type=jnp.float32)
    if x.dtype == jnp.float32:
        return product(x, y)
    widened = lambda x, y: product(x.astype(jnp.float32), y.astype(jnp.float32))  # noqa: E731
    return jax.lax.platform_dependent(x, y, cpu=widened, default=product)


def broadcast_bias(vector: Float[Array, "*D G"], rank: int) -> Float[Array, "*B G"]:
    """One vector per direction, shaped to be added to arrays of a rank: [G] to [..., G], [D, G] to [..., D, B, G]."""
    inner = vector.shape if vector.ndim == 1 else (*vector.shape[:-1], 1, vector.shape[-1])
    return vector.reshape((1,) * (rank - len(inner)) + inner)
