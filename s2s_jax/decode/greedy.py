"""What does the model say when it takes its likeliest next token, again and again?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.decode.result import Found, length_divisor, likeliest
from s2s_jax.model.interface import Model, Params, State
from s2s_jax.shapes import BOS, EOS, PAD, real


class Progress(NamedTuple):
    """Where the loop stands."""

    time: Int[Array, ""]
    state: State
    token: Int[Array, " B"]
    done: Bool[Array, " B"]
    tokens: Int[Array, "T B"]
    log_probs: Float[Array, "T B"]
    alignment: Float[Array, "T B S"]


def greedy(
    model: Model, params: Params, source: Int[Array, "B S"], *, max_length: int, length_penalty: float = 0.0
) -> Found:
    """The token of highest probability at each step, until all sentences have ended or `max_length` tokens stand."""
    memory, state = model.encode(params, source)
    batch, length = source.shape
    empty = ~real(source).any(-1)  # rows that only fill a batch up end at once

    def going(now: Progress) -> Bool[Array, ""]:
        return (now.time < max_length) & ~now.done.all()

    def advance(now: Progress) -> Progress:
        state, step = model.step(params, memory, now.state, now.token)
        token, said = likeliest(step.logits)
        token, said = jnp.where(now.done, PAD, token), jnp.where(now.done, 0.0, said)
        seen = jnp.where(now.done[:, None], 0.0, step.alignment)
        return Progress(
            now.time + 1,
            state,
            token,
            now.done | (token == EOS),
            now.tokens.at[now.time].set(token),
            now.log_probs.at[now.time].set(said),
            now.alignment.at[now.time].set(seen),
        )

    first = Progress(
        jnp.zeros((), jnp.int32),
        state,
        jnp.full((batch,), BOS, jnp.int32),
        empty,
        jnp.full((max_length, batch), PAD, jnp.int32),
        jnp.zeros((max_length, batch)),
        jnp.zeros((max_length, batch, length)),
    )
    last = jax.lax.while_loop(going, advance, first)
    lengths = real(last.tokens).sum(0).astype(jnp.float32)
    scores = last.log_probs.sum(0) / length_divisor(lengths, length_penalty)
    return Found(
        last.tokens.T[:, None],
        last.log_probs.T[:, None],
        last.alignment.swapaxes(0, 1)[:, None],
        scores[:, None],
        ~last.done[:, None],
    )
