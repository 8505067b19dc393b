"""The loop of a search, which leaves finished sentences out.

A batch runs until its longest sentence is done. Once half of the sentences are done, the unfinished ones can be moved
together and the loop goes on with half of the rows, several times over: in one program, whose arrays keep their shapes.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

COMPACTIONS = 2  # pay off in long work; each is one more loop to compile
MIN_SENTENCES = 16  # a step of half of them would hardly be faster
_Carry = TypeVar("_Carry")


def loop_until_done(
    advance: Callable[[Any, _Carry, Int[Array, ""]], _Carry],
    done: Callable[[_Carry], Bool[Array, " B"]],
    fixed: Any,
    carry: _Carry,
    *,
    steps: int,
    compactions: int = 0,
    time: Int[Array, ""] | int = 0,
) -> _Carry:
    """The carry when all sentences are done, or after `steps` steps.

    Args:
        advance: one step: (fixed, carry, time) -> carry. It leaves finished sentences as they are.
        done: which sentences are finished.
        fixed, carry: leaves lead with rows [B * n, ...], any n; the rows of a sentence are adjacent.
        steps: the most steps.
        compactions: how often the rows may be halved; never below `MIN_SENTENCES` sentences.
        time: of the first step.
    """
    sentences = done(carry).shape[0]
    half = sentences // 2 if compactions and sentences >= 2 * MIN_SENTENCES else 0

    def unfinished(loop: tuple[Int[Array, ""], _Carry]) -> Bool[Array, ""]:
        open_rows = ~done(loop[1]) & (loop[0] < steps)
        return open_rows.sum() > half if half else open_rows.any()

    def step(loop: tuple[Int[Array, ""], _Carry]) -> tuple[Int[Array, ""], _Carry]:
        # the time changes last, or a GPU would copy it first
        carry, time = jax.lax.optimization_barrier((advance(fixed, loop[1], loop[0]), loop[0]))
        return time + 1, carry

    time, carry = jax.lax.while_loop(unfinished, step, (jnp.asarray(time, jnp.int32), carry))
    if not half:
        return carry
    open_first = jnp.argsort(done(carry), stable=True)[:half]

    def take_open(leaf: Array) -> Array:
        rows = _by_sentence(leaf, sentences)[open_first]
        return rows.reshape(rows.shape[0] * rows.shape[1], *rows.shape[2:])

    compact = jax.tree.map(take_open, (fixed, carry))
    rest = loop_until_done(advance, done, *compact, steps=steps, compactions=compactions - 1, time=time)

    def put_back(leaf: Array, new: Array) -> Array:
        return _by_sentence(leaf, sentences).at[open_first].set(_by_sentence(new, half)).reshape(leaf.shape)

    return jax.tree.map(put_back, carry, rest)


def _by_sentence(leaf: Array, sentences: int) -> Array:
    return leaf.reshape(sentences, leaf.shape[0] // sentences, *leaf.shape[1:])
