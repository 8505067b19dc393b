"""Which next tokens may be said, whatever the search?

Every search hands the model's next-token logits to `followed` and chooses by what comes back; what the model itself
says of the chosen token is read from the logits as they were.
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
    """What a translation must keep to; PAD and BOS are never said."""

    min_length: int = 0
    """Fewest tokens of a translation, the end counted."""
    min_ratio: float = 0.0
    """Fewest tokens of a translation for each source token, both ends counted; the longer of both bounds holds."""
    max_ratio: float = 0.0
    """Most tokens of a translation for each source token, both ends counted; 0 for no such bound."""
    no_repeat_ngram: int = 0
    """No run of so many tokens is said twice; 0 for no such rule."""
    repetition_penalty: float = 1.0
    """Factor on the log-probability of tokens that were said before. Keskar et al. 2019, arXiv:1909.05858, 4.1."""
    banned: tuple[int, ...] = ()
    """Ids that are never said."""
    unknown: bool = True
    """Whether the unknown token may be said."""

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
        """Whether what was said before matters."""
        return self.no_repeat_ngram > 0 or self.repetition_penalty != 1


NO_RULES = LogitsRules()


class Limits(NamedTuple):
    """What the rules ask of each row, known before the first token."""

    fewest: Int[Array, " N"]
    most: Int[Array, " N"]
    prefix: Int[Array, "N P"]  # the tokens it must begin with, PAD behind them


def limits_of(
    rules: LogitsRules,
    source: Int[Array, "B S"],
    *,
    max_length: int,
    prefix: Int[Array, "B P"] | None = None,
    each: int = 1,
) -> Limits:
    """The bounds of `each` hypotheses a sentence. No minimum is longer than the maximum."""
    length = real(source).sum(-1).astype(jnp.float32)
    most = jnp.full((source.shape[0],), max_length, jnp.int32)
    if rules.max_ratio:
        most = jnp.clip(tokens_for(length, rules.max_ratio), 1, most)
    fewest = jnp.minimum(jnp.maximum(tokens_for(length, rules.min_ratio), rules.min_length), most)
    if prefix is None:
        prefix = jnp.zeros((source.shape[0], 0), jnp.int32)
    return Limits(*(jnp.repeat(leaf, each, axis=0) for leaf in (fewest, most, prefix)))


def tokens_for(length: Float[Array, " B"], ratio: float) -> Int[Array, " B"]:
    """ratio * length, rounded up; what float32 adds to a whole number is no reason to round it up."""
    return jnp.ceil(length * ratio - 1e-4).astype(jnp.int32)


def apply_rules(
    logits: Float[Array, "N V"],
    rules: LogitsRules,
    limits: Limits,
    *,
    time: Int[Array, ""],
    said: Int[Array, "N T"] | None,
) -> Float[Array, "N V"]:
    """The logits as a search follows them: of -inf where a token may not be said.

    Where nothing may be said, the end may; and the tokens of a prefix win over every other rule.

    Args:
        said: the tokens so far, PAD behind them; None where no rule looks back.

    Raises:
        ValueError: a banned id is not in the vocabulary.
    """
    result = logits
    if said is not None and rules.repetition_penalty != 1:
        result = penalized(result, said, rules.repetition_penalty)
    barred = np.isin(np.arange(logits.shape[-1]), never(rules, logits.shape[-1]))  # a mask, since a scatter would copy
    result = jnp.where(jnp.asarray(barred)[None], -jnp.inf, result)
    if rules.min_length or rules.min_ratio:
        result = result.at[:, EOS].set(jnp.where(time + 1 < limits.fewest, -jnp.inf, result[:, EOS]))
    if said is not None and rules.no_repeat_ngram:
        repeated = repeats(said, time, size=rules.no_repeat_ngram, vocabulary=logits.shape[-1])
        result = jnp.where(repeated, -jnp.inf, result)
    if rules != NO_RULES:
        stuck = ~jnp.isfinite(result).any(-1)
        result = result.at[:, EOS].set(jnp.where(stuck, logits[:, EOS], result[:, EOS]))
    return with_prefix(result, logits, limits.prefix, time) if limits.prefix.shape[1] else result


def never(rules: LogitsRules, vocabulary: int) -> tuple[int, ...]:
    """The ids that are never said.

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


def penalized(logits: Float[Array, "N V"], said: Int[Array, "N T"], penalty: float) -> Float[Array, "N V"]:
    """The logits with the log-probabilities of what was said before times `penalty`.

    Of log-probabilities, not of logits as in the paper: a logit's sign says nothing, since all may be shifted.
    """
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    before = jnp.zeros(logits.shape, bool).at[jnp.arange(said.shape[0])[:, None], said].set(True)
    return jnp.where(before, penalty * (logits - total) + total, logits)


def repeats(said: Int[Array, "N T"], time: Int[Array, ""], *, size: int, vocabulary: int) -> Bool[Array, "N V"]:
    """Which tokens, said next, would end a run of `size` tokens that was said before; `time` tokens were said."""
    rows, length = said.shape
    places = max(length - size + 1, 0)  # where a run may begin
    begun = jax.lax.dynamic_slice_in_dim(said, time - size + 1, size - 1, axis=1) if size > 1 else said[:, :0]
    same = jnp.broadcast_to((jnp.arange(places) + size - 1 < time)[None], (rows, places))
    for offset in range(size - 1):
        same &= said[:, offset : offset + places] == begun[:, offset : offset + 1]
    ends = said[:, length - places :] if places else said[:, :0]
    return jnp.zeros((rows, vocabulary), bool).at[jnp.arange(rows)[:, None], ends].max(same)


def with_prefix(
    allowed: Float[Array, "N V"], logits: Float[Array, "N V"], prefix: Int[Array, "N P"], time: Int[Array, ""]
) -> Float[Array, "N V"]:
    """What is allowed, or the prefix's token alone while there is one."""
    length = prefix.shape[1]
    wanted = jnp.where(time < length, prefix[:, jnp.minimum(time, length - 1)], PAD)[:, None]
    tokens = jnp.arange(logits.shape[-1], dtype=prefix.dtype)[None]
    forced = jnp.where(tokens == wanted, logits, -jnp.inf)
    return jnp.where(wanted == PAD, allowed, forced)
