"""Exact total-variation smoothing of a row, on which the normalizer fusedmax is based."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def shift_left(x):
    """Every entry one token to the left; 0 or False enters at the right."""
    return jnp.concatenate([x[..., 1:], jnp.zeros_like(x[..., :1])], axis=-1)


class _PiecewiseLinear(NamedTuple):
    """An increasing piecewise linear function: in slot i, from start to end, it is slope_i * x - offset."""

    offset: Array
    start: Array
    end: Array  # below `start` in an empty slot


def total_variation_smoothing(scores, edges):
    """argmin 1/2 |x - e|^2 + sum edge_s |x_(s+1) - x_s|, exact, edge_s between s and s + 1. Johnson 2013.

    Dynamic programming. Forward: the least cost of the tokens up to s, as a function of x_s, has an increasing
    derivative; in the next token's problem it is clipped to [-edge, edge], which it reaches at x_s = low and x_s =
    high. Backward: x_s is x_(s+1) clipped to [low, high], so tokens of one run are equal to the last bit, and an edge
    of 0 separates its two sides.
    """
    slots = lax.expand_dims(jnp.arange(2 * scores.shape[-1], dtype=jnp.int32), range(scores.ndim - 1))

    def forward(derivative, token):
        index, score, edge = token
        derivative = derivative._replace(offset=derivative.offset + score)
        slopes = jnp.maximum(index + 1 - (slots + 1) // 2, 1)  # a slot grows steeper by 1 per token
        inverse = 1.0 / slopes.astype(jnp.float32)

        def argument_at(level):
            x = (derivative.offset + level) * inverse
            valid = (derivative.start <= x) & (derivative.start <= derivative.end)
            return jnp.max(jnp.where(valid, jnp.minimum(x, derivative.end), -jnp.inf), axis=-1, keepdims=True)

        low, high = argument_at(-edge), argument_at(edge)
        below, above = slots == 2 * index + 1, slots == 2 * index + 2  # two new slots, of values -edge and edge
        clipped = _PiecewiseLinear(
            jnp.where(below, edge, jnp.where(above, -edge, derivative.offset)),
            jnp.where(below, -jnp.inf, jnp.where(above, high, jnp.maximum(derivative.start, low))),
            jnp.where(below, low, jnp.where(above, jnp.inf, jnp.minimum(derivative.end, high))),
        )
        return clipped, (low, high)

    def backward(later, bounds):
        x = jnp.clip(later, *bounds)
        return x, x

    everywhere = jnp.where(slots == 0, jnp.inf, -jnp.inf)
    shape = (*scores.shape[:-1], slots.size)
    zero = _PiecewiseLinear(*(jnp.broadcast_to(x, shape) for x in (0.0, -everywhere, everywhere)))
    time_first = (jnp.moveaxis(x, -1, 0)[..., None] for x in (scores, edges))
    _, bounds = lax.scan(forward, zero, (jnp.arange(scores.shape[-1], dtype=jnp.int32), *time_first))
    _, smooth = lax.scan(backward, jnp.zeros_like(scores[..., :1]), bounds, reverse=True)
    return jnp.moveaxis(smooth[..., 0], 0, -1)


@functools.partial(jnp.vectorize, signature="(s),(s)->(s)")
def means_of_runs(values, joined):
    """Each value replaced by the mean of its run; `joined` is True where a token and the next are in one run."""
    ends = (~joined).astype(jnp.int32)
    total = functools.partial(
        jax.ops.segment_sum, segment_ids=jnp.cumsum(ends) - ends, num_segments=ends.size, indices_are_sorted=True
    )
    return (total(values) / jnp.maximum(total(jnp.ones_like(values)), 1.0))[jnp.cumsum(ends) - ends]
