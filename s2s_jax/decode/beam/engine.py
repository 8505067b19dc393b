"""Beam search: one compiled loop, in which a policy chooses the continuations.

No history is reordered while the beam runs: each step notes which hypothesis every slot continues, and the hypotheses
with their alignments are traced back once, at the end. Every leaf of the decoder's state is gathered, so any attention
may keep a state of its own.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from s2s_jax.decode.beam.backpointers import (
    Backpointers,
    FinishedHypotheses,
    best_of,
    merge_groups,
    rank_finished,
    trace_back,
)
from s2s_jax.decode.beam.policy import StandardPolicy
from s2s_jax.decode.beam.state import BeamPolicy, Candidates, OpenHypotheses
from s2s_jax.decode.compaction import loop_until_done
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore, log_coverage
from s2s_jax.decode.logits_rules import NO_RULES, Limits, LogitsRules, apply_rules, limits_of
from s2s_jax.decode.records import no_records, pack, write_record
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.rounding import round_once
from s2s_jax.model.interface import Memory, Model, Params, Source
from s2s_jax.model.ops.logits import IMPOSSIBLE
from s2s_jax.model.ops.sown import sow
from s2s_jax.shapes import BOS, EOS, PAD, real, source_tokens

StoppingName = Literal["full", "bounded", "never"]


class BeamLoop(NamedTuple):
    """The loop's state."""

    carried: PyTree  # per slot, leaves lead with R*K: the model's state, the tokens, the summed attention
    token: Int[Array, "R K"]
    open: OpenHypotheses
    lengths: Int[Array, " R"]  # tokens of the open hypotheses
    done: Bool[Array, " R"]
    records: Int[Array, "R T K N"]  # of each step the `Backpointers`
    finished: Int[Array, "R K 5"]  # the `FinishedHypotheses`


class FixedInputs(NamedTuple):
    """What every step reads and none changes."""

    policy: BeamPolicy
    memory: Memory
    limits: Limits
    mask: Bool[Array, "RK S"]
    longest: Int[Array, " R"]


