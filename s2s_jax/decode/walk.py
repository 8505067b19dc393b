"""What does the model say when each next token is picked from the last step alone, and never taken back?

Greedy search and sampling are two ways to pick.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.decode.ranking import LIKELIHOOD, Ranking, uncovered
from s2s_jax.decode.result import Found
from s2s_jax.decode.rules import FREE, Rules, bounds, followed
from s2s_jax.model.interface import Model, Params, State
from s2s_jax.shapes import BOS, EOS, PAD, real

# (logits as the rules leave them [N, V], time) -> tokens [N]; N is B times the hypotheses of each sentence
Pick = Callable[[Array, Array], Array]


class Progress(NamedTuple):
    """Where the loop stands."""

    time: Int[Array, ""]
    state: State
    token: Int[Array, " N"]
    done: Bool[Array, " N"]
    tokens: Int[Array, "T N"]
    log_probs: Float[Array, "T N"]
    alignment: Float[Array, "T N S"]
    total: Float[Array, " N"]  # log-probability, after the rules


def walk(
    model: Model,
    params: Params,
    source: Int[Array, "B S"],
    pick: Pick,
    *,
    each: int = 1,
    max_length: int,
    ranking: Ranking = LIKELIHOOD,
    rules: Rules = FREE,
    prefix: Int[Array, "B P"] | None = None,
    spare: Int[Array, ""] | int = 0,
) -> Found:
    """`each` hypotheses of every sentence, token by token, until all have ended or stand at their bound.

    Args:
        spare: sentences that may be left unfinished: the search ends once no more go on.
    """
    memory, state = jax.tree.map(lambda leaf: jnp.repeat(leaf, each, axis=0), model.encode(params, source))
    limits = bounds(rules, source, max_length=max_length, prefix=prefix, each=each)
    mask = jnp.repeat(real(source), each, axis=0)
    rows, length = mask.shape
    empty = ~mask.any(-1)  # rows that only fill a batch up end at once

    def going(now: Progress) -> Bool[Array, ""]:
        return (now.time < max_length) & (unfinished(now.done, each).sum() > spare)

    def advance(now: Progress) -> Progress:
        state, step = model.step(params, memory, now.state, now.token)
        allowed = followed(step.logits, rules, limits, time=now.time, said=now.tokens.T if rules.look_back else None)
        token = pick(allowed, now.time)
        normaliser = step.normaliser
        own = log_prob_of(token, step.logits, normaliser)
        ruled = own if rules.repetition_penalty == 1 else log_prob_of(token, allowed, normaliser)
        said = jnp.stack([own, ruled])
        token, said = jnp.where(now.done, PAD, token), jnp.where(now.done[None], 0.0, said)
        return Progress(
            now.time + 1,
            state,
            token,
            now.done | (token == EOS) | (now.time + 1 >= limits.most),
            now.tokens.at[now.time].set(token),
            now.log_probs.at[now.time].set(said[0]),
            now.alignment.at[now.time].set(jnp.where(now.done[:, None], 0.0, step.alignment)),
            now.total + said[1],
        )

    first = Progress(
        jnp.zeros((), jnp.int32),
        state,
        jnp.full((rows,), BOS, jnp.int32),
        empty,
        jnp.full((max_length, rows), PAD, jnp.int32),
        jnp.zeros((max_length, rows)),
        jnp.zeros((max_length, rows, length)),
        jnp.where(empty, -jnp.inf, 0.0),
    )
    last = jax.lax.while_loop(going, advance, first)
    lengths = jnp.maximum(real(last.tokens).sum(0), 1).astype(jnp.float32)
    looked = uncovered(last.alignment.sum(0), mask) if ranking.coverage else jnp.zeros((rows,))
    found = Found(
        last.tokens.T,
        last.log_probs.T,
        last.alignment.swapaxes(0, 1),
        ranking.score(last.total, lengths, looked),
        ~(last.tokens == EOS).any(0) & ~empty,
        last.total,
        jnp.repeat(unfinished(last.done, each), each),
    )
    return Found(*(leaf.reshape(source.shape[0], each, *leaf.shape[1:]) for leaf in found))


def unfinished(done: Bool[Array, " N"], each: int) -> Bool[Array, " B"]:
    """The sentences that one of their `each` rows is not done with."""
    return ~done.reshape(-1, each).all(-1)


def log_prob_of(
    token: Int[Array, " N"], logits: Float[Array, "N V"], normaliser: Float[Array, " N"]
) -> Float[Array, " N"]:
    """What each token counts by logits from which a normaliser is still to be taken."""
    return jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - normaliser
