"""Rules on the next token that every search follows: lengths, n-grams, banned tokens, a given prefix.

Every search passes the model's next-token logits to `apply_rules` and chooses by the result; the model's own
log-probability of the chosen token is computed from the original logits.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.shapes import BOS, EOS, PAD, UNK, real
from s2s_jax.validation import at_least, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitsRules:
    """Which tokens are allowed; PAD and BOS never are."""

    min_length: int = 0
    """Fewest tokens of a translation, the end token included."""
    min_ratio: float = 0.0
    """Fewest tokens of a translation per source token, end tokens included; the longer of both bounds holds."""
    max_ratio: float = 0.0
    """Most tokens of a translation per source token, end tokens included; 0 for no bound."""
    no_repeat_ngram: int = 0
    """No n-gram of this many tokens occurs twice; 0 for no such rule."""
    repetition_penalty: float = 1.0
    """Factor on the log-probability of tokens that occurred before. Keskar et al. 2019, arXiv:1909.05858, 4.1."""
    banned: tuple[int, ...] = ()
    """Ids of tokens that are never chosen."""
    unknown: bool = True
    """Whether the unknown token is allowed."""

    def __post_init__(self):
        check_fields(self, "search.rules")
        at_least("search.rules.min_length", self.min_length, 0)
        at_least("search.rules.min_ratio", self.min_ratio, 0)
        at_least("search.rules.max_ratio", self.max_ratio, 0)
        at_least("search.rules.no_repeat_ngram", self.no_repeat_ngram, 0)
        at_least("search.rules.repetition_penalty", self.repetition_penalty, 1)
        for token in self.banned:
            at_least("search.rules.banned", token, 0)
        if EOS in self.banned:
            raise ValueError(f"search.rules.banned must not hold the end token {EOS}; use search.rules.min_length.")

    @property
    def look_back(self) -> bool:
        """Whether the preceding tokens matter."""
        return self.no_repeat_ngram > 0 or self.repetition_penalty != 1


NO_RULES = LogitsRules()


class Limits(NamedTuple):
    """The bounds of each row, known before the first token."""

    shortest: Int[Array, " N"]  # fewest tokens, the end token included
    longest: Int[Array, " N"]  # most tokens
    prefix: Int[Array, "N P"]  # the tokens it must begin with, PAD behind them


def limits_of(
    rules: LogitsRules,
    source: Int[Array, "B S"],
    *,
    max_length: int,
    prefix: Int[Array, "B P"] | None = None,
    repeats: int = 1,
) -> Limits:
    """The bounds of `repeats` hypotheses per sentence; no minimum is above the maximum."""
    length = real(source).sum(-1).astype(jnp.float32)
    longest = jnp.full((source.shape[0],), max_length, jnp.int32)
    if rules.max_ratio:
        longest = jnp.maximum(tokens_for(length, rules.max_ratio, most=max_length), 1)
    fewest = jnp.maximum(tokens_for(length, rules.min_ratio, most=max_length), min(rules.min_length, max_length))
    shortest = jnp.minimum(fewest, longest)
    if prefix is None:
        prefix = jnp.zeros((source.shape[0], 0), jnp.int32)
    return Limits(*(jnp.repeat(leaf, repeats, axis=0) for leaf in (shortest, longest, prefix)))


def tokens_for(length: Float[Array, " B"], ratio: float, *, most: int) -> Int[Array, " B"]:
    """ratio * length, at most `most`, rounded up, except where only float32's rounding is above a whole number."""
    return jnp.ceil(jnp.minimum(length * ratio - 1e-4, most)).astype(jnp.int32)


