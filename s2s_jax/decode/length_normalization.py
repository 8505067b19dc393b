"""The score that ranks hypotheses, and the highest score that an open hypothesis can still reach."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s2s_jax.validation import at_least, one_of


def length_divisor(length: Float[Array, "*B"], exponent: float) -> Float[Array, "*B"]:
    """((5 + length) / 6) ** exponent, length in tokens, EOS counted. Wu et al. 2016, arXiv:1609.08144, eq. 14."""
    return ((5.0 + length) / 6.0) ** exponent


def gnmt(log_prob: Any, length: Any, weight: float) -> Any:
    """log P / ((5 + length) / 6)^weight. Wu et al. 2016, arXiv:1609.08144, eq. 14."""
    return log_prob / length_divisor(length, weight)


def average(log_prob: Any, length: Any, weight: float) -> Any:
    """log P / length^weight: the mean log-probability per token where the weight is 1, as in Marian and OpenNMT."""
    return log_prob / length**weight


def reward(log_prob: Any, length: Any, weight: float) -> Any:
    """log P + weight * length, a reward per word. He et al. 2016, AAAI, "Improved NMT with SMT features"."""
    return log_prob + weight * length


LengthNormalizationName = Literal["gnmt", "average", "reward"]
# (summed log-probability, tokens, weight) -> score; at one log-probability, each does not fall with the tokens
LENGTH_NORMALIZATIONS: dict[str, Callable[[Any, Any, float], Any]] = {
    "gnmt": gnmt,
    "average": average,
    "reward": reward,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HypothesisScore:
    """A length normalization with its weights; by default the log-probability alone."""

    name: LengthNormalizationName = "gnmt"
    strength: float = 0.0  # search.length_penalty: the exponent of gnmt and average, the reward per word
    coverage: float = 0.0  # search.coverage_penalty: the weight of `log_coverage`

    def __post_init__(self):
        one_of("search.length_normalization", self.name, LENGTH_NORMALIZATIONS)
        at_least("search.length_penalty", self.strength, 0)
        at_least("search.coverage_penalty", self.coverage, 0)

    def score(self, log_prob: Float[Array, "*R"], length: Array, coverage: Float[Array, "*R"]) -> Float[Array, "*R"]:
        """The score of complete hypotheses of `length` tokens; `coverage` comes from `log_coverage`."""
        return LENGTH_NORMALIZATIONS[self.name](log_prob, length, self.strength) + self.coverage * coverage

    def bound(self, log_prob: Float[Array, "*R"], longest: Array) -> Float[Array, "*R"]:
        """An upper bound on the score of every continuation of up to `longest` tokens.

        What is added to `log_prob` is at most 0, a score does not fall with the length, and full coverage adds 0.
        """
        return LENGTH_NORMALIZATIONS[self.name](log_prob, longest, self.strength)


LIKELIHOOD = HypothesisScore()


def log_coverage(attention: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B"]:
    """sum over real source tokens of log min(summed attention, 1). Wu et al. 2016, eq. 14.

    A token without any attention counts as one with the smallest normal float, so that such hypotheses still differ.
    """
    least = float(jnp.finfo(attention.dtype).tiny)
    return jnp.where(mask, jnp.log(jnp.clip(attention, least, 1.0)), 0.0).sum(-1)