def beam(
    model: Model,
    params: Params,
    source: Source,
    *,
    width: int,
    max_length: int,
    scoring: HypothesisScore = LIKELIHOOD,
    groups: int = 1,
    group_penalty: float = 0.0,
    sibling_penalty: float = 0.0,
    stopping: StoppingName = "full",
    n_best: int | None = None,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """The `width` best hypotheses of each sentence; a width of 1 gives what greedy search gives.

    A hypothesis ends when EOS is among the `width` best continuations of its step. Those still open at the length
    bound come last, marked as truncated.

    Args:
        groups: beams of `width / groups` slots each, which differ where `group_penalty` is above 0.
        stopping: a sentence is done when `width` hypotheses have ended ("full"); when no open one can enter the
            `n_best` any more ("bounded": the result of "never", sooner); or when none is open ("never").
        n_best: hypotheses returned per group; all of them where it is None.
        compactions: see `decode.compaction`.
    """
    policy = StandardPolicy(
        scoring=scoring, groups=groups, group_penalty=group_penalty, sibling_penalty=sibling_penalty
    )
    return search_with_policy(
        model,
        params,
        source,
        policy,
        width=width // groups,
        max_length=max_length,
        coverage=scoring.coverage > 0,
        stopping=stopping,
        n_best=n_best,
        rules=rules,
        prefix=prefix,
        compactions=compactions,
    )


def search_with_policy(
    model: Model,
    params: Params,
    source: Source,
    policy: BeamPolicy,
    *,
    width: int,
    max_length: int,
    coverage: bool = False,
    stopping: StoppingName = "full",
    n_best: int | None = None,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """The `width` best hypotheses of each of the policy's groups, merged per sentence, in one compiled loop.

    Args:
        coverage: whether the attention is summed, for the policy's `value`.
        stopping, n_best, compactions: see `beam`.
    """
    returned = width if n_best is None else min(n_best, width)
    slots = policy.groups * width
    memory, state = jax.tree.map(lambda leaf: jnp.repeat(leaf, slots, axis=0), model.encode(params, source))
    line = source_tokens(source)
    limits = limits_of(rules, line, max_length=max_length, prefix=prefix, repeats=slots)
    mask = jnp.repeat(real(line), slots, axis=0)
    rows, length = line.shape[0] * policy.groups, line.shape[1]
    longest = limits.longest.reshape(rows, width)[:, 0]
    tokens = jnp.full((rows * width, max_length), PAD, jnp.int32) if rules.look_back else None
    attention = jnp.zeros((rows * width, length)) if coverage else None
    first = initial_beam(line, policy, width=width, max_length=max_length)
    params, memory = round_once(model, params, memory, state, first.token.reshape(-1))
    last = loop_until_done(
        beam_step(model, params, rules, width=width, is_done=done_rule(stopping, returned)),
        lambda loop: loop.done.reshape(-1, policy.groups).all(-1),
        FixedInputs(policy, memory, limits, mask, longest),
        first._replace(carried=(state, tokens, attention)),
        steps=max_length,
        compactions=compactions,
    )
    sow("beam", last)
    covered = jnp.zeros((rows, width)) if not coverage else by_slot(log_coverage(last.carried[2], mask), width)
    truncated = truncated_hypotheses(last, policy=policy, coverage=covered)
    finished, is_truncated = rank_finished(FinishedHypotheses.of(last.finished), truncated, open_last=policy.open_last)
    result = trace_back(last.records, finished, is_truncated)
    return merge_groups(SearchResult(*(leaf[:, :returned] for leaf in result)), policy.groups)


def by_slot(leaf: Array, width: int) -> Array:
    """[R*K, ...] as [R, K, ...]."""
    return leaf.reshape(leaf.shape[0] // width, width, *leaf.shape[1:])


def gather_slots(leaf: Array, parent: Int[Array, "R K"]) -> Array:
    """The rows [R*K, ...] of the slots that are continued."""
    width = parent.shape[1]
    return leaf[(parent + width * jnp.arange(parent.shape[0], dtype=jnp.int32)[:, None]).reshape(-1)]


# (policy, open, finished, lengths, longest) -> whether each row is done
DoneRule = Callable[[BeamPolicy, OpenHypotheses, FinishedHypotheses, Array, Array], Array]


def done_rule(stopping: StoppingName, returned: int) -> DoneRule:
    """When a row is done, by `search.stopping`; `returned` is the number of hypotheses per row that must be final."""

    def is_done(
        policy: BeamPolicy,
        hypotheses: OpenHypotheses,
        finished: FinishedHypotheses,
        lengths: Int[Array, " R"],
        longest: Int[Array, " R"],
    ) -> Bool[Array, " R"]:
        over = (lengths >= longest) | ~jnp.isfinite(hypotheses.total).any(-1)
        if stopping == "full":
            possible = jnp.isfinite(finished.value) & (finished.total > IMPOSSIBLE / 2)
            is_open = (hypotheses.total > IMPOSSIBLE / 2).any(-1)  # what follows the impossible is impossible
            return over | possible.all(-1) | (possible.any(-1) & ~is_open)
        if stopping == "bounded":
            bound = policy.bound(hypotheses, longest.astype(jnp.float32)[:, None]).max(-1)
            return over | (finished.value[:, returned - 1] >= bound)
        return over

    return is_done


def beam_step(
    model: Model, params: Params, rules: LogitsRules, *, width: int, is_done: DoneRule
) -> Callable[[FixedInputs, BeamLoop, Array], BeamLoop]:
    """One step of the beam, for `loop_until_done`."""

    def advance(fixed: FixedInputs, loop: BeamLoop, time: Int[Array, ""]) -> BeamLoop:
        policy, memory, limits, mask, longest = fixed
        state, tokens, attention = loop.carried
        state, step = model.step(params, memory, state, loop.token.reshape(-1))
        allowed = apply_rules(step.logits, rules, limits, time=time, previous=tokens)
        normalizer = by_slot(step.log_normalizer, width)
        # what an unfinished neighbor does must not change a row that is done: it has no open hypotheses here
        total, merit = (jnp.where(loop.done[:, None], -jnp.inf, leaf) for leaf in loop.open[:2])
        hypotheses = OpenHypotheses(total, merit, loop.open.policy_state)
        selection = policy.select(hypotheses, by_slot(allowed, width), normalizer=normalizer, time=time)
        best, kept = selection.best, selection.open
        log_probs = [log_probs_of(each, by_slot(step.logits, width), normalizer) for each in (best, kept)]
        coverage = jnp.zeros_like(total)
        if attention is not None:
            attention += step.alignment
            coverage = by_slot(log_coverage(attention, mask), width)
        new = completed(best, log_probs[0], time, policy=policy, coverage=coverage, width=width)
        finished = best_of(loop.finished, new)
        entry = Backpointers(kept.token, kept.parent, log_probs[1], by_slot(step.alignment, width))
        records = write_record(loop.records, time, *entry)
        state, tokens, continued = jax.tree.map(
            lambda leaf: gather_slots(leaf, kept.parent), (state, tokens, attention)
        )
        if tokens is not None:
            tokens = jax.lax.dynamic_update_index_in_dim(tokens, kept.token.reshape(-1), time, axis=1)
        if attention is not None:  # of a row that is done, the truncated hypotheses are still to be scored by it
            continued = jnp.where(jnp.repeat(loop.done, width)[:, None], loop.carried[2], continued)
        pairs = zip(loop.open[:2], (kept.total, kept.merit), strict=True)
        total, merit = (jnp.where(loop.done[:, None], old, new) for old, new in pairs)
        hypotheses = OpenHypotheses(total, merit, selection.policy_state)
        lengths = jnp.where(loop.done, loop.lengths, time + 1)
        done = loop.done | is_done(policy, hypotheses, FinishedHypotheses.of(finished), lengths, longest)
        return BeamLoop((state, tokens, continued), kept.token, hypotheses, lengths, done, records, finished)

    return advance


def initial_beam(source: Int[Array, "B S"], policy: BeamPolicy, *, width: int, max_length: int) -> BeamLoop:
    """The beam before the first step: one open, empty hypothesis per row, in the first slot; none of an empty sentence.

    `carried` is left empty.
    """
    empty = jnp.repeat(~real(source).any(-1), policy.groups)
    rows = empty.shape[0]
    total = jnp.zeros((rows, width)).at[:, 1:].set(-jnp.inf)
    total = jnp.where(empty[:, None], -jnp.inf, total)
    zeros, none = jnp.zeros((rows, width), jnp.int32), jnp.full((rows, width), -jnp.inf)
    return BeamLoop(
        (),
        jnp.full((rows, width), BOS, jnp.int32),
        policy.first(total),
        jnp.zeros((rows,), jnp.int32),
        empty,
        no_records(rows, max_length, width, 3 + source.shape[1]),
        pack(*FinishedHypotheses(none, none, zeros, zeros, jnp.zeros((rows, width)))),
    )


def log_probs_of(
    candidates: Candidates, logits: Float[Array, "R K V"], normalizer: Float[Array, "R K"]
) -> Float[Array, "R C"]:
    """The model's own log-probability of each chosen token."""
    rows = jnp.arange(logits.shape[0])[:, None]
    own = logits[rows, candidates.parent, candidates.token]
    return own - jnp.take_along_axis(normalizer, candidates.parent, axis=1)


def completed(
    best: Candidates,
    log_prob: Float[Array, "R C"],
    time: Int[Array, ""],
    *,
    policy: BeamPolicy,
    coverage: Float[Array, "R K"],
    width: int,
) -> FinishedHypotheses:
    """The hypotheses that a step completes: EOS is among its `width` best continuations."""
    ends = (best.token == EOS) & (jnp.arange(best.token.shape[1]) < width)[None]
    length, coverage = time.astype(jnp.float32) + 1, jnp.take_along_axis(coverage, best.parent, axis=1)
    value = jnp.where(ends, policy.value(best.total, best.merit, length, coverage), -jnp.inf)
    return FinishedHypotheses(value, best.total, jnp.full_like(best.token, time), best.parent, log_prob)


def truncated_hypotheses(last: BeamLoop, *, policy: BeamPolicy, coverage: Float[Array, "R K"]) -> FinishedHypotheses:
    """The hypotheses that are open when their row is done, scored as if they were complete."""
    length = jnp.maximum(last.lengths, 1).astype(jnp.float32)[:, None]
    value = policy.value(last.open.total, last.open.merit, length, coverage)
    shape = last.open.total.shape
    return FinishedHypotheses(
        jnp.where(jnp.isfinite(last.open.total), value, -jnp.inf),
        last.open.total,
        jnp.broadcast_to(last.lengths[:, None], shape),
        jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32)[None], shape),
        jnp.zeros(shape),
    )
