"""How long does a search of a batch go on, and for how many rows? Until all is done, and for ever fewer.

A batch runs on, whole, for its longest sentence; or, once half of the sentences are done, the others are put together
and the loop goes on with half of the rows, as often as asked: in one program, whose arrays keep their shapes.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

COMPACTIONS = 2  # that pay in long work; each is one more loop to compile
MIN_SENTENCES = 16  # sentences: a step of half of them would hardly be faster
Carry = TypeVar("Carry")


def loop_until_done(
    advance: Callable[[Any, Carry, Int[Array, ""]], Carry],
    done: Callable[[Carry], Bool[Array, " B"]],
    fixed: Any,
    carry: Carry,
    *,
    most: int,
    compactions: int = 0,
    time: Int[Array, ""] | int = 0,
) -> Carry:
    """What is carried when all sentences are done, or after `most` steps.

    Args:
        advance: one step: (fixed, carry, time) -> carry. What is done it leaves as it is.
        done: which sentences are.
        fixed, carry: leaves lead with rows [B * n, ...], any n; those of a sentence stand together.
        compactions: how often the rows are halved on the way; no further than `MIN_SENTENCES` sentences.
    """
    sentences = done(carry).shape[0]
    enough = sentences // 2 if compactions and sentences >= 2 * MIN_SENTENCES else 0

    def going(now: tuple[Int[Array, ""], Carry]) -> Bool[Array, ""]:
        return (now[0] < most) & ((~done(now[1])).sum() > enough)

    def step(now: tuple[Int[Array, ""], Carry]) -> tuple[Int[Array, ""], Carry]:
        return now[0] + 1, advance(fixed, now[1], now[0])

    time, carry = jax.lax.while_loop(going, step, (jnp.asarray(time, jnp.int32), carry))
    if not enough:
        return carry
    open_first = jnp.argsort(done(carry), stable=True)[:enough]

    def taken(leaf: Array) -> Array:
        few = _by_sentence(leaf, sentences)[open_first]
        return few.reshape(few.shape[0] * few.shape[1], *few.shape[2:])

    few = jax.tree.map(taken, (fixed, carry))
    rest = loop_until_done(advance, done, *few, most=most, compactions=compactions - 1, time=time)

    def put_back(leaf: Array, new: Array) -> Array:
        return _by_sentence(leaf, sentences).at[open_first].set(_by_sentence(new, enough)).reshape(leaf.shape)

    return jax.tree.map(put_back, carry, rest)


def _by_sentence(leaf: Array, sentences: int) -> Array:
    return leaf.reshape(sentences, leaf.shape[0] // sentences, *leaf.shape[1:])
