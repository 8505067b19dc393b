"""The limit of this machine, measured: the fastest matrix product and the fastest copy."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from s2s_jax.model.ops.matmul import PRECISIONS

PRODUCT_SIZES = {"cpu": (1024, 2048), "gpu": (8192, 16384), "tpu": (8192,)}
COPIED_FLOATS = {"cpu": 1 << 25, "gpu": 1 << 28, "tpu": 1 << 28}  # far more than any cache holds
REPEATS = 8


class Roofline(NamedTuple):
    """What no program on this machine can exceed."""

    gflops: dict[str, float]  # of matrix products, by precision, in 10^9 operations per second
    copy_gb_s: float  # bytes read plus bytes written, in 10^9 per second


def measure_roofline() -> Roofline:
    """The limit of the first device; takes a few seconds."""
    platform = jax.default_backend()
    products = {
        name: max(
            2 * size**3 / _fastest(_product, _random((size, size), dtype)) / 1e9 for size in PRODUCT_SIZES[platform]
        )
        for name, dtype in PRECISIONS.items()
    }
    floats = COPIED_FLOATS[platform]
    return Roofline(products, 2 * 4 * floats / _fastest_copy(_random((floats,), jnp.float32)) / 1e9)


def _random(shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Random numbers: a GPU draws less power on constant ones, and is faster with them."""
    return jax.random.normal(jax.random.key(0), shape, dtype)


def _product(x):
    return jnp.einsum("ij,jk->ik", x, x, preferred_element_type=jnp.float32)


def _fastest_copy(floats: jax.Array) -> float:
    """The shortest time, in seconds, of copying one of two arrays over the other, so that no memory is allocated."""
    copy, seconds = jax.jit(lambda target, source: target.at[:].set(-source), donate_argnums=0), []
    target = jnp.zeros_like(floats)
    for _ in range(REPEATS):
        jax.block_until_ready((target, floats))
        began = time.perf_counter()
        target, floats = floats, jax.block_until_ready(copy(target, floats))
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def _fastest(function: Callable, argument: jax.Array) -> float:
    """The shortest of several runs, in seconds."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(argument))
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        jax.block_until_ready(compiled(argument))
        seconds.append(time.perf_counter() - began)
    return min(seconds)
