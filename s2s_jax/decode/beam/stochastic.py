"""Stochastic beam search: K samples without replacement from the model's distribution over strings.

It is a beam over log-probabilities with Gumbel noise, sampled from the root of the tree down: Kool et al. 2019,
arXiv:1903.06059, Algorithm 1. Every leaf's noisy log-probability is distributed as if it were drawn
independently, so the K largest are a sample without replacement, and the largest alone is an exact sample.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.decode.beam.engine import search_with_policy
from s2s_jax.decode.beam.state import Candidates, OpenHypotheses, Selection, keep_open, pool_slots
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore, log_coverage
from s2s_jax.decode.logits_rules import NO_RULES, LogitsRules
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.top_k import top_k
from s2s_jax.model.interface import Model, Params, Source
from s2s_jax.shapes import real, source_tokens


@functools.partial(jax.tree_util.register_dataclass, data_fields=["keys"], meta_fields=["groups"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class StochasticPolicy:
    """Chooses by noisy log-probabilities, normalized over the tokens that the rules allow."""

    keys: Key[Array, " R"]
    groups: int = 1
    open_last = False  # a hypothesis that is cut off is a leaf of the tree like any other

    def first(self, total: Float[Array, "R K"]) -> OpenHypotheses:
        """With noise as well: a constant would give the same order, but a wrong threshold and wrong weights."""
        return OpenHypotheses(total, total + self._noise(jnp.zeros((), jnp.int32), (1,)))

    def _noise(self, place: Int[Array, ""], shape: tuple[int, ...]) -> Float[Array, "R *N"]:
        """Gumbel noise, for the empty hypothesis at place 0 and for each step after it."""
        return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, place), shape))(self.keys)

    def select(
        self,
        hypotheses: OpenHypotheses,
        logits: Float[Array, "R K V"],
        *,
        normalizer: Float[Array, "R K"],
        time: Int[Array, ""],
    ) -> Selection:
        """The continuations of largest noisy log-probability."""
        width = hypotheses.total.shape[1]
        left = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        total = hypotheses.total[..., None] + logits - jnp.where(jnp.isfinite(left), left, 0.0)
        noisy, token = top_k(total + self._noise(time + 1, logits.shape[1:]), min(2 * width, logits.shape[-1]))
        merit = condition_maximum(noisy, noisy[..., :1], hypotheses.merit[..., None])
        best = pool_slots(Candidates(merit, jnp.take_along_axis(total, token, axis=-1), token, token), width)
        return Selection(best, keep_open(best, width))

    def value(self, total: Array, merit: Array, length: Array, coverage: Array) -> Array:
        """The noisy log-probability, whatever the length."""
        return merit

    def bound(self, hypotheses: OpenHypotheses, longest: Array) -> Array:
        """The noisy log-probability: no continuation exceeds that of its parent."""
        return hypotheses.merit


def condition_maximum(
    noisy: Float[Array, "R K C"], top: Float[Array, "R K 1"], limit: Float[Array, "R K 1"]
) -> Float[Array, "R K C"]:
    """Noisy log-probabilities, of which `top` is the largest, conditioned on the largest being `limit`.

    -log(exp(-limit) - exp(-top) + exp(-noisy)), in the numerically stable form of Kool et al. 2019, appendix B.3.
    """
    v = limit - noisy + log1mexp(noisy - top)
    result = limit - jnp.maximum(v, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(v)))
    return jnp.where(jnp.isfinite(noisy) & jnp.isfinite(limit), result, -jnp.inf)


def log1mexp(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """log(1 - exp(x)) for x <= 0, accurate near 0 and far from it."""
    return jnp.where(x > -0.6931472, jnp.log(-jnp.expm1(x)), jnp.log1p(-jnp.exp(x)))


def stochastic(
    model: Model,
    params: Params,
    source: Source,
    keys: Key[Array, " B"],
    *,
    width: int,
    max_length: int,
    scoring: HypothesisScore = LIKELIHOOD,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """`width` distinct hypotheses per sentence, in the order they are drawn, with their importance weights.

    Scores are by the model's own probabilities; what is drawn from, and weighted by, is normalized over the tokens that
    the rules allow.
    sum f(y) exp(log_weight(y)) over the hypotheses is an unbiased estimate of the mean of f over all strings.
    """
    # one hypothesis more than wanted: its noisy log-probability is the threshold that the others exceed
    result = search_with_policy(
        model,
        params,
        source,
        StochasticPolicy(keys=keys),
        width=width + 1,
        max_length=max_length,
        stopping="bounded",
        rules=rules,
        prefix=prefix,
        compactions=compactions,
    )
    threshold = result.scores[:, width:]
    result = SearchResult(*(leaf[:, :width] for leaf in result))
    exists = jnp.isfinite(result.scores)
    lengths = jnp.maximum(real(result.tokens).sum(-1), 1).astype(jnp.float32)
    coverage = log_coverage(result.alignment.sum(2), jnp.repeat(real(source_tokens(source))[:, None], width, axis=1))
    scores = scoring.score(result.log_probs.sum(-1), lengths, coverage)
    return result._replace(
        scores=jnp.where(exists, scores, -jnp.inf),
        log_weights=jnp.where(exists, result.log_weights - log_inclusion(result.log_weights, threshold), -jnp.inf),
    )


def log_inclusion(total: Float[Array, "B K"], threshold: Float[Array, "B 1"]) -> Float[Array, "B K"]:
    """log(1 - exp(-exp(total - threshold))): the log-probability that a string is above the threshold.

    Kool et al. 2019, eq. 10. A threshold of -inf, where there were no more strings, gives probability 1.
    """
    x = total - threshold
    return jnp.where(x < -15, x, jnp.log(-jnp.expm1(-jnp.exp(jnp.maximum(x, -15.0)))))
