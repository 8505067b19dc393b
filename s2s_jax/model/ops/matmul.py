"""In which precision does the network multiply, and when are the gradients of its weights formed?

Parameters and sums are float32 always; `dtype` is what the factors are rounded to before a product, forward and
backward: the cotangent of a product is a factor of two more.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from s2s_jax.shapes import Size

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Delayed(NamedTuple):
    """A weight inside a scan whose gradient is formed after the backward scan, as one product over all steps.

    Nobody reads the two zeros. The backward scan leaves there what the gradient needs: the cotangent of `inputs` is
    what this step multiplied, that of `outputs` the cotangent of what it got.
    """

    weight: Float[Array, "*D I O"]
    inputs: Float[Array, "*B I"]
    outputs: Float[Array, "*B O"]


def matmul(x: Float[Array, "*B I"], weight: Float[Array, "*D I O"] | Delayed, dtype: DTypeLike) -> Float[Array, "*B O"]:
    """x @ weight with factors in `dtype` and a float32 sum.

    With directions, weight is [D, I, O] and x is [D, B, I].
    """
    if isinstance(weight, Delayed):
        return _delayed_product(x, weight.weight, weight.inputs, weight.outputs)
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
    return _multiplied(cotangent, weight.swapaxes(-1, -2)), _weight_gradient(x, cotangent, weight.ndim)


_product.defvjp(_product_forward, _product_backward)


def matmul_transposed(
    x: Float[Array, "*B I"], rows: Float[Array, "O I"], dtype: DTypeLike, known: Float[Array, "*B O"] | None = None
) -> Float[Array, "*B O"]:
    """The product of x with each of the rows: x @ rows.T, for matrices that are kept a row an output.

    Said as one contraction: a transpose would be a copy of the whole matrix at every step of a search. Where the
    product is `known` already, only its gradients are left to form.
    """
    return _matched(x, rows, dtype) if known is None else _known(x, rows, known, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matched(x, rows, dtype):
    return jnp.einsum("...i,oi->...o", x.astype(dtype), rows.astype(dtype), preferred_element_type=jnp.float32)


def _matched_forward(x, rows, dtype):
    factors = x.astype(dtype), rows.astype(dtype)
    return _matched(*factors, dtype), factors


def _matched_backward(dtype, factors, cotangent):
    x, rows = factors
    cotangent = cotangent.astype(dtype)
    return _multiplied(cotangent, rows), _weight_gradient(cotangent, x, 2)


_matched.defvjp(_matched_forward, _matched_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _known(x, rows, known, dtype):
    return known


def _known_forward(x, rows, known, dtype):
    return known, (x.astype(dtype), rows.astype(dtype))


def _known_backward(dtype, factors, cotangent):
    return *_matched_backward(dtype, factors, cotangent), None


_known.defvjp(_known_forward, _known_backward)


@jax.custom_vjp
def _delayed_product(x, weight, inputs, outputs):
    return _multiplied(x.astype(weight.dtype), weight)


def _delayed_forward(x, weight, inputs, outputs):
    x = x.astype(weight.dtype)
    return _multiplied(x, weight), (x, weight)


def _delayed_backward(factors, cotangent):
    x, weight = factors
    cotangent = cotangent.astype(weight.dtype)
    return _multiplied(cotangent, weight.swapaxes(-1, -2)), None, x, cotangent


_delayed_product.defvjp(_delayed_forward, _delayed_backward)


def _multiplied(x, weight):
    form = "...i,io->...o" if weight.ndim == 2 else "dbi,dio->dbo"
    return jnp.einsum(form, x, weight, preferred_element_type=jnp.float32)


def _weight_gradient(x, cotangent, rank: int):
    """The sum of outer products over all axes but those of the directions."""
    if rank == 2:
        rows, columns = (factor.reshape(-1, factor.shape[-1]) for factor in (x, cotangent))
        return jnp.einsum("bi,bo->io", rows, columns, preferred_element_type=jnp.float32)
    if x.ndim == 3:
        return jnp.einsum("dbi,dbo->dio", x, cotangent, preferred_element_type=jnp.float32)
    ways = range(x.shape[1])
    return jnp.stack([_weight_gradient(x[:, way], cotangent[:, way], 2) for way in ways])


def scan(
    body: Callable[[PyTree, Any, Any], tuple[Any, Any]],
    weights: PyTree,
    carry: Any,
    xs: Any,
    *,
    rows: tuple[Size, ...],
    dtype: DTypeLike,
    chunk: int = 0,
) -> tuple[Any, Any]:
    """`lax.scan` of `body(weights, carry, x)`, the gradients of `weights` formed after the backward scan.

    A gradient added up inside the scan is read and written whole at every step; formed after it, it is one large
    product. Every weight [*D, I, O] must meet exactly one product a step, of an input [*D, *rows, I].

    With `chunk`, only the carry of every so many steps is kept for the way back, and the steps between are computed
    again: long sequences in little memory.
    """
    steps = jax.tree.leaves(xs)[0].shape[0]  # a symbol while a program is exported
    once = functools.partial(_scan, body, weights, rows=rows, dtype=dtype)
    if not 0 < chunk < steps:
        return once(carry, xs)
    again, whole = jax.checkpoint(once), steps // chunk * chunk
    chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, chunk, *leaf.shape[1:]), xs)
    carry, said = jax.lax.scan(again, carry, chunks)
    said = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), said)
    if whole == steps:
        return carry, said
    carry, rest = again(carry, jax.tree.map(lambda leaf: leaf[whole:], xs))
    return carry, jax.tree.map(lambda one, other: jnp.concatenate([one, other]), said, rest)


def _scan(body, weights, carry, xs, *, rows, dtype):
    steps = jax.tree.leaves(xs)[0].shape[0]  # a symbol while a program is exported
    constants = jax.tree.map(lambda weight: jax.lax.stop_gradient(weight.astype(dtype)), weights)
    places = jax.tree.map(lambda weight: _places(weight, (steps, *weight.shape[:-2], *rows), dtype), weights)

    def step(carry, now):
        places, x = now
        delayed = jax.tree.map(lambda weight, place: Delayed(weight, *place), constants, places)
        return body(delayed, carry, x)

    return jax.lax.scan(step, carry, (places, xs))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _places(weight, lead, dtype):
    """Zeros for a weight's `Delayed`, a step along the first axis, whose cotangents become the weight's gradient."""
    return tuple(jnp.zeros((*lead, width), dtype) for width in weight.shape[-2:])


def _places_forward(weight, lead, dtype):
    return _places(weight, lead, dtype), weight.ndim


def _places_backward(lead, dtype, rank, cotangents):
    inputs, outputs = cotangents
    return (_weight_gradient(inputs, outputs, rank),)


_places.defvjp(_places_forward, _places_backward)


def broadcast_bias(vector: Float[Array, "*D G"], rank: int) -> Float[Array, "*B G"]:
    """A vector a direction that adds to arrays of a rank: [G] to [..., G], or [D, G] to [..., D, B, G]."""
    inner = vector.shape if vector.ndim == 1 else (*vector.shape[:-1], 1, vector.shape[-1])
    return vector.reshape((1,) * (rank - len(inner)) + inner)
