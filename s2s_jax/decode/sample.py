"""What does the model say when each next token is drawn from its probabilities?"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.choices import at_least
from s2s_jax.decode.largest import largest
from s2s_jax.decode.ranking import LIKELIHOOD, Ranking
from s2s_jax.decode.result import Found
from s2s_jax.decode.rules import FREE, Rules
from s2s_jax.decode.walk import walk
from s2s_jax.model.interface import Model, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """From which of the next tokens to draw; each cut looks at the probabilities after temperature and rules."""

    temperature: float = 1.0
    """What logits are divided by: below 1 the likely tokens get likelier."""
    top_k: int = 0
    """Only so many of the likeliest tokens; 0 for all. Fan et al. 2018, arXiv:1805.04833."""
    top_p: float = 1.0
    """Only the fewest likeliest tokens that hold this much probability. Holtzman et al. 2020, arXiv:1904.09751, 3.1."""
    epsilon: float = 0.0
    """Only tokens of at least this probability, but always the likeliest. Hewitt et al. 2022, arXiv:2210.15191."""

    def __post_init__(self):
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
    ranking: Ranking = LIKELIHOOD,
    rules: Rules = FREE,
    prefix: Int[Array, "B P"] | None = None,
    spare: Int[Array, ""] | int = 0,
) -> Found:
    """So many samples of each sentence, in the order they are drawn; each counts the same in a mean over them."""
    numbers = jnp.arange(samples)
    own = jax.vmap(lambda key: jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers))(keys).reshape(-1)

    def pick(logits: Float[Array, "N V"], time: Int[Array, ""]) -> Int[Array, " N"]:
        return drawn(logits, jax.vmap(lambda key: jax.random.fold_in(key, time))(own), sampling)

    found = walk(
        model,
        params,
        source,
        pick,
        each=samples,
        max_length=max_length,
        ranking=ranking,
        rules=rules,
        prefix=prefix,
        spare=spare,
    )
    return found._replace(log_weights=jnp.where(jnp.isfinite(found.log_weights), 0.0, found.log_weights))


def drawn(logits: Float[Array, "N V"], keys: Key[Array, " N"], sampling: Sampling) -> Int[Array, " N"]:
    """A token for each row: the largest of the kept logits, each with Gumbel noise of its own."""
    values, tokens = kept(logits / sampling.temperature, sampling)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, values.shape[1:]))(keys)
    chosen = jnp.argmax(values + noise, axis=-1)[:, None]
    return jnp.take_along_axis(tokens, chosen, axis=-1)[:, 0]


def kept(logits: Float[Array, "N V"], sampling: Sampling) -> tuple[Float[Array, "N C"], Int[Array, "N C"]]:
    """The logits that may be drawn and their tokens, best first where a cut is made; -inf for what a cut took away."""
    vocabulary = logits.shape[-1]
    if not sampling.top_k and sampling.top_p == 1 and not sampling.epsilon:
        return logits, jnp.broadcast_to(jnp.arange(vocabulary, dtype=jnp.int32)[None], logits.shape)
    best, tokens = largest(logits, min(sampling.top_k or vocabulary, vocabulary))
    probabilities = jnp.exp(best - jax.nn.logsumexp(logits, axis=-1, keepdims=True))
    keep = probabilities >= sampling.epsilon
    if sampling.top_p < 1:
        keep &= jnp.cumsum(probabilities, axis=-1) - probabilities < sampling.top_p  # what is likelier holds less
    keep = keep.at[:, 0].set(True)
    return jnp.where(keep, best, -jnp.inf), tokens.astype(jnp.int32)
