"""Which translation is the likeliest, as far as following the K best beginnings can tell?

No history is ever reordered: each step notes who came from whom, and the hypotheses, with their alignments, are traced
back once, at the end. Every leaf of the decoder's state is gathered, so any attention may remember what it likes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.decode.result import Found, length_divisor, speakable
from s2s_jax.model.interface import Model, Params, State
from s2s_jax.shapes import BOS, EOS, PAD, real


class History(NamedTuple):
    """Each step's choice for each slot, and what each slot saw and said before that choice."""

    token: Int[Array, "T B K"]
    parent: Int[Array, "T B K"]  # the slot, before the choice, that a slot continues
    log_prob: Float[Array, "T B K"]
    alignment: Float[Array, "T B K S"]  # by the slot before the choice


class Ended(NamedTuple):
    """The best hypotheses that are complete, best first."""

    score: Float[Array, "B K"]  # -inf: nobody
    time: Int[Array, "B K"]  # of their last token
    parent: Int[Array, "B K"]  # the slot they continue at that time
    log_prob: Float[Array, "B K"]  # of their last token


class Progress(NamedTuple):
    """Where the loop stands."""

    time: Int[Array, ""]
    state: State  # leaves lead with B*K
    token: Int[Array, "B K"]
    score: Float[Array, "B K"]  # summed log-probability of the live hypotheses
    history: History
    ended: Ended


def beam(
    model: Model, params: Params, source: Int[Array, "B S"], *, width: int, max_length: int, length_penalty: float = 0.0
) -> Found:
    """The `width` best hypotheses of each sentence; a width of 1 gives what greedy search gives.

    A hypothesis ends when EOS is among the `width` best continuations of its step; a sentence is done when `width`
    hypotheses have ended. Those still live at `max_length` tokens come last, marked as truncated.
    """
    batch, length = source.shape
    memory, state = jax.tree.map(lambda leaf: jnp.repeat(leaf, width, axis=0), model.encode(params, source))
    empty = ~real(source).any(-1)

    def is_done(now: Progress) -> Bool[Array, " B"]:
        return jnp.isfinite(now.ended.score).all(-1) | empty

    def going(now: Progress) -> Bool[Array, ""]:
        return (now.time < max_length) & ~is_done(now).all()

    def advance(now: Progress) -> Progress:
        state, step = model.step(params, memory, now.state, now.token.reshape(-1))
        choice = _continuations(now.score, step.logits.reshape(batch, width, -1), width)
        # what a neighbour still waits for must not change a sentence that is done
        done, fresh = is_done(now)[:, None], _ended(now.ended, choice, now.time, width, length_penalty)
        ended = Ended(*(jnp.where(done, old, new) for old, new in zip(now.ended, fresh, strict=True)))
        live = jnp.where(choice.token == EOS, -jnp.inf, choice.score)
        score, place = jax.lax.top_k(live, width)
        token, parent, log_prob = (
            jnp.take_along_axis(leaf, place, axis=1) for leaf in (choice.token, choice.parent, choice.log_prob)
        )
        rows = (parent + width * jnp.arange(batch, dtype=jnp.int32)[:, None]).reshape(-1)
        alignment = step.alignment.reshape(batch, width, length)
        history = History(
            *(
                old.at[now.time].set(new)
                for old, new in zip(now.history, (token, parent, log_prob, alignment), strict=True)
            )
        )
        state = jax.tree.map(lambda leaf: leaf[rows], state)
        return Progress(now.time + 1, state, token, score, history, ended)

    slots = (max_length, batch, width)
    history = History(
        jnp.full(slots, PAD, jnp.int32), jnp.zeros(slots, jnp.int32), jnp.zeros(slots), jnp.zeros((*slots, length))
    )
    nobody = jnp.zeros((batch, width), jnp.int32)
    first = Progress(
        jnp.zeros((), jnp.int32),
        state,
        jnp.full((batch, width), BOS, jnp.int32),
        jnp.zeros((batch, width)).at[:, 1:].set(-jnp.inf),  # all slots hold the same beginning: one of them lives
        history,
        Ended(jnp.full((batch, width), -jnp.inf), nobody, nobody, jnp.zeros((batch, width))),
    )
    last = jax.lax.while_loop(going, advance, first)
    return _traced(last, width=width, length_penalty=length_penalty)


class Choice(NamedTuple):
    """The best continuations of a step, 2K of them: at most K can end, so K always remain to go on."""

    score: Float[Array, "B C"]
    token: Int[Array, "B C"]
    parent: Int[Array, "B C"]
    log_prob: Float[Array, "B C"]


STRETCH = 64  # numbers of which the largest is found first


