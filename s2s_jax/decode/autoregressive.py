"""What does the model say when each next token is picked from the last step alone, and never taken back?

Greedy search and sampling are two ways to pick.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.decode.compaction import loop_until_done
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore, uncovered
from s2s_jax.decode.logits_rules import NO_RULES, Limits, LogitsRules, apply_rules, limits_of
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.top_k import argmax
from s2s_jax.model.interface import Model, Params, State
from s2s_jax.shapes import BOS, EOS, PAD, real

# (logits as the rules leave them [N, V], what is given of each row, time) -> tokens [N]
ChooseToken = Callable[[Array, Any, Array], Array]


class DecodeLoop(NamedTuple):
    """Where the loop stands; N is B times the hypotheses of each sentence."""

    state: State
    token: Int[Array, " N"]
    done: Bool[Array, " N"]
    tokens: Int[Array, "N T"]
    log_probs: Float[Array, "N T"]
    alignment: Float[Array, "N T S"]
    total: Float[Array, " N"]  # log-probability, after the rules


def decode_autoregressively(
    model: Model,
    params: Params,
    source: Int[Array, "B S"],
    pick: ChooseToken,
    *,
    given: Any = (),
    each: int = 1,
    max_length: int,
    scoring: HypothesisScore = LIKELIHOOD,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """`each` hypotheses of every sentence, token by token, until all have ended or stand at their bound.

    Args:
        given: what `pick` is told of each row, leaves [N, ...].
        compactions: see `decode.loop`.
    """
    memory, state = jax.tree.map(lambda leaf: jnp.repeat(leaf, each, axis=0), model.encode(params, source))
    limits = limits_of(rules, source, max_length=max_length, prefix=prefix, each=each)
    mask = jnp.repeat(real(source), each, axis=0)
    rows, length = mask.shape
    empty = ~mask.any(-1)  # rows that only fill a batch up end at once

    def advance(fixed: tuple[Any, Limits, Any], now: DecodeLoop, time: Int[Array, ""]) -> DecodeLoop:
        memory, limits, given = fixed
        state, step = model.step(params, memory, now.state, now.token)
        allowed = apply_rules(step.logits, rules, limits, time=time, said=now.tokens if rules.look_back else None)
        token = pick(allowed, given, time)
        normalizer = step.log_normalizer
        own = log_prob_of(token, step.logits, normalizer)
        ruled = own if rules.repetition_penalty == 1 else log_prob_of(token, allowed, normalizer)
        said = jnp.stack([own, ruled])
        token, said = jnp.where(now.done, PAD, token), jnp.where(now.done[None], 0.0, said)
        return DecodeLoop(
            state,
            token,
            now.done | (token == EOS) | (time + 1 >= limits.most),
            now.tokens.at[:, time].set(token),
            now.log_probs.at[:, time].set(said[0]),
            now.alignment.at[:, time].set(jnp.where(now.done[:, None], 0.0, step.alignment)),
            now.total + said[1],
        )

    first = DecodeLoop(
        state,
        jnp.full((rows,), BOS, jnp.int32),
        empty,
        jnp.full((rows, max_length), PAD, jnp.int32),
        jnp.zeros((rows, max_length)),
        jnp.zeros((rows, max_length, length)),
        jnp.where(empty, -jnp.inf, 0.0),
    )
    last = loop_until_done(
        advance,
        lambda now: now.done.reshape(-1, each).all(-1),
        (memory, limits, given),
        first,
        most=max_length,
        compactions=compactions,
    )
    lengths = jnp.maximum(real(last.tokens).sum(-1), 1).astype(jnp.float32)
    looked = uncovered(last.alignment.sum(1), mask) if scoring.coverage else jnp.zeros((rows,))
    found = SearchResult(
        last.tokens,
        last.log_probs,
        last.alignment,
        scoring.score(last.total, lengths, looked),
        ~(last.tokens == EOS).any(-1) & ~empty,
        last.total,
    )
    return SearchResult(*(leaf.reshape(source.shape[0], each, *leaf.shape[1:]) for leaf in found))


def log_prob_of(
    token: Int[Array, " N"], logits: Float[Array, "N V"], normalizer: Float[Array, " N"]
) -> Float[Array, " N"]:
    """What each token counts by logits from which a normalizer is still to be taken."""
    return jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - normalizer


def greedy(
    model: Model,
    params: Params,
    source: Int[Array, "B S"],
    *,
    max_length: int,
    scoring: HypothesisScore = LIKELIHOOD,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """The token of highest probability at each step, until all sentences have ended or `max_length` tokens stand."""
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
