"""By which number are hypotheses compared, and how much can one that is still open reach at most?"""

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
    """log P / length^weight: the mean log-probability of a token where the weight is 1, as in Marian and OpenNMT."""
    return log_prob / length**weight


def reward(log_prob: Any, length: Any, weight: float) -> Any:
    """log P + weight * length, a reward for each word. He et al. 2016, AAAI, "Improved NMT with SMT features"."""
    return log_prob + weight * length


LengthNormalizationName = Literal["gnmt", "average", "reward"]
# (summed log-probability, tokens, weight) -> score; each one rises with the tokens where the log-probability stays
LENGTH_NORMALIZATIONS: dict[str, Callable[[Any, Any, float], Any]] = {
    "gnmt": gnmt,
    "average": average,
    "reward": reward,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HypothesisScore:
    """One of the scores, with its numbers; left as it is, the log-probability alone."""

    name: LengthNormalizationName = "gnmt"
    strength: float = 0.0  # how much the length counts: the exponent of gnmt and average, the reward of a word
    coverage: float = 0.0  # how much the source tokens that nothing looked at count

    def __post_init__(self):
        one_of("search.length_normalization", self.name, LENGTH_NORMALIZATIONS)
        at_least("search.length_penalty", self.strength, 0)
        at_least("search.coverage_penalty", self.coverage, 0)

    def score(self, log_prob: Float[Array, "*R"], length: Array, uncovered: Float[Array, "*R"]) -> Float[Array, "*R"]:
        """The score of complete hypotheses of `length` tokens; `uncovered` comes from `uncovered` below."""
        return LENGTH_NORMALIZATIONS[self.name](log_prob, length, self.strength) + self.coverage * uncovered

    def bound(self, log_prob: Float[Array, "*R"], longest: Array) -> Float[Array, "*R"]:
        """No continuation of up to `longest` tokens scores above this: what is added to `log_prob` is at most 0,
        a score rises with the length, and no coverage counts more than a full one.
        """
        return LENGTH_NORMALIZATIONS[self.name](log_prob, longest, self.strength)


LIKELIHOOD = HypothesisScore()


def uncovered(coverage: Float[Array, "*B S"], mask: Bool[Array, "*B S"]) -> Float[Array, "*B"]:
    """sum over real source tokens of log min(summed attention, 1). Wu et al. 2016, eq. 14.

    A token that got no attention at all counts as one with the least that a float can say, so that such hypotheses
    still differ.
    """
    least = float(jnp.finfo(coverage.dtype).tiny)
    return jnp.where(mask, jnp.log(jnp.clip(coverage, least, 1.0)), 0.0).sum(-1)