def largest(x: Float[Array, "*B V"], count: int) -> tuple[Float[Array, "*B C"], Int[Array, "*B C"]]:
    """The `count` largest numbers and their places, best first and of equals the first one: `lax.top_k`, but faster.

    They stand in the `count` stretches whose own largest numbers are largest; only those are looked through.
    """
    width = x.shape[-1]
    stretches = -(-width // STRETCH)
    if stretches <= 2 * count:
        best, place = jax.lax.top_k(x, count)
        return best, place
    filled = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, stretches * STRETCH - width)], constant_values=-jnp.inf)
    parts = filled.reshape(*x.shape[:-1], stretches, STRETCH)
    _, chosen = jax.lax.top_k(parts.max(-1), count)
    chosen = jnp.sort(chosen, axis=-1)  # in order of their places, so that of equals the first one stays the first
    candidates = jnp.take_along_axis(parts, chosen[..., None], axis=-2)
    best, place = jax.lax.top_k(candidates.reshape(*x.shape[:-1], -1), count)
    stretch = jnp.take_along_axis(chosen, place // STRETCH, axis=-1)
    return best, (stretch * STRETCH + place % STRETCH).astype(jnp.int32)


def _continuations(score: Float[Array, "B K"], logits: Float[Array, "B K V"], width: int) -> Choice:
    """Best first; found slot by slot first, since a slot can give no more than 2K of them."""
    each = min(2 * width, logits.shape[-1])
    of_slot, tokens = largest(speakable(logits), each)
    of_slot = of_slot - jax.nn.logsumexp(logits, axis=-1, keepdims=True)  # log-probabilities, of the few alone
    total = (score[..., None] + of_slot).reshape(len(score), -1)
    best, place = jax.lax.top_k(total, min(2 * width, total.shape[-1]))
    token, log_prob = (jnp.take_along_axis(leaf.reshape(len(score), -1), place, axis=1) for leaf in (tokens, of_slot))
    return Choice(best, token.astype(jnp.int32), (place // each).astype(jnp.int32), log_prob)


def _ended(ended: Ended, choice: Choice, time: Int[Array, ""], width: int, length_penalty: float) -> Ended:
    """The complete hypotheses so far and those that this step completes, the best K of both."""
    penalised = choice.score / length_divisor(time.astype(jnp.float32) + 1, length_penalty)
    rank = jnp.arange(choice.token.shape[1])[None]
    new = Ended(
        jnp.where((choice.token == EOS) & (rank < width), penalised, -jnp.inf),
        jnp.full_like(choice.token, time),
        choice.parent,
        choice.log_prob,
    )
    both = Ended(*(jnp.concatenate([old, fresh], axis=1) for old, fresh in zip(ended, new, strict=True)))
    score, place = jax.lax.top_k(both.score, width)
    return Ended(score, *(jnp.take_along_axis(leaf, place, axis=1) for leaf in both[1:]))


def _traced(last: Progress, *, width: int, length_penalty: float) -> Found:
    """All hypotheses from their last token to their first: the complete ones, then the live ones, K together."""
    length = last.time.astype(jnp.float32)
    live = last.score / length_divisor(jnp.maximum(length, 1), length_penalty)
    complete = jnp.isfinite(last.ended.score)
    # complete hypotheses first, whatever their score; then those cut off; then places that nobody fills
    rank = jnp.concatenate([jnp.where(complete, 0, 2), jnp.where(jnp.isfinite(live), 1, 2)], axis=1)
    order = jnp.argsort(rank, axis=1, stable=True)[:, :width].astype(jnp.int32)
    is_live = (order >= width) & (jnp.sort(rank, axis=1)[:, :width] == 1)
    end = Ended(
        *(
            jnp.take_along_axis(jnp.concatenate(pair, axis=1), order, axis=1)
            for pair in (
                (last.ended.score, live),
                (last.ended.time, jnp.full_like(last.ended.time, last.time)),
                (last.ended.parent, jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32)[None], live.shape)),
                (last.ended.log_prob, jnp.zeros_like(live)),
            )
        )
    )

    def back(slot: Int[Array, "B K"], now) -> tuple[Int[Array, "B K"], tuple]:
        time, history = now
        token, parent, log_prob = (
            jnp.take_along_axis(leaf, slot, axis=1) for leaf in (history.token, history.parent, history.log_prob)
        )
        at_end, inside = time == end.time, time < end.time
        from_slot = jnp.where(at_end, end.parent, jnp.where(inside, parent, slot))
        seen = jnp.take_along_axis(history.alignment, from_slot[..., None], axis=1)
        token = jnp.where(at_end, EOS, jnp.where(inside, token, PAD)).astype(jnp.int32)
        log_prob = jnp.where(at_end, end.log_prob, jnp.where(inside, log_prob, 0.0))
        return from_slot, (token, log_prob, jnp.where((at_end | inside)[..., None], seen, 0.0))

    times = jnp.arange(len(last.history.token), dtype=jnp.int32)
    _, (tokens, log_probs, alignment) = jax.lax.scan(back, end.parent, (times, last.history), reverse=True)
    return Found(
        jnp.moveaxis(tokens, 0, 2), jnp.moveaxis(log_probs, 0, 2), jnp.moveaxis(alignment, 0, 2), end.score, is_live
    )
