"""Zoneout: from step to step, some numbers of a state stay what they were. Krueger et al. 2017, arXiv:1606.01305.

Unlike dropout, what is kept is drawn anew at every step. Without noise every number is the expectation.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, UInt32

from s2s_jax.model.cells import Carry
from s2s_jax.shapes import Size

Rates = tuple[float, ...]  # the probability that a number is kept, of each leaf of a carry


def zoneout_rates(state: float, cell: float, leaves: int) -> Rates:
    """The rates of a carry: that of the output, and that of what else it carries; () where nothing is kept."""
    rates = (state, *(cell,) * (leaves - 1))
    return rates if any(rates) else ()


def draw_kept(key: Key[Array, ""], rates: Rates, shape: tuple[Size, ...]) -> tuple[Bool[Array, "..."], ...]:
    """For each leaf of a carry, where it keeps its old numbers."""
    keys = jax.random.split(key, len(rates))
    return tuple(jax.random.bernoulli(one, rate, shape) for one, rate in zip(keys, rates, strict=True))


def draw_kept_at(
    keys: UInt32[Array, "B 2"], time: Int[Array, " B"], rates: Rates, layers: int, size: int
) -> tuple[tuple[Bool[Array, "B H"], ...], ...]:
    """For each layer and leaf where it keeps its old numbers at a step, from a raw key per sentence."""

    def draw_row(key, time):
        key = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), time)
        return jax.random.uniform(key, (layers * len(rates), size))

    uniform = jax.vmap(draw_row)(keys, time)
    return tuple(
        tuple(uniform[:, layer * len(rates) + leaf] < rate for leaf, rate in enumerate(rates))
        for layer in range(layers)
    )


def zone_out(rates: Rates, before: Carry, after: Carry, kept: tuple[Bool[Array, "*B H"], ...] | None = None) -> Carry:
    """The next carry: `before` where it is kept and `after` elsewhere, or the expectation where nothing was drawn."""
    if kept is None:
        return tuple(new + rate * (old - new) for rate, old, new in zip(rates, before, after, strict=True))
    return tuple(jnp.where(stays, old, new) for stays, old, new in zip(kept, before, after, strict=True))
