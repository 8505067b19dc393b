"""The beam of one sentence as a tree: which continuations each step considered, what became of them, and why.

The search is that of `decode.beam`; a policy around the plain one also notes the candidates of every step.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from s2s_jax.decode.beam.engine import search_with_policy
from s2s_jax.decode.beam.policy import StandardPolicy
from s2s_jax.decode.beam.state import OpenHypotheses, Selection
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.search import SearchConfig
from s2s_jax.model.interface import Model, Params, Source
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.model.ops.sown import reaping
from s2s_jax.shapes import BOS, EOS

Fate = Literal["continued", "pruned", "rejected", "ended", "open"]


class CandidateRecord(NamedTuple):
    """The best continuations of each step, best first, at most two per slot of the beam."""

    total: Float[Array, "R T C"]  # log-probability of the whole, after the rules; -inf for none
    token: Int[Array, "R T C"]
    parent: Int[Array, "R T C"]  # the slot that is continued


class Node(NamedTuple):
    """A continuation that the beam considered; the first node is the beginning of the sentence."""

    parent: int  # number of the node that it continues; -1 for none
    step: int  # tokens before it; -1 for the beginning
    token: int
    log_prob: float  # after the rules
    total: float  # of all tokens up to here
    fate: Fate


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingPolicy:
    """The choices of another policy, with a record of what it chose among."""

    inner: StandardPolicy
    steps: int
    groups = 1
    open_last = True

    def first(self, total: Array) -> OpenHypotheses:
        """As the inner one, with an empty record."""
        shape = (total.shape[0], self.steps, 2 * total.shape[1])
        none = jnp.zeros(shape, jnp.int32)
        return self.inner.first(total)._replace(policy_state=CandidateRecord(jnp.full(shape, -jnp.inf), none, none))

    def select(self, hypotheses: OpenHypotheses, logits: Array, *, normalizer: Array, time: Array) -> Selection:
        """As the inner one."""
        selection = self.inner.select(hypotheses, logits, normalizer=normalizer, time=time)
        best = selection.best
        new = CandidateRecord(best.total, best.token, best.parent)
        record = jax.tree.map(
            lambda old, entry: jax.lax.dynamic_update_index_in_dim(old, entry, time, axis=1),
            hypotheses.policy_state,
            new,
        )
        return selection._replace(policy_state=record)

    def value(self, total: Array, merit: Array, length: Array, coverage: Array) -> Array:
        """As the inner one."""
        return self.inner.value(total, merit, length, coverage)

    def bound(self, hypotheses: OpenHypotheses, longest: Array) -> Array:
        """As the inner one."""
        return self.inner.bound(hypotheses, longest)


def search_with_record(
    model: Model,
    params: Params,
    source: Source,
    prefix: Int[Array, "B P"],
    *,
    config: SearchConfig,
    width: int,
    max_length: int,
) -> tuple[SearchResult, CandidateRecord, Int[Array, " B"]]:
    """What beam search finds, what it considered at each step, and the steps that it took.

    Args:
        config: its score, rules, sibling penalty and stopping are used.
        prefix: tokens that every hypothesis begins with, PAD behind them.
    """
    scoring = config.scoring()
    inner = StandardPolicy(scoring=scoring, sibling_penalty=config.sibling_penalty)
    with reaping() as sown:
        result = search_with_policy(
            model,
            params,
            source,
            RecordingPolicy(inner=inner, steps=max_length),
            width=width,
            max_length=max_length,
            coverage=scoring.coverage > 0,
            stopping=config.stopping,
            rules=config.rules,
            prefix=prefix,
        )
    (last,) = (value for name, value in sown if name == "beam")
    return result, last.open.policy_state, last.lengths


def beam_tree(record: CandidateRecord, row: int, *, width: int, steps: int) -> list[Node]:
    """The tree of one row's record; a parent comes before its children.

    A node is `continued` if a continuation of it was kept or ended, `pruned` if it was kept and all continuations
    lost, `rejected` if it was never kept, `ended` if it completed a hypothesis, `open` if the search ended before it.
    """
    total, token, parent = (np.asarray(leaf[row]) for leaf in record)
    nodes = [Node(-1, -1, BOS, 0.0, 0.0, "open")]
    slots = [0]
    for step in range(steps):
        kept: list[int] = []
        for place in range(total.shape[1]):
            if not total[step, place] > IMPOSSIBLE / 2:
                continue
            above = slots[parent[step, place]]
            number, sum_ = int(token[step, place]), float(total[step, place])
            fate: Fate = "rejected"
            if number == EOS and place < width:
                fate = "ended"
            elif number != EOS and len(kept) < width:
                fate = "open"
                kept.append(len(nodes))
            if fate != "rejected":
                nodes[above] = nodes[above]._replace(fate="continued")
            nodes.append(Node(above, step, number, sum_ - nodes[above].total, sum_, fate))
        lost = (slot for slot in slots if nodes[slot].fate == "open")
        for slot in lost:
            nodes[slot] = nodes[slot]._replace(fate="pruned")
        slots = kept
    return nodes


def path_of(nodes: list[Node], number: int) -> tuple[int, ...]:
    """The tokens from the beginning to a node."""
    tokens: list[int] = []
    while number > 0:
        tokens.append(nodes[number].token)
        number = nodes[number].parent
    return tuple(reversed(tokens))
