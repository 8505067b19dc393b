"""Which translation is the best, as far as following the K best beginnings can tell?

No history is ever reordered: each step notes who came from whom, and the hypotheses, with their alignments, are traced
back once, at the end. Every leaf of the decoder's state is gathered, so any attention may remember what it likes.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from s2s_jax.decode.beam.backpointers import (
    Backpointers,
    FinishedHypotheses,
    best_of,
    chosen_ends,
    merge_groups,
    trace_back,
)
from s2s_jax.decode.beam.policy import StandardPolicy
from s2s_jax.decode.beam.state import BeamPolicy, Candidates, OpenHypotheses
from s2s_jax.decode.compaction import loop_until_done
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore, uncovered
from s2s_jax.decode.logits_rules import NO_RULES, LogitsRules, apply_rules, limits_of
from s2s_jax.decode.result import SearchResult
from s2s_jax.model.interface import Model, Params
from s2s_jax.shapes import BOS, EOS, PAD, real

StoppingName = Literal["full", "bounded", "never"]


class BeamLoop(NamedTuple):
    """Where the loop stands."""

    carried: PyTree  # what each slot remembers, leaves lead with R*K: the model's state, the tokens, the coverage
    token: Int[Array, "R K"]
    open: OpenHypotheses
    tokens: Int[Array, " R"]  # tokens of the live hypotheses
    done: Bool[Array, " R"]
    backpointers: Backpointers
    finished: FinishedHypotheses


def beam(
    model: Model,
    params: Params,
    source: Int[Array, "B S"],
    *,
    width: int,
    max_length: int,
    scoring: HypothesisScore = LIKELIHOOD,
    groups: int = 1,
    group_penalty: float = 0.0,
    sibling_penalty: float = 0.0,
    stopping: str = "full",
    n_best: int | None = None,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """The `width` best hypotheses of each sentence; a width of 1 gives what greedy search gives.

    A hypothesis ends when EOS is among the `width` best continuations of its step. Those still live at the length
    bound come last, marked as truncated.

    Args:
        groups: beams of `width / groups` slots each, which differ where `group_penalty` is above 0.
        stopping: a sentence is done when `width` hypotheses have ended ("full"); when no live one can come among the
            `n_best` any more ("bounded": what "never" gives, sooner); or when none is live ("never").
        n_best: hypotheses wanted of each group; all of them where it is None.
        compactions: see `decode.loop`.
    """
    way = StandardPolicy(scoring=scoring, groups=groups, group_penalty=group_penalty, sibling_penalty=sibling_penalty)
    return search(
        model,
        params,
        source,
        way,
        width=width // groups,
        max_length=max_length,
        coverage=scoring.coverage > 0,
        stopping=stopping,
        n_best=n_best,
        rules=rules,
        prefix=prefix,
        compactions=compactions,
    )


def search(
    model: Model,
    params: Params,
    source: Int[Array, "B S"],
    policy: BeamPolicy,
    *,
    width: int,
    max_length: int,
    coverage: bool = False,
    stopping: str = "full",
    n_best: int | None = None,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """The `width` best hypotheses of each of the way's groups, together, in one compiled loop."""
    wanted = width if n_best is None else min(n_best, width)
    slots = policy.groups * width
    memory, state = jax.tree.map(lambda leaf: jnp.repeat(leaf, slots, axis=0), model.encode(params, source))
    limits = limits_of(rules, source, max_length=max_length, prefix=prefix, each=slots)
    mask = jnp.repeat(real(source), slots, axis=0)
    rows, length = source.shape[0] * policy.groups, source.shape[1]
    longest = limits.most.reshape(rows, width)[:, 0]

    def by_slot(leaf: Array) -> Array:
        return leaf.reshape(leaf.shape[0] // width, width, *leaf.shape[1:])

    def gathered(leaf: Array, parent: Int[Array, "R K"]) -> Array:
        return leaf[(parent + width * jnp.arange(parent.shape[0], dtype=jnp.int32)[:, None]).reshape(-1)]

    def advance(fixed: tuple, now: BeamLoop, time: Int[Array, ""]) -> BeamLoop:
        way, memory, limits, mask, longest = fixed
        state, said, covered = now.carried
        state, step = model.step(params, memory, state, now.token.reshape(-1))
        allowed = apply_rules(step.logits, rules, limits, time=time, said=said)
        normalizer = by_slot(step.log_normalizer)
        # what a neighbor still waits for must not change a row that is done: it has no live hypotheses here
        total, merit = (jnp.where(now.done[:, None], -jnp.inf, leaf) for leaf in now.open[:2])
        live = OpenHypotheses(total, merit, now.open.policy_state)
        picked = way.select(live, by_slot(allowed), normalizer=normalizer, time=time)
        choice, kept = picked.best, picked.open
        own = [log_probs_of(one, by_slot(step.logits), normalizer) for one in (choice, kept)]
        looked = jnp.zeros_like(total)
        if covered is not None:
            covered += step.alignment
            looked = by_slot(uncovered(covered, mask))
        ends = best_of(now.finished, ended(choice, own[0], time, way=way, looked=looked, width=width))
        entry = (kept.token, kept.parent, own[1], by_slot(step.alignment))
        history = Backpointers(*(old.at[:, time].set(new) for old, new in zip(now.backpointers, entry, strict=True)))
        carried = jax.tree.map(lambda leaf: gathered(leaf, kept.parent), (state, said, covered))
        if said is not None:
            carried = (carried[0], carried[1].at[:, time].set(kept.token.reshape(-1)), carried[2])
        fresh = zip(now.open[:2], (kept.total, kept.merit), strict=True)
        total, merit = (jnp.where(now.done[:, None], old, new) for old, new in fresh)
        live = OpenHypotheses(total, merit, picked.policy_state)
        tokens = jnp.where(now.done, now.tokens, time + 1)
        done = now.done | is_done(way, live, ends, tokens, longest)
        return BeamLoop(carried, kept.token, live, tokens, done, history, ends)

    def is_done(
        way: BeamPolicy,
        live: OpenHypotheses,
        ends: FinishedHypotheses,
        tokens: Int[Array, " R"],
        longest: Int[Array, " R"],
    ) -> Bool[Array, " R"]:
        over = (tokens >= longest) | ~jnp.isfinite(live.total).any(-1)
        if stopping == "full":
            return over | jnp.isfinite(ends.value).all(-1)
        if stopping == "bounded":
            reach = way.bound(live, longest.astype(jnp.float32)[:, None]).max(-1)
            return over | (ends.value[:, wanted - 1] >= reach)
        return over

    first = start(source, policy, width=width, max_length=max_length)
    said = jnp.full((rows * width, max_length), PAD, jnp.int32) if rules.look_back else None
    covered = jnp.zeros((rows * width, length)) if coverage else None
    last = loop_until_done(
        advance,
        lambda now: now.done.reshape(-1, policy.groups).all(-1),
        (policy, memory, limits, mask, longest),
        first._replace(carried=(state, said, covered)),
        most=max_length,
        compactions=compactions,
    )
    looked = jnp.zeros((rows, width)) if not coverage else by_slot(uncovered(last.carried[2], mask))
    ends, cut = chosen_ends(last.finished, cut_off(last, way=policy, looked=looked), open_last=policy.open_last)
    found = trace_back(last.backpointers, ends, cut)
    return merge_groups(SearchResult(*(leaf[:, :wanted] for leaf in found)), policy.groups)


def start(source: Int[Array, "B S"], way: BeamPolicy, *, width: int, max_length: int) -> BeamLoop:
    """Before the first step: all slots hold the same beginning, and one of them lives; none of an empty sentence."""
    empty = jnp.repeat(~real(source).any(-1), way.groups)
    rows = empty.shape[0]
    total = jnp.zeros((rows, width)).at[:, 1:].set(-jnp.inf)
    total = jnp.where(empty[:, None], -jnp.inf, total)
    slots = (rows, max_length, width)
    history = Backpointers(
        jnp.full(slots, PAD, jnp.int32),
        jnp.zeros(slots, jnp.int32),
        jnp.zeros(slots),
        jnp.zeros((*slots, source.shape[1])),
    )
    nobody, none = jnp.zeros((rows, width), jnp.int32), jnp.full((rows, width), -jnp.inf)
    return BeamLoop(
        (),
        jnp.full((rows, width), BOS, jnp.int32),
        way.first(total),
        jnp.zeros((rows,), jnp.int32),
        empty,
        history,
        FinishedHypotheses(none, none, nobody, nobody, jnp.zeros((rows, width))),
    )


def log_probs_of(
    choice: Candidates, logits: Float[Array, "R K V"], normalizer: Float[Array, "R K"]
) -> Float[Array, "R C"]:
    """The model's own log-probability of each chosen token."""
    rows = jnp.arange(logits.shape[0])[:, None]
    return logits[rows, choice.parent, choice.token] - jnp.take_along_axis(normalizer, choice.parent, axis=1)


def ended(
    choice: Candidates,
    log_prob: Float[Array, "R C"],
    time: Int[Array, ""],
    *,
    way: BeamPolicy,
    looked: Float[Array, "R K"],
    width: int,
) -> FinishedHypotheses:
    """The hypotheses that a step completes: EOS is among its `width` best continuations."""
    ends = (choice.token == EOS) & (jnp.arange(choice.token.shape[1]) < width)[None]
    length, looked = time.astype(jnp.float32) + 1, jnp.take_along_axis(looked, choice.parent, axis=1)
    value = jnp.where(ends, way.value(choice.total, choice.merit, length, looked), -jnp.inf)
    return FinishedHypotheses(value, choice.total, jnp.full_like(choice.token, time), choice.parent, log_prob)


def cut_off(last: BeamLoop, *, way: BeamPolicy, looked: Float[Array, "R K"]) -> FinishedHypotheses:
    """The hypotheses that are live when their row is done, as if they were complete."""
    length = jnp.maximum(last.tokens, 1).astype(jnp.float32)[:, None]
    value = way.value(last.open.total, last.open.merit, length, looked)
    shape = last.open.total.shape
    return FinishedHypotheses(
        jnp.where(jnp.isfinite(last.open.total), value, -jnp.inf),
        last.open.total,
        jnp.broadcast_to(last.tokens[:, None], shape),
        jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32)[None], shape),
        jnp.zeros(shape),
    )
