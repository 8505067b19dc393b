"""What does a beam carry from step to step, and how does it choose among the continuations of its slots?

`R` are the rows of a search, each with a beam of `K` slots of its own: the sentences, or each sentence's groups.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from s2s_jax.shapes import EOS


class OpenHypotheses(NamedTuple):
    """The open hypotheses."""

    total: Float[Array, "R K"]  # log-probability, after the rules; -inf where a slot is empty
    merit: Float[Array, "R K"]  # what they were chosen by
    policy_state: PyTree = ()  # what a way remembers of each of them, leaves [R, K, ...]; () when nothing


class Candidates(NamedTuple):
    """Continuations chosen, best merit first."""

    merit: Float[Array, "R C"]
    total: Float[Array, "R C"]
    token: Int[Array, "R C"]
    parent: Int[Array, "R C"]  # the slot that is continued


class Selection(NamedTuple):
    """What a step makes of the open hypotheses."""

    best: Candidates  # the best continuations, enough of them that K are still open when K end
    open: Candidates  # the K that go on
    policy_state: PyTree = ()  # what the way remembers of those that go on


@runtime_checkable
class BeamPolicy(Protocol):
    """A way to choose: what a beam is the best by. A pytree, whose leaves lead with the rows R."""

    @property
    def groups(self) -> int:
        """Beams of each sentence."""
        ...

    def first(self, total: Array) -> OpenHypotheses:
        """The beginning that holds no token yet, given its log-probability [R, K]."""
        ...

    def select(self, live: OpenHypotheses, logits: Array, *, normalizer: Array, time: Array) -> Selection:
        """The continuations; `logits` are those that the rules leave, `normalizer` is what to take off each."""
        ...

    def value(self, total: Array, merit: Array, length: Array, uncovered: Array) -> Array:
        """What complete hypotheses are compared by."""
        ...

    def bound(self, live: OpenHypotheses, longest: Array) -> Array:
        """What no continuation of the live hypotheses, complete at `longest` tokens or before, has more of."""
        ...

    @property
    def open_last(self) -> bool:
        """Whether complete hypotheses come before those cut off at the bound, whatever their values."""
        ...


def pooled(of_slot: Candidates, width: int) -> Candidates:
    """The 2 * width best of the continuations that were found slot by slot; the leaves come as [R, K, C]."""
    rows, _, each = of_slot.merit.shape
    flat = Candidates(*(leaf.reshape(rows, -1) for leaf in of_slot))
    merit, place = jax.lax.top_k(flat.merit, min(2 * width, flat.merit.shape[1]))
    total, token = (jnp.take_along_axis(leaf, place, axis=1) for leaf in (flat.total, flat.token))
    return Candidates(merit, total, token.astype(jnp.int32), (place // each).astype(jnp.int32))


def still_open(choice: Candidates, width: int) -> Candidates:
    """The best of a choice that don't end."""
    merit, place = jax.lax.top_k(jnp.where(choice.token == EOS, -jnp.inf, choice.merit), width)
    total, token, parent = (jnp.take_along_axis(leaf, place, axis=1) for leaf in choice[1:])
    # an ending may stand in a slot that nothing fills
    return Candidates(merit, jnp.where(jnp.isfinite(merit), total, -jnp.inf), token, parent)
