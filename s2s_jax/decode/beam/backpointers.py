"""From the backpointers of a beam to its hypotheses: tokens, log-probabilities and alignments.

No history is reordered while a beam runs: each step notes the parent of every slot, and `trace_back` reads these notes
once, from the last step to the first.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.decode.records import floats_of, pack, unpack_hypotheses
from s2s_jax.decode.result import SearchResult
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.shapes import EOS, PAD


class Backpointers(NamedTuple):
    """Of one step, per slot: the chosen token, the slot it continues, and that step's attention."""

    token: Int[Array, "R K"]
    parent: Int[Array, "R K"]  # the slot, before the choice, that is continued
    log_prob: Float[Array, "R K"]  # of the token, by the model itself, before the rules
    alignment: Float[Array, "R K S"]  # by the slot before the choice

    @classmethod
    def of(cls, bits: Int[Array, "R K N"]) -> "Backpointers":
        """What `pack` made of the fields of one step."""
        token, parent, log_prob = (bits[..., place] for place in range(3))
        return cls(token, parent, floats_of(log_prob), floats_of(bits[..., 3:]))


class FinishedHypotheses(NamedTuple):
    """Complete hypotheses, by their last step, best first."""

    value: Float[Array, "R K"]  # by which they are ranked; -inf for none
    total: Float[Array, "R K"]  # log-probability, after the rules
    time: Int[Array, "R K"]  # of the end token; for a truncated one, its number of tokens
    parent: Int[Array, "R K"]  # the slot they continue at that time
    log_prob: Float[Array, "R K"]  # of the end token

    @classmethod
    def of(cls, bits: Int[Array, "R K 5"]) -> "FinishedHypotheses":
        """What `pack` made of the fields."""
        value, total, time, parent, log_prob = (bits[..., place] for place in range(5))
        return cls(floats_of(value), floats_of(total), time, parent, floats_of(log_prob))


def best_of(finished: Int[Array, "R K 5"], new: FinishedHypotheses) -> Int[Array, "R K 5"]:
    """The best K of both, of equals the first; packed, since on a GPU each array of a loop's state is a copy."""
    both = jnp.concatenate([finished, pack(*new)], axis=1)
    _, place = jax.lax.top_k(FinishedHypotheses.of(both).value, finished.shape[1])
    return jnp.take_along_axis(both, place[..., None], axis=1)


def rank_finished(
    complete: FinishedHypotheses, truncated: FinishedHypotheses, *, open_last: bool
) -> tuple[FinishedHypotheses, Bool[Array, "R K"]]:
    """The best K of the complete and the truncated hypotheses, and which of them are truncated.

    Those of probability 0, as sparse outputs have them, come after all that are possible.

    Args:
        open_last: whether truncated ones come after all complete ones, whatever their values.
    """
    width = complete.value.shape[1]
    both = FinishedHypotheses(*(jnp.concatenate(pair, axis=1) for pair in zip(complete, truncated, strict=True)))
    is_truncated = jnp.broadcast_to((jnp.arange(2 * width) >= width)[None], both.value.shape)
    order = _order(both.value, both.total, is_truncated & open_last)[:, :width]
    best = FinishedHypotheses(*(jnp.take_along_axis(leaf, order, axis=1) for leaf in both))
    return best, (order >= width) & jnp.isfinite(best.value)


def _order(value: Float[Array, "R K"], total: Float[Array, "R K"], last: Bool[Array, "R K"]) -> Int[Array, "R K"]:
    """The places by falling value: the possible hypotheses, then the impossible, then those that are none.

    Args:
        total: log-probabilities.
        last: which come after the others of their kind.
    """
    return jnp.lexsort((-value, last, total <= IMPOSSIBLE / 2, ~jnp.isfinite(value)), axis=-1)


def trace_back(
    records: Int[Array, "R T K N"], finished: FinishedHypotheses, truncated: Bool[Array, "R K"]
) -> SearchResult:
    """The whole hypotheses, from what `pack` made of each step's `Backpointers`; truncated ones have no end token."""
    missing = ~jnp.isfinite(finished.value)

    def back(slot: Int[Array, "R K"], time: Int[Array, ""]) -> tuple[Int[Array, "R K"], Int[Array, "R K L"]]:
        step = Backpointers.of(jax.lax.dynamic_index_in_dim(records, time, axis=1, keepdims=False))
        token, parent, log_prob = (
            jnp.take_along_axis(leaf, slot, axis=1) for leaf in (step.token, step.parent, step.log_prob)
        )
        at_end = (time == finished.time) & ~truncated & ~missing
        before_end = (time < finished.time) & ~missing
        from_slot = jnp.where(at_end, finished.parent, jnp.where(before_end, parent, slot))
        alignment = jnp.take_along_axis(step.alignment, from_slot[..., None], axis=1)
        token = jnp.where(at_end, EOS, jnp.where(before_end, token, PAD)).astype(jnp.int32)
        log_prob = jnp.where(at_end, finished.log_prob, jnp.where(before_end, log_prob, 0.0))
        return from_slot, pack(token, log_prob, jnp.where((at_end | before_end)[..., None], alignment, 0.0))

    times = jnp.arange(records.shape[1], dtype=jnp.int32)
    _, found = jax.lax.scan(back, finished.parent, times, reverse=True)
    tokens, log_probs, alignment = unpack_hypotheses(jnp.moveaxis(found, 0, 2))
    return SearchResult(
        tokens, log_probs, alignment, finished.value, truncated, jnp.where(missing, -jnp.inf, finished.total)
    )


def merge_groups(result: SearchResult, groups: int) -> SearchResult:
    """The hypotheses of a sentence's groups as one list, in the order of `rank_finished` with open ones last."""
    if groups == 1:
        return result
    rows, width = result.scores.shape
    flat = SearchResult(*(leaf.reshape(rows // groups, groups * width, *leaf.shape[2:]) for leaf in result))
    order = _order(flat.scores, flat.log_weights, flat.truncated)
    return SearchResult(
        *(jnp.take_along_axis(leaf, order.reshape(order.shape + (1,) * (leaf.ndim - 2)), axis=1) for leaf in flat)
    )