def apply_rules(
    logits: Float[Array, "N V"],
    rules: LogitsRules,
    limits: Limits,
    *,
    time: Int[Array, ""],
    previous: Int[Array, "N T"] | None,
) -> Float[Array, "N V"]:
    """The logits by which a search chooses: -inf where a token is not allowed.

    Where no token is allowed, the end token is; the tokens of a prefix take precedence over every other rule.

    Args:
        previous: the tokens so far, PAD behind them; None where no rule depends on them.

    Raises:
        ValueError: a banned id is not in the vocabulary.
    """
    result = logits
    if previous is not None and rules.repetition_penalty != 1:
        result = penalize_repetition(result, previous, rules.repetition_penalty)
    banned = np.isin(
        np.arange(logits.shape[-1]), banned_ids(rules, logits.shape[-1])
    )  # a mask, since a scatter would copy
    result = jnp.where(jnp.asarray(banned)[None], -jnp.inf, result)
    if rules.min_length or rules.min_ratio:
        result = result.at[:, EOS].set(jnp.where(time + 1 < limits.shortest, -jnp.inf, result[:, EOS]))
    if previous is not None and rules.no_repeat_ngram:
        repeated = ends_repeated_ngram(previous, time, size=rules.no_repeat_ngram, vocabulary=logits.shape[-1])
        result = jnp.where(repeated, -jnp.inf, result)
    if rules != NO_RULES:
        stuck = ~jnp.isfinite(result).any(-1)
        result = result.at[:, EOS].set(jnp.where(stuck, logits[:, EOS], result[:, EOS]))
    return force_prefix(result, logits, limits.prefix, time) if limits.prefix.shape[1] else result


def banned_ids(rules: LogitsRules, vocabulary: int) -> tuple[int, ...]:
    """The ids of all tokens that are never chosen.

    Raises:
        ValueError: one is not in the vocabulary.
    """
    for token in rules.banned:
        if token >= vocabulary:
            raise ValueError(
                f"search.rules.banned must hold ids of the vocabulary, 0 to {vocabulary - 1}, got {token}; "
                "take ids of the run's target tokenizer."
            )
    return tuple(sorted({PAD, BOS, *rules.banned, *(() if rules.unknown else (UNK,))}))


def penalize_repetition(
    logits: Float[Array, "N V"], previous: Int[Array, "N T"], penalty: float
) -> Float[Array, "N V"]:
    """The logits with the log-probabilities of tokens that occurred before multiplied by `penalty`.

    Of log-probabilities, not of logits as in the paper: a logit's sign means nothing, since all may be shifted.
    """
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    before = jnp.zeros(logits.shape, bool).at[jnp.arange(previous.shape[0])[:, None], previous].set(True)
    return jnp.where(before, penalty * (logits - total) + total, logits)


def ends_repeated_ngram(
    previous: Int[Array, "N T"], time: Int[Array, ""], *, size: int, vocabulary: int
) -> Bool[Array, "N V"]:
    """Which tokens would complete an n-gram of `size` tokens that occurred before; `time` tokens are there so far."""
    rows, length = previous.shape
    places = length - size + 1  # where an n-gram may begin
    if places < 1:
        return jnp.zeros((rows, vocabulary), bool)
    begun = jax.lax.dynamic_slice_in_dim(previous, time - size + 1, size - 1, axis=1) if size > 1 else previous[:, :0]
    same = jnp.broadcast_to((jnp.arange(places) + size - 1 < time)[None], (rows, places))
    for offset in range(size - 1):
        same &= previous[:, offset : offset + places] == begun[:, offset : offset + 1]
    ends = previous[:, length - places :]
    return jnp.zeros((rows, vocabulary), bool).at[jnp.arange(rows)[:, None], ends].max(same)


def force_prefix(
    allowed: Float[Array, "N V"], logits: Float[Array, "N V"], prefix: Int[Array, "N P"], time: Int[Array, ""]
) -> Float[Array, "N V"]:
    """The logits of the allowed tokens; of the prefix's token alone while there is one."""
    length = prefix.shape[1]
    wanted = jnp.where(time < length, prefix[:, jnp.minimum(time, length - 1)], PAD)[:, None]
    tokens = jnp.arange(logits.shape[-1], dtype=prefix.dtype)[None]
    forced = jnp.where(tokens == wanted, logits, -jnp.inf)
    return jnp.where(wanted == PAD, allowed, forced)
