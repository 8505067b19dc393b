"""What does a search bring back, and how is a hypothesis scored?"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s2s_jax.choices import at_least
from s2s_jax.shapes import BOS, PAD


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How a translation is looked for."""

    beam: int = 1
    """Hypotheses followed at once; 1 is greedy search."""
    length_penalty: float = 0.6
    """Exponent a of ((5 + length) / 6)^a, which divides a log-probability. Wu et al. 2016, arXiv:1609.08144, eq. 14."""
    max_length: int = 0
    """Most tokens of a translation, the end counted; 0 for 1.2 x the longest training target + 10."""
    sentences: int = 64
    """Most source lines decoded together."""

    def __post_init__(self):
        at_least("search.beam", self.beam, 1)
        at_least("search.length_penalty", self.length_penalty, 0)
        at_least("search.max_length", self.max_length, 0)
        at_least("search.sentences", self.sentences, 1)


class Found(NamedTuple):
    """The hypotheses of each sentence, best first; one for greedy search."""

    tokens: Int[Array, "B K T"]  # EOS counted, PAD behind it
    log_probs: Float[Array, "B K T"]  # of each token, nats; 0 behind EOS
    alignment: Float[Array, "B K T S"]
    scores: Float[Array, "B K"]  # length-penalised log-probability; -inf where there is no such hypothesis
    truncated: Bool[Array, "B K"]  # cut off at the length bound, without EOS


def length_divisor(length: Float[Array, "*B"], exponent: float) -> Float[Array, "*B"]:
    """((5 + length) / 6) ** exponent, length in tokens, EOS counted. Wu et al. 2016, eq. 14."""
    return ((5.0 + length) / 6.0) ** exponent


def speakable(log_probs: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
    """The log-probabilities with those of PAD and BOS, which no sentence holds, at -inf."""
    return log_probs.at[..., jnp.array([PAD, BOS])].set(-jnp.inf)
