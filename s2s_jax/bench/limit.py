"""What can this machine do at best? Measured, not looked up: the fastest matrix product and the fastest copy."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from s2s_jax.model.products import PRECISIONS

SIZES = {"cpu": (1024, 2048), "gpu": (8192, 16384), "tpu": (8192,)}
COPIED = {"cpu": 1 << 25, "gpu": 1 << 28, "tpu": 1 << 28}  # floats: far more than any cache holds
REPEATS = 8


class Limit(NamedTuple):
    """What nothing on this machine can exceed."""

    gflops: dict[str, float]  # of matrix products, by precision, 10^9 operations a second
    copy_gb_s: float  # bytes read and bytes written, 10^9 a second


def measured() -> Limit:
    """The limit of the first device, a few seconds' work."""
    platform = jax.default_backend()
    products = {
        name: max(2 * size**3 / _fastest(_product, jnp.ones((size, size), dtype)) / 1e9 for size in SIZES[platform])
        for name, dtype in PRECISIONS.items()
    }
    floats = jnp.ones(COPIED[platform])
    return Limit(products, 2 * floats.nbytes / _fastest(jnp.negative, floats) / 1e9)


def _product(x):
    return jnp.einsum("ij,jk->ik", x, x, preferred_element_type=jnp.float32)


def _fastest(function: Callable, argument: jax.Array) -> float:
    """The shortest of some runs, in seconds."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(argument))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(compiled(argument))
        seconds.append(time.perf_counter() - began)
    return min(seconds)
