"""The scan over time of encoder and decoder."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from s2s_jax.model.ops.lean_scan import lean_scan
from s2s_jax.model.ops.sown import fallow
from s2s_jax.model.ops.target import launches_cost


def scan(
    body: Callable[[Any, Any], tuple[Any, Any]], carry: PyTree, xs: PyTree, *, chunk: int = 0
) -> tuple[PyTree, PyTree]:
    """`lax.scan(body, carry, xs)`, with the backward pass of `lean_scan`.

    Args:
        body: what it sows is not gathered.
        chunk: keep only the carry of every so many steps for the backward pass, which recomputes the steps between
            them: long sequences in little memory; 0 keeps what each step needs.
    """
    body, steps = _without_sowing(body), jax.tree.leaves(xs)[0].shape[0]
    sizes = [size for leaf in jax.tree.leaves((carry, xs)) for size in leaf.shape]
    if not all(isinstance(size, int) for size in sizes):  # symbols, while a program is exported: no backward pass
        return jax.lax.scan(body, carry, xs)

    def scan_steps(carry, xs):
        return lean_scan(body, carry, xs, few_kernels=launches_cost())

    if not 0 < chunk < steps:
        return scan_steps(carry, xs)
    recomputed, whole = jax.checkpoint(scan_steps), steps // chunk * chunk
    chunks = jax.tree.map(lambda leaf: leaf[:whole].reshape(whole // chunk, chunk, *leaf.shape[1:]), xs)
    carry, outputs = jax.lax.scan(recomputed, carry, chunks)
    outputs = jax.tree.map(lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), outputs)
    if whole == steps:
        return carry, outputs
    carry, rest = recomputed(carry, jax.tree.map(lambda leaf: leaf[whole:], xs))
    return carry, jax.tree.map(lambda first, last: jnp.concatenate([first, last]), outputs, rest)


def _without_sowing(body: Callable[[Any, Any], tuple[Any, Any]]) -> Callable[[Any, Any], tuple[Any, Any]]:
    def silent(carry, inputs):
        with fallow():
            return body(carry, inputs)

    return silent
