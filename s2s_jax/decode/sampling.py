"""Ancestral sampling, with temperature, top-k, nucleus and epsilon truncation."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.decode.autoregressive import decode_autoregressively
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore
from s2s_jax.decode.logits_rules import NO_RULES, LogitsRules
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.top_k import BLOCK, top_k
from s2s_jax.model.interface import Model, Params, Source
from s2s_jax.validation import at_least, check_fields

COLDEST = 1e-6  # temperature; float32 cannot hold the logits divided by much less


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which of the next tokens are drawn from; every truncation reads the probabilities after temperature and rules."""

    temperature: float = 1.0
    """Divisor of the logits: below 1 likely tokens become likelier."""
    top_k: int = 0
    """Only this many of the likeliest tokens, and those as likely as the last; 0 for all. Fan et al. 2018,
    arXiv:1805.04833.
    """
    top_p: float = 1.0
    """Only the fewest likeliest tokens that hold this much probability. Holtzman et al. 2020, arXiv:1904.09751, 3.1."""
    epsilon: float = 0.0
    """Only tokens of at least this probability, but always the likeliest. Hewitt et al. 2022, arXiv:2210.15191."""

    def __post_init__(self):
        check_fields(self, "search.sampling")
        if not self.temperature >= COLDEST:
            raise ValueError(
                f"search.sampling.temperature must be at least {COLDEST}, got {self.temperature}; for the likeliest "
                "token take search.method=beam with search.beam=1."
            )
        at_least("search.sampling.top_k", self.top_k, 0)
        if not 0 < self.top_p <= 1:
            raise ValueError(f"search.sampling.top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.epsilon < 1:
            raise ValueError(f"search.sampling.epsilon must be at least 0 and below 1, got {self.epsilon}")


NO_TRUNCATION = Sampling()


def row_keys(seed: int | Key[Array, ""], numbers: Int[Array, " B"]) -> Key[Array, " B"]:
    """A random key per row from the number of its line, so that a sample does not depend on the batch.

    Args:
        seed: of the key that the numbers are folded into, or that key.
    """
    key = jax.random.key(seed) if isinstance(seed, int) else seed
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


def sample(
    model: Model,
    params: Params,
    source: Source,
    keys: Key[Array, " B"],
    *,
    samples: int = 1,
    max_length: int,
    sampling: Sampling = NO_TRUNCATION,
    scoring: HypothesisScore = LIKELIHOOD,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """Samples of each sentence, in the order they are drawn; each has the same weight in a mean over them."""
    numbers = jnp.arange(samples)
    keys_of = jax.vmap(lambda key: jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers))

    def choose(logits: Float[Array, "N V"], row_keys: Key[Array, " N"], time: Int[Array, ""]) -> Int[Array, " N"]:
        return draw_tokens(logits, jax.vmap(lambda key: jax.random.fold_in(key, time))(row_keys), sampling)

    result = decode_autoregressively(
        model,
        params,
        source,
        choose,
        row_inputs=keys_of(keys).reshape(-1),
        hypotheses=samples,
        max_length=max_length,
        scoring=scoring,
        rules=rules,
        prefix=prefix,
        compactions=compactions,
    )
    return result._replace(log_weights=jnp.where(jnp.isfinite(result.log_weights), 0.0, result.log_weights))


def draw_tokens(logits: Float[Array, "N V"], keys: Key[Array, " N"], sampling: Sampling) -> Int[Array, " N"]:
    """One token per row, by inversion of the cumulative probabilities of the tokens that are left.

    It takes one random number per row, where Gumbel noise takes one per logit. The block is found first, then the
    token in it.
    """
    left = truncate(logits / sampling.temperature, sampling)
    weights = jnp.exp(left - left.max(-1, keepdims=True))
    weights = jnp.pad(weights, ((0, 0), (0, -weights.shape[1] % BLOCK)))
    blocks = weights.reshape(len(weights), -1, BLOCK)
    masses = blocks.sum(-1)
    point = jax.vmap(jax.random.uniform)(keys)[:, None] * masses.sum(-1, keepdims=True)
    block = place_of(masses, point)[:, None]
    before = jnp.where(jnp.arange(masses.shape[1])[None] < block, masses, 0.0).sum(-1, keepdims=True)
    in_block = jnp.take_along_axis(blocks, block[..., None], axis=1)[:, 0]
    return block[:, 0] * BLOCK + place_of(in_block, point - before)


def place_of(weights: Float[Array, "N C"], point: Float[Array, "N 1"]) -> Int[Array, " N"]:
    """The first place at which the cumulative weights exceed the point; never one without weight."""
    places, possible = jnp.arange(weights.shape[1], dtype=jnp.int32)[None], weights > 0
    first = jnp.where(possible & (jnp.cumsum(weights, axis=-1) > point), places, places.size).min(-1)
    return jnp.minimum(first, jnp.where(possible, places, 0).max(-1))  # rounding may leave none


def truncate(logits: Float[Array, "N V"], sampling: Sampling) -> Float[Array, "N V"]:
    """The logits that may be drawn, -inf for the others; equally likely tokens stay or go together."""
    if not sampling.top_k and sampling.top_p == 1 and not sampling.epsilon:
        return logits
    probabilities = jax.nn.softmax(logits)
    threshold = jnp.full((len(logits), 1), sampling.epsilon)
    if 0 < sampling.top_k < logits.shape[1]:
        threshold = jnp.maximum(threshold, top_k(probabilities, sampling.top_k)[0][:, -1:])
    if sampling.top_p < 1:
        threshold = jnp.maximum(threshold, nucleus_threshold(probabilities, sampling.top_p))
    threshold = jnp.minimum(threshold, probabilities.max(-1, keepdims=True))
    return jnp.where(probabilities >= threshold, logits, -jnp.inf)


def nucleus_threshold(probabilities: Float[Array, "N V"], mass: float) -> Float[Array, "N 1"]:
    """The least x for which tokens likelier than x hold less than this probability mass, by bisection over all floats.

    Nothing is sorted: the bits of nonnegative floats, read as whole numbers, are in the order of the floats.
    """

    def halve(_, bounds: tuple[Int[Array, "N 1"], Int[Array, "N 1"]]) -> tuple[Int[Array, "N 1"], Int[Array, "N 1"]]:
        low, high = bounds
        middle = (low + high) // 2
        likelier = probabilities > jax.lax.bitcast_convert_type(middle, jnp.float32)
        enough = jnp.where(likelier, probabilities, 0.0).sum(-1, keepdims=True) < mass
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    zero = jnp.zeros((len(probabilities), 1), jnp.int32)
    one = jax.lax.bitcast_convert_type(jnp.ones_like(zero, jnp.float32), jnp.int32)
    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 31, halve, (zero, one))[1], jnp.float32)
