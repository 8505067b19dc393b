"""Matrix products in a chosen precision, also with weights of a scan whose gradients are computed after it.

Parameters and sums are always float32; `dtype` is what the factors are rounded to before a product, forward and
backward: the cotangent of a product is a factor of two more products.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import get_opaque_trace_state
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from s2s_jax.shapes import Size

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
ONE_PRODUCT = (
    "each weight that step_weights() returns must be the factor of exactly one ops.matmul per step: return it once per "
    "product, or concatenate the inputs."
)
SECOND_ORDER = (
    "the gradient of a scan whose weights' gradients are computed after it cannot be differentiated again; trace the "
    "model inside `with s2s_jax.model.ops.scan.plain_gradients():`, which is slower and right for every order."
)


class Uses:
    """How often one weight of a scan has been multiplied while the scan's body was traced."""

    def __init__(self, name: str):
        self.name, self.count = name, 0
        self.body = get_opaque_trace_state()

    def check_once(self, shape: tuple[Size, ...]) -> None:
        """Refuse a weight that was not used.

        Raises:
            ValueError: naming the weight.
        """
        if self.count == 0:
            raise ValueError(
                f"the weight {self.name} {shape} of a scan was used in no ops.matmul, so its gradient would be zero; "
                f"{ONE_PRODUCT}"
            )


@jax.tree_util.register_pytree_node_class
class Delayed:
    """A weight inside a scan whose gradient is computed after the backward scan, as one product over all steps.

    The values of `inputs` and `outputs` are zeros and never read. Their cotangents carry what the gradient needs out of
    the backward scan: that of `inputs` is this step's factor, that of `outputs` the cotangent of this step's product.
    Two products with one weight would add up in the same places, and the gradient would be wrong without an error, so
    that the second one is refused, and so is one inside a transformation, which is traced once and may run twice. Only
    vmap over the weight's first axis, as of attention heads, gives every product its own places.
    """

    def __init__(
        self,
        weight: Float[Array, "*D I O"],
        inputs: Float[Array, "*B I"],
        outputs: Float[Array, "*B O"],
        uses: Uses,
    ):
        self.weight, self.inputs, self.outputs, self.uses = weight, inputs, outputs, uses

    def tree_flatten(self):
        """As `jax.tree_util` wants it: vmap over attention heads hands the weight on."""
        return (self.weight, self.inputs, self.outputs), self.uses

    @classmethod
    def tree_unflatten(cls, uses: Uses, leaves: Any) -> "Delayed":
        """The inverse of `tree_flatten`."""
        weight, inputs, outputs = leaves
        return cls(weight, inputs, outputs, uses)

    def multiply(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """x @ weight.

        Raises:
            ValueError: it is the second product, or would run more than once per step, or x has another shape.
        """
        self.uses.count += 1
        if self.uses.count > 1:
            problem = "was multiplied twice in one step"
        elif not self._runs_once(x):
            problem = "was multiplied inside another loop, branch or transformation of the scan's body"
        elif x.shape != self.inputs.shape:
            problem = f"was multiplied by an input {x.shape} instead of {self.inputs.shape}"
        else:
            return _delayed_product(x, self.weight, self.inputs, self.outputs)
        raise ValueError(
            f"the weight {self.uses.name} {self.weight.shape} of a scan {problem}, and its gradient would be wrong; "
            f"{ONE_PRODUCT}"
        )

    def _runs_once(self, x) -> bool:
        """Whether this is the scan's body itself, or a part of it under nothing but vmaps over the weight."""
        arrived = []

        def is_body():
            return get_opaque_trace_state() == self.uses.body

        @jax.custom_batching.custom_vmap
        def leave(x, weight, inputs, outputs):
            return ()

        @leave.def_vmap
        def leave_vmap(size, batched, *leaves):  # runs outside the vmap; no other transformation calls it
            if all(batched[1:]):
                if is_body():
                    arrived.append(True)
                else:
                    leave(*leaves)
            return (), ()

        if is_body():
            return True
        leave(x, self.weight, self.inputs, self.outputs)
        return bool(arrived)


def matmul(x: Float[Array, "*B I"], weight: Float[Array, "*D I O"] | Delayed, dtype: DTypeLike) -> Float[Array, "*B O"]:
    """x @ weight with factors in `dtype` and a float32 sum.

    With directions, weight is [D, I, O] and x is [D, B, I].

    Raises:
        ValueError: a weight of a scan is used twice in one step, or might be; see `Delayed`.
    """
    return weight.multiply(x) if isinstance(weight, Delayed) else _product(x, weight, dtype)


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


@jax.custom_vjp
def _delayed_product(x, weight, inputs, outputs):
    return _multiplied(x.astype(weight.dtype), weight)


def _delayed_forward(x, weight, inputs, outputs):
    x = x.astype(weight.dtype)
    return _multiplied(x, weight), (x, weight)


def _delayed_backward(factors, cotangent):
    x, weight = factors
    cotangent = cotangent.astype(weight.dtype)
    return _input_cotangent(cotangent, weight), None, x, cotangent


_delayed_product.defvjp(_delayed_forward, _delayed_backward)


@jax.custom_vjp
def _input_cotangent(cotangent, weight):
    """The cotangent of a delayed product's input. The weight is a constant here, so its derivative would be wrong."""
    return _multiplied(cotangent, weight.swapaxes(-1, -2))


def _refuse_second_order(cotangent, weight):
    raise ValueError(SECOND_ORDER)


_input_cotangent.defvjp(_refuse_second_order, _refuse_second_order)


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
