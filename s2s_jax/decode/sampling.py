"""What does the model say when each next token is drawn from its probabilities?"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.decode.autoregressive import decode_autoregressively
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore
from s2s_jax.decode.logits_rules import NO_RULES, LogitsRules
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.top_k import STRETCH, top_k
from s2s_jax.model.interface import Model, Params
from s2s_jax.validation import at_least, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """From which of the next tokens to draw; each cut looks at the probabilities after temperature and rules."""

    temperature: float = 1.0
    """What logits are divided by: below 1 the likely tokens get likelier."""
    top_k: int = 0
    """Only so many of the likeliest tokens, and those as likely as the last; 0 for all. Fan et al. 2018,
    arXiv:1805.04833.
    """
    top_p: float = 1.0
    """Only the fewest likeliest tokens that hold this much probability. Holtzman et al. 2020, arXiv:1904.09751, 3.1."""
    epsilon: float = 0.0
    """Only tokens of at least this probability, but always the likeliest. Hewitt et al. 2022, arXiv:2210.15191."""

    def __post_init__(self):
        check_fields(self, "search.sampling")
        if not self.temperature > 0:
            raise ValueError(
                f"search.sampling.temperature must be above 0, got {self.temperature}; for the likeliest token take "
                "search.method=beam with search.beam=1."
            )
        at_least("search.sampling.top_k", self.top_k, 0)
        if not 0 < self.top_p <= 1:
            raise ValueError(f"search.sampling.top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.epsilon < 1:
            raise ValueError(f"search.sampling.epsilon must be at least 0 and below 1, got {self.epsilon}")


UNCUT = Sampling()


def row_keys(seed: int, numbers: Int[Array, " B"]) -> Key[Array, " B"]:
    """A key for each row from what numbers it, so that it doesn't matter with whom it shares a batch."""
    return jax.vmap(lambda number: jax.random.fold_in(jax.random.key(seed), number))(numbers)


def sample(
    model: Model,
    params: Params,
    source: Int[Array, "B S"],
    keys: Key[Array, " B"],
    *,
    samples: int = 1,
    max_length: int,
    sampling: Sampling = UNCUT,
    scoring: HypothesisScore = LIKELIHOOD,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """So many samples of each sentence, in the order they are drawn; each counts the same in a mean over them."""
    numbers = jnp.arange(samples)
    own = jax.vmap(lambda key: jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers))(keys).reshape(-1)

    def pick(logits: Float[Array, "N V"], own: Key[Array, " N"], time: Int[Array, ""]) -> Int[Array, " N"]:
        return drawn(logits, jax.vmap(lambda key: jax.random.fold_in(key, time))(own), sampling)

    found = decode_autoregressively(
        model,
        params,
        source,
        pick,
        given=own,
        each=samples,
        max_length=max_length,
        scoring=scoring,
        rules=rules,
        prefix=prefix,
        compactions=compactions,
    )
    return found._replace(log_weights=jnp.where(jnp.isfinite(found.log_weights), 0.0, found.log_weights))


def drawn(logits: Float[Array, "N V"], keys: Key[Array, " N"], sampling: Sampling) -> Int[Array, " N"]:
    """A token for each row: the one that a uniform number falls on, the kept probabilities laid end to end.

    One number a row, where noise on each logit would take one a token. The stretch is found first, then the token.
    """
    left = kept(logits / sampling.temperature, sampling)
    weights = jnp.exp(left - left.max(-1, keepdims=True))
    weights = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % STRETCH)))
    parts = weights.reshape(len(weights), -1, STRETCH)
    shares = parts.sum(-1)
    point = jax.vmap(jax.random.uniform)(keys)[:, None] * shares.sum(-1, keepdims=True)
    stretch = fallen_on(shares, point)[:, None]
    before = jnp.where(jnp.arange(shares.shape[1])[None] < stretch, shares, 0.0).sum(-1, keepdims=True)
    inside = jnp.take_along_axis(parts, stretch[..., None], axis=1)[:, 0]
    return stretch[:, 0] * STRETCH + fallen_on(inside, point - before)


def fallen_on(weights: Float[Array, "N C"], point: Float[Array, "N 1"]) -> Int[Array, " N"]:
    """The first place up to which the weights add up to more than the point; never one without weight."""
    places, there = jnp.arange(weights.shape[1], dtype=jnp.int32)[None], weights > 0
    first = jnp.where(there & (jnp.cumsum(weights, axis=-1) > point), places, places.size).min(-1)
    return jnp.minimum(first, jnp.where(there, places, 0).max(-1))  # rounding may leave none


def kept(logits: Float[Array, "N V"], sampling: Sampling) -> Float[Array, "N V"]:
    """The logits that may be drawn, -inf for what a cut took away; equally likely tokens stay or go together."""
    if not sampling.top_k and sampling.top_p == 1 and not sampling.epsilon:
        return logits
    probabilities = jax.nn.softmax(logits)
    least = jnp.full((len(logits), 1), sampling.epsilon)
    if 0 < sampling.top_k < logits.shape[1]:
        least = jnp.maximum(least, top_k(probabilities, sampling.top_k)[0][:, -1:])
    if sampling.top_p < 1:
        least = jnp.maximum(least, nucleus(probabilities, sampling.top_p))
    least = jnp.minimum(least, probabilities.max(-1, keepdims=True))
    return jnp.where(probabilities >= least, logits, -jnp.inf)


def nucleus(probabilities: Float[Array, "N V"], share: float) -> Float[Array, "N 1"]:
    """The least x for which tokens likelier than x hold less than a share: bisected over all floats, nothing is sorted.

    The bits of floats that are not negative, read as whole numbers, are in the order of the floats.
    """

    def halved(_, bounds: tuple[Int[Array, "N 1"], Int[Array, "N 1"]]) -> tuple[Int[Array, "N 1"], Int[Array, "N 1"]]:
        low, high = bounds
        middle = (low + high) // 2
        likelier = probabilities > jax.lax.bitcast_convert_type(middle, jnp.float32)
        enough = jnp.where(likelier, probabilities, 0.0).sum(-1, keepdims=True) < share
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    zero = jnp.zeros((len(probabilities), 1), jnp.int32)
    one = jax.lax.bitcast_convert_type(jnp.ones_like(zero, jnp.float32), jnp.int32)
    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 31, halved, (zero, one))[1], jnp.float32)
