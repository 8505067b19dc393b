"""Rewards of outputs, given the target: on token ids within the compiled step, or on the host.

A reward of your own is a function with the signature of `Reward` and an entry of `REWARDS`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.shapes import EOS, UNK, real

# (candidates [B, N, W], target [B, T]) -> rewards [B, N]; ids as in a batch: EOS at the end, PAD behind it
Reward = Callable[[Int[Array, "B N W"], Int[Array, "B T"]], Float[Array, "B N"]]
BLEU_ORDERS = 4
NOTHING = -1  # an id that equals no other


def exact_match(candidates: Int[Array, "B N W"], target: Int[Array, "B T"]) -> Float[Array, "B N"]:
    """1 where a candidate is the target, its end included, else 0."""
    known = without_unknown(target)[:, None]
    width = max(candidates.shape[2], known.shape[2])
    one, other = (jnp.pad(ids, ((0, 0), (0, 0), (0, width - ids.shape[2]))) for ids in (candidates, known))
    return (one == other).all(-1).astype(jnp.float32)


def edit(candidates: Int[Array, "B N W"], target: Int[Array, "B T"]) -> Float[Array, "B N"]:
    """1 - edit distance / tokens of the target, without end tokens; below 0 for candidates that are much too long."""
    lengths = jnp.maximum(words(target).sum(-1), 1)[:, None]
    return 1 - edit_distance(candidates, target) / lengths.astype(jnp.float32)


def edit_distance(candidates: Int[Array, "B N W"], target: Int[Array, "B T"]) -> Float[Array, "B N"]:
    """The fewest insertions, deletions and replacements of tokens between each candidate and the target.

    The rows of the table one after another, d[j] = min(above[j] + 1, above[j - 1] + (differs), d[j - 1] + 1); the last
    term is a running minimum. Wagner & Fischer 1974.
    """
    known, places = without_unknown(target), jnp.arange(target.shape[1] + 1, dtype=jnp.float32)
    first = jnp.broadcast_to(places, (*candidates.shape[:2], len(places)))

    def row(above: Float[Array, "B N P"], inputs: tuple[Array, Array]):
        token, is_word = inputs
        differs = (token[..., None] != known[:, None]).astype(jnp.float32)
        best = jnp.minimum(above[..., 1:] + 1, above[..., :-1] + differs)
        best = jnp.concatenate([above[..., :1] + 1, best], axis=-1)
        place = places.reshape(1, 1, -1)
        below = jax.lax.cummin(best - place, axis=2) + place
        return jnp.where(is_word[..., None], below, above), None

    each = jnp.moveaxis(candidates, 2, 0), jnp.moveaxis(words(candidates), 2, 0)
    last, _ = jax.lax.scan(row, first, each)
    lengths = jnp.broadcast_to(words(target).sum(-1)[:, None, None], (*last.shape[:2], 1))
    return jnp.take_along_axis(last, lengths, axis=-1)[..., 0]


def bleu(candidates: Int[Array, "B N W"], target: Int[Array, "B T"]) -> Float[Array, "B N"]:
    """BLEU+1 of each sentence, 0 to 1: the precisions of 2 to 4 tokens are (matches + 1) / (n-grams + 1).

    Lin & Och 2004 (C04-1072), with the brevity penalty of Papineni et al. 2002; 0 where no token matches.
    """
    known = jnp.broadcast_to(without_unknown(target)[:, None], (*candidates.shape[:2], target.shape[1]))
    lengths, wanted = (words(ids).sum(-1).astype(jnp.float32) for ids in (candidates, known))
    logs, matches = [], []
    for order in range(1, BLEU_ORDERS + 1):
        matches.append(clipped_matches(candidates, known, order))
        ngrams, added = jnp.maximum(lengths - order + 1, 0), float(order > 1)
        logs.append(jnp.log(jnp.maximum(matches[-1] + added, 1e-30)) - jnp.log(jnp.maximum(ngrams + added, 1)))
    penalty = jnp.minimum(0.0, 1 - wanted / jnp.maximum(lengths, 1))
    return jnp.where(matches[0] == 0, 0.0, jnp.exp(penalty + sum(logs) / BLEU_ORDERS))


def clipped_matches(candidates: Int[Array, "B N W"], targets: Int[Array, "B N T"], order: int) -> Float[Array, "B N"]:
    """How many n-grams of each candidate the target has, each at most as often as the target.

    The k-th occurrence of an n-gram in the candidate counts where the target has it k times or more.
    """
    inside = jnp.tril(jnp.ones((candidates.shape[2],) * 2, bool), -1)[None, None]
    before = (equal_ngrams(candidates, candidates, order) & inside).sum(-1)
    counts = equal_ngrams(candidates, targets, order).sum(-1)
    return (before < counts).sum(-1).astype(jnp.float32)


def equal_ngrams(one: Int[Array, "B N W"], other: Int[Array, "B N T"], order: int) -> Bool[Array, "B N W T"]:
    """Whether the n-grams that begin at each two places are equal; none reaches beyond the last word."""
    first, second = (jnp.where(words(ids), ids, NOTHING * 2) for ids in (one, other))
    equal = jnp.ones((*one.shape, other.shape[2]), bool)
    for offset in range(order):
        left, right = (_moved(ids, offset) for ids in (first, second))
        equal &= (left[..., None] == right[..., None, :]) & (left >= 0)[..., None]
    return equal


def _moved(ids: Int[Array, "B N W"], offset: int) -> Int[Array, "B N W"]:
    """The token that many places behind each; no token behind the last."""
    rest = ids[..., offset:]
    return jnp.pad(rest, ((0, 0), (0, 0), (0, ids.shape[2] - rest.shape[2])), constant_values=NOTHING)


def words(ids: Int[Array, "*B"]) -> Bool[Array, "*B"]:
    """Which ids are tokens of the sentence itself: neither its end nor padding."""
    return real(ids) & (ids != EOS)


def without_unknown(target: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """The target with an id that nothing equals in place of the unknown token: nobody knows what stands there."""
    return jnp.where(target == UNK, NOTHING, target)


REWARDS: dict[str, Reward] = {"exact_match": exact_match, "edit": edit, "bleu": bleu}


def host_reward(of_rows: Callable[..., Float[np.ndarray, " N"]]) -> Reward:
    """The reward that a function of the host computes, of rows of candidates and of their targets.

    The compiled step calls it once; what does not need the rewards may run meanwhile.
    """

    def called(candidates: Any, target: Any) -> Float[np.ndarray, "*B"]:
        candidates, target = np.asarray(candidates), np.asarray(target)  # [..., B, N, W], [..., B, T]
        shape = candidates.shape[:-1]
        targets = np.broadcast_to(target[..., None, :], (*shape, target.shape[-1]))
        rows = (ids.reshape(-1, ids.shape[-1]) for ids in (candidates, targets))
        return np.asarray(of_rows(*rows), np.float32).reshape(shape)

    def reward(candidates: Int[Array, "B N W"], target: Int[Array, "B T"]) -> Float[Array, "B N"]:
        result = jax.ShapeDtypeStruct(candidates.shape[:2], jnp.float32)
        return jax.pure_callback(called, result, candidates, target, vmap_method="broadcast_all")

    return reward
