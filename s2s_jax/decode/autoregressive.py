"""Greedy search and sampling: each next token is chosen from the last step alone, and never taken back."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.decode.compaction import loop_until_done
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore, log_coverage
from s2s_jax.decode.logits_rules import NO_RULES, Limits, LogitsRules, apply_rules, limits_of
from s2s_jax.decode.records import no_records, unpack_hypotheses, write_record
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.rounding import round_once
from s2s_jax.decode.top_k import argmax
from s2s_jax.model.interface import Model, Params, Source, State
from s2s_jax.shapes import BOS, EOS, PAD, Size, real, source_tokens

# (logits after the rules [N, V], row_inputs, time) -> tokens [N]
ChooseToken = Callable[[Array, Any, Array], Array]


class DecodeLoop(NamedTuple):
    """The loop's state; N is B times the hypotheses of each sentence."""

    state: State
    token: Int[Array, " N"]
    done: Bool[Array, " N"]
    records: Int[Array, "N T R"]  # of each step the token, its log-probability, and the alignment
    total: Float[Array, " N"]  # log-probability, after the rules


def decode_autoregressively(
    model: Model,
    params: Params,
    source: Source,
    choose: ChooseToken,
    *,
    row_inputs: Any = (),
    hypotheses: int = 1,
    max_length: int,
    scoring: HypothesisScore = LIKELIHOOD,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """Hypotheses of every sentence, token by token, until all have ended or have reached their maximal length.

    Args:
        choose: chooses the next token of each row.
        row_inputs: what `choose` gets for each row, leaves [N, ...].
        hypotheses: how many per sentence.
        compactions: see `decode.compaction`.
    """
    memory, state = jax.tree.map(lambda leaf: jnp.repeat(leaf, hypotheses, axis=0), model.encode(params, source))
    read = source_tokens(source)
    limits = limits_of(rules, read, max_length=max_length, prefix=prefix, repeats=hypotheses)
    mask = jnp.repeat(real(read), hypotheses, axis=0)
    empty = ~mask.any(-1)  # rows that only fill up a batch end at once
    first = initial_loop(state, empty, max_length=max_length, source_length=read.shape[1])
    params, memory = round_once(model, params, memory, state, first.token)
    last = loop_until_done(
        decode_step(model, params, rules, choose),
        lambda loop: loop.done.reshape(-1, hypotheses).all(-1),
        (memory, limits, row_inputs),
        first,
        steps=max_length,
        compactions=compactions,
    )
    tokens, log_probs, alignment = unpack_hypotheses(last.records)
    lengths = jnp.maximum(real(tokens).sum(-1), 1).astype(jnp.float32)
    coverage = log_coverage(alignment.sum(1), mask) if scoring.coverage else jnp.zeros(empty.shape)
    result = SearchResult(
        tokens,
        log_probs,
        alignment,
        scoring.score(last.total, lengths, coverage),
        ~(tokens == EOS).any(-1) & ~empty,
        last.total,
    )
    return SearchResult(*(leaf.reshape(read.shape[0], hypotheses, *leaf.shape[1:]) for leaf in result))


def decode_step(
    model: Model, params: Params, rules: LogitsRules, choose: ChooseToken
) -> Callable[[tuple[Any, Limits, Any], DecodeLoop, Array], DecodeLoop]:
    """One step of the decoder with the choice of the next tokens, for `loop_until_done`."""

    def advance(fixed: tuple[Any, Limits, Any], loop: DecodeLoop, time: Int[Array, ""]) -> DecodeLoop:
        memory, limits, row_inputs = fixed
        state, step = model.step(params, memory, loop.state, loop.token)
        previous = loop.records[..., 0] if rules.look_back else None
        allowed = apply_rules(step.logits, rules, limits, time=time, previous=previous)
        token = choose(allowed, row_inputs, time)
        normalizer = step.log_normalizer
        own = log_prob_of(token, step.logits, normalizer)
        ruled = own if rules.repetition_penalty == 1 else log_prob_of(token, allowed, normalizer)
        log_probs = jnp.stack([own, ruled])
        token, log_probs = jnp.where(loop.done, PAD, token), jnp.where(loop.done[None], 0.0, log_probs)
        alignment = jnp.where(loop.done[:, None], 0.0, step.alignment)
        return DecodeLoop(
            state,
            token,
            loop.done | (token == EOS) | (time + 1 >= limits.longest),
            write_record(loop.records, time, token, log_probs[0], alignment),
            loop.total + log_probs[1],
        )

    return advance


def initial_loop(state: State, empty: Bool[Array, " N"], *, max_length: int, source_length: Size) -> DecodeLoop:
    """The loop before the first step; rows without a sentence are done."""
    rows = empty.shape[0]
    return DecodeLoop(
        state,
        jnp.full((rows,), BOS, jnp.int32),
        empty,
        no_records(rows, max_length, 2 + source_length),
        jnp.where(empty, -jnp.inf, 0.0),
    )


def log_prob_of(
    token: Int[Array, " N"], logits: Float[Array, "N V"], normalizer: Float[Array, " N"]
) -> Float[Array, " N"]:
    """The log-probability of each token, from logits and their log-normalizer."""
    return jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - normalizer


def greedy(
    model: Model,
    params: Params,
    source: Source,
    *,
    max_length: int,
    scoring: HypothesisScore = LIKELIHOOD,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """One hypothesis per sentence: the token of highest probability at each step."""
    return decode_autoregressively(
        model,
        params,
        source,
        lambda logits, *_: argmax(logits),
        max_length=max_length,
        scoring=scoring,
        rules=rules,
        prefix=prefix,
        compactions=compactions,
    )
