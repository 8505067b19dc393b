"""A scan over time in which the gradients of the weights are computed after the backward scan."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from s2s_jax.model.ops.lean_scan import lean_scan
from s2s_jax.model.ops.matmul import Delayed, Uses, weight_gradient
from s2s_jax.model.ops.target import launches_cost
from s2s_jax.shapes import Size

_PLAIN = contextvars.ContextVar("plain_gradients", default=False)


@contextlib.contextmanager
def plain_gradients() -> Iterator[None]:
    """Inside this context, models are traced as plain scans of their steps: slower, and differentiable again.

    For Hessian-vector products and the like. A function that was compiled before stays as it is.
    """
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def has_plain_gradients() -> bool:
    """Whether this code runs inside `plain_gradients`."""
    return _PLAIN.get()


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
    """`lax.scan` of `body(weights, carry, x)`, the gradients of `weights` computed after the backward scan.

    A gradient accumulated inside the scan is read and written whole at every step; computed after it, it is one large
    product. Every weight [*D, I, O] must be used in exactly one `matmul` per step, with an input [*D, *rows, I], in
    `body` itself or under vmap over D: not in a function that `body` compiles, recomputes or differentiates.

    Args:
        rows: the axes of an input between the directions and the features, usually (batch,).
        chunk: keep only the carry of every so many steps for the backward pass, which recomputes the steps between
            them: long sequences in little memory; 0 keeps all.

    Raises:
        ValueError: a weight is used in no product or in more than one, or inside another transformation than vmap over
            the weight.
    """
    steps = jax.tree.leaves(xs)[0].shape[0]  # a symbol while a program is exported
    scan_steps = functools.partial(_scan, body, weights, rows=rows, dtype=dtype)
    if not isinstance(steps, int) or not 0 < chunk < steps:  # an exported program has no backward pass
        return scan_steps(carry, xs)
    recomputed, whole = jax.checkpoint(scan_steps), steps // chunk * chunk
    chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(-1, chunk, *leaf.shape[1:]), xs)
    carry, outputs = jax.lax.scan(recomputed, carry, chunks)
    outputs = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), outputs)
    if whole == steps:
        return carry, outputs
    carry, rest = recomputed(carry, jax.tree.map(lambda leaf: leaf[whole:], xs))
    return carry, jax.tree.map(lambda first, last: jnp.concatenate([first, last]), outputs, rest)


def _scan(body, weights, carry, xs, *, rows, dtype):
    if has_plain_gradients():
        return jax.lax.scan(lambda carry, x: body(weights, carry, x), carry, xs)
    steps = jax.tree.leaves(xs)[0].shape[0]  # a symbol while a program is exported
    names = jax.tree_util.tree_map_with_path(lambda path, _: jax.tree_util.keystr(path), weights)
    constants = jax.tree.map(lambda weight: jax.lax.stop_gradient(weight.astype(dtype)), weights)
    places = jax.tree.map(lambda weight: _places(weight, (steps, *weight.shape[:-2], *rows), dtype), weights)

    def step(carry, inputs):
        places, x = inputs
        uses = jax.tree.map(Uses, names)
        delayed = jax.tree.map(
            lambda weight, use, place: Delayed(weight, place[0], place[1], use), constants, uses, places
        )
        outputs = body(delayed, carry, x)
        jax.tree.map(lambda use, weight: use.check_once(weight.shape), uses, constants)
        return outputs

    return lean_scan(step, carry, (places, xs), few_kernels=launches_cost())


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _places(weight, lead, dtype):
    """Zeros for a weight's `Delayed`, steps first, whose cotangents become the weight's gradient."""
    return _zeros(weight, lead, dtype)


def _places_forward(weight, lead, dtype):
    return _zeros(weight, lead, dtype), weight.ndim


def _places_backward(lead, dtype, rank, cotangents):
    inputs, outputs = cotangents
    return (weight_gradient(inputs, outputs, rank),)


_places.defvjp(_places_forward, _places_backward)


def _zeros(weight, lead, dtype):
    return tuple(jnp.zeros((*lead, width), dtype) for width in weight.shape[-2:])
