"""Which tokens, log-probabilities and alignments did a hypothesis of a beam have, from its last one to its first?

No history is reordered while a beam runs: each step notes who came from whom, and this file reads it backwards, once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.decode.result import SearchResult
from s2s_jax.shapes import EOS, PAD


class Backpointers(NamedTuple):
    """Each step's choice for each slot, and what each slot saw and said before that choice."""

    token: Int[Array, "R T K"]
    parent: Int[Array, "R T K"]  # the slot, before the choice, that a slot continues
    log_prob: Float[Array, "R T K"]  # of the token, as the model itself says it
    alignment: Float[Array, "R T K S"]  # by the slot before the choice


class FinishedHypotheses(NamedTuple):
    """Where hypotheses end, best first."""

    value: Float[Array, "R K"]  # what they are compared by; -inf: nobody
    total: Float[Array, "R K"]  # log-probability, after the rules
    time: Int[Array, "R K"]  # of the end token; of one cut off, the tokens that it has
    parent: Int[Array, "R K"]  # the slot they continue at that time
    log_prob: Float[Array, "R K"]  # of the end token


def best_of(ends: FinishedHypotheses, others: FinishedHypotheses) -> FinishedHypotheses:
    """The best K of both, of equals the first."""
    both = FinishedHypotheses(*(jnp.concatenate(pair, axis=1) for pair in zip(ends, others, strict=True)))
    value, place = jax.lax.top_k(both.value, ends.value.shape[1])
    return FinishedHypotheses(value, *(jnp.take_along_axis(leaf, place, axis=1) for leaf in both[1:]))


def chosen_ends(
    complete: FinishedHypotheses, cut: FinishedHypotheses, *, open_last: bool
) -> tuple[FinishedHypotheses, Bool[Array, "R K"]]:
    """The best K of the complete hypotheses and those cut off, and which of them are cut off."""
    width = complete.value.shape[1]
    both = FinishedHypotheses(*(jnp.concatenate(pair, axis=1) for pair in zip(complete, cut, strict=True)))
    is_cut = jnp.broadcast_to((jnp.arange(2 * width) >= width)[None], both.value.shape)
    group = jnp.where(jnp.isfinite(both.value), jnp.where(is_cut & open_last, 1, 0), 2)
    order = jnp.lexsort((-both.value, group), axis=-1)[:, :width]
    ends = FinishedHypotheses(*(jnp.take_along_axis(leaf, order, axis=1) for leaf in both))
    return ends, (order >= width) & jnp.isfinite(ends.value)


def trace_back(history: Backpointers, ends: FinishedHypotheses, cut: Bool[Array, "R K"]) -> SearchResult:
    """The hypotheses that end so; `cut` ones have no end token."""
    nobody = ~jnp.isfinite(ends.value)

    def back(slot: Int[Array, "R K"], time: Int[Array, ""]) -> tuple[Int[Array, "R K"], tuple]:
        now = Backpointers(*(leaf[:, time] for leaf in history))
        token, parent, log_prob = (
            jnp.take_along_axis(leaf, slot, axis=1) for leaf in (now.token, now.parent, now.log_prob)
        )
        at_end, inside = (time == ends.time) & ~cut & ~nobody, (time < ends.time) & ~nobody
        from_slot = jnp.where(at_end, ends.parent, jnp.where(inside, parent, slot))
        seen = jnp.take_along_axis(now.alignment, from_slot[..., None], axis=1)
        token = jnp.where(at_end, EOS, jnp.where(inside, token, PAD)).astype(jnp.int32)
        log_prob = jnp.where(at_end, ends.log_prob, jnp.where(inside, log_prob, 0.0))
        return from_slot, (token, log_prob, jnp.where((at_end | inside)[..., None], seen, 0.0))

    times = jnp.arange(history.token.shape[1], dtype=jnp.int32)
    _, (tokens, log_probs, alignment) = jax.lax.scan(back, ends.parent, times, reverse=True)
    tokens, log_probs, alignment = (jnp.moveaxis(leaf, 0, 2) for leaf in (tokens, log_probs, alignment))
    return SearchResult(tokens, log_probs, alignment, ends.value, cut, jnp.where(nobody, -jnp.inf, ends.total))


def merge_groups(found: SearchResult, groups: int) -> SearchResult:
    """The hypotheses of a sentence's groups as one list, best first, those cut off behind the others."""
    if groups == 1:
        return found
    rows, width = found.scores.shape
    flat = SearchResult(*(leaf.reshape(rows // groups, groups * width, *leaf.shape[2:]) for leaf in found))
    order = jnp.lexsort((-flat.scores, flat.truncated | ~jnp.isfinite(flat.scores)), axis=-1)
    return SearchResult(
        *(jnp.take_along_axis(leaf, order.reshape(order.shape + (1,) * (leaf.ndim - 2)), axis=1) for leaf in flat)
    )
