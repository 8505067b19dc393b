"""What does a search bring back, and how is a hypothesis scored?"""

import dataclasses
from typing import NamedTuple

import jax
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
    replace_unknown: bool = False
    """Each unknown token of a translation is written as the source word that attention weighs most at its step."""

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


def speakable(logits: Float[Array, "*B V"]) -> Float[Array, "*B V"]:
    """The logits with those of PAD and BOS, which no sentence holds, at -inf."""
    return logits.at[..., jnp.array([PAD, BOS])].set(-jnp.inf)


def likeliest(logits: Float[Array, "*B V"]) -> tuple[Int[Array, "*B"], Float[Array, "*B"]]:
    """The first token of highest probability that may be said, and its log-probability among all tokens.

    A maximum and then the first place that holds it: XLA's argmax, which carries both along, takes thrice the time.
    """
    allowed = speakable(logits)
    best = allowed.max(-1)
    places = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    places = places.reshape((1,) * (logits.ndim - 1) + places.shape)
    token = jnp.where(allowed == best[..., None], places, logits.shape[-1] - 1).min(-1)
    return token, best - jax.nn.logsumexp(logits, axis=-1)
