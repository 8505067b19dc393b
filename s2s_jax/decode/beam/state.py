"""What a beam carries from step to step, and the interface by which it chooses among continuations.

`R` are the rows of a search, each with its own beam of `K` slots: the sentences, or the groups of each sentence.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from s2s_jax.shapes import EOS


class OpenHypotheses(NamedTuple):
    """The hypotheses that have not ended."""

    total: Float[Array, "R K"]  # log-probability, after the rules; -inf where a slot is empty
    merit: Float[Array, "R K"]  # by which they were chosen
    policy_state: PyTree = ()  # the policy's own state of each, leaves [R, K, ...]; () for none


class Candidates(NamedTuple):
    """Chosen continuations, best merit first."""

    merit: Float[Array, "R C"]
    total: Float[Array, "R C"]
    token: Int[Array, "R C"]
    parent: Int[Array, "R C"]  # the slot that is continued


class Selection(NamedTuple):
    """The choice of one step."""

    best: Candidates  # the best continuations, enough of them that K are still open when K end
    open: Candidates  # the K that are continued
    policy_state: PyTree = ()  # the policy's own state of those that are continued


@runtime_checkable
class BeamPolicy(Protocol):
    """How a beam chooses continuations and ranks complete hypotheses: a pytree whose leaves lead with the rows R."""

    @property
    def groups(self) -> int:
        """Beams per sentence."""
        ...

    def first(self, total: Array) -> OpenHypotheses:
        """The hypotheses without a token, given their log-probability [R, K]."""
        ...

    def select(self, hypotheses: OpenHypotheses, logits: Array, *, normalizer: Array, time: Array) -> Selection:
        """The continuations, by `logits` [R, K, V] after the rules and their log-normalizer [R, K]."""
        ...

    def value(self, total: Array, merit: Array, length: Array, coverage: Array) -> Array:
        """The score that ranks complete hypotheses of `length` tokens; `coverage` is their `log_coverage`."""
        ...

    def bound(self, hypotheses: OpenHypotheses, longest: Array) -> Array:
        """An upper bound on the score of every continuation that ends within `longest` tokens."""
        ...

    @property
    def open_last(self) -> bool:
        """Whether hypotheses cut off at the length bound come after all complete ones, whatever their scores."""
        ...


def pool_slots(candidates: Candidates, width: int) -> Candidates:
    """The 2 * width best of the continuations that were found slot by slot, as leaves [R, K, C]."""
    rows, _, per_slot = candidates.merit.shape
    flat = Candidates(*(leaf.reshape(rows, -1) for leaf in candidates))
    merit, place = jax.lax.top_k(flat.merit, min(2 * width, flat.merit.shape[1]))
    total, token = (jnp.take_along_axis(leaf, place, axis=1) for leaf in (flat.total, flat.token))
    return Candidates(merit, total, token.astype(jnp.int32), (place // per_slot).astype(jnp.int32))


def keep_open(candidates: Candidates, width: int) -> Candidates:
    """The best candidates that do not end."""
    merit, place = jax.lax.top_k(jnp.where(candidates.token == EOS, -jnp.inf, candidates.merit), width)
    total, token, parent = (jnp.take_along_axis(leaf, place, axis=1) for leaf in candidates[1:])
    # where fewer than `width` are open, a slot may hold an ended one
    return Candidates(merit, jnp.where(jnp.isfinite(merit), total, -jnp.inf), token, parent)
