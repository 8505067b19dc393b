"""Which K different translations does chance bring, each as likely as the model says, none of them twice?

A beam over log-probabilities with Gumbel noise, drawn from the top of the tree down: Kool et al. 2019,
arXiv:1903.06059, Algorithm 1. Every leaf's noisy log-probability is as if it were drawn by itself, so the K largest
are a sample without replacement, and the largest alone is an exact sample.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.decode.beam.engine import search
from s2s_jax.decode.beam.state import Candidates, OpenHypotheses, Selection, pooled, still_open
from s2s_jax.decode.length_normalization import LIKELIHOOD, HypothesisScore, uncovered
from s2s_jax.decode.logits_rules import NO_RULES, LogitsRules
from s2s_jax.decode.result import SearchResult
from s2s_jax.decode.top_k import top_k
from s2s_jax.model.interface import Model, Params
from s2s_jax.shapes import real


@functools.partial(jax.tree_util.register_dataclass, data_fields=["keys"], meta_fields=["groups"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class StochasticPolicy:
    """Chooses by noisy log-probabilities. What the rules leave is made to sum to 1, or it could not be drawn from."""

    keys: Key[Array, " R"]
    groups: int = 1
    open_last = False  # one cut off is a leaf of the tree like any other

    def first(self, total: Float[Array, "R K"]) -> OpenHypotheses:
        """Noise too: with a fixed number the order would be as exact, but not the threshold, nor any weight."""
        return OpenHypotheses(total, total + self._noise(jnp.zeros((), jnp.int32), (1,)))

    def _noise(self, place: Int[Array, ""], shape: tuple[int, ...]) -> Float[Array, "R *N"]:
        """Gumbel noise, for the beginning at 0 and for each step after it."""
        return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, place), shape))(self.keys)

    def select(
        self,
        live: OpenHypotheses,
        logits: Float[Array, "R K V"],
        *,
        normalizer: Float[Array, "R K"],
        time: Int[Array, ""],
    ) -> Selection:
        """The continuations of the largest noisy log-probability."""
        width = live.total.shape[1]
        left = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        total = live.total[..., None] + logits - jnp.where(jnp.isfinite(left), left, 0.0)
        noisy, token = top_k(total + self._noise(time + 1, logits.shape[1:]), min(2 * width, logits.shape[-1]))
        merit = below(noisy, noisy[..., :1], live.merit[..., None])
        choice = pooled(Candidates(merit, jnp.take_along_axis(total, token, axis=-1), token, token), width)
        return Selection(choice, still_open(choice, width))

    def value(self, total: Array, merit: Array, length: Array, uncovered: Array) -> Array:
        """The noisy log-probability."""
        return merit

    def bound(self, live: OpenHypotheses, longest: Array) -> Array:
        """The noisy log-probability: no continuation has a larger one."""
        return live.merit


def below(
    noisy: Float[Array, "R K C"], top: Float[Array, "R K 1"], limit: Float[Array, "R K 1"]
) -> Float[Array, "R K C"]:
    """Noisy log-probabilities, of which `top` is the largest, moved so that the largest is `limit`.

    -log(exp(-limit) - exp(-top) + exp(-noisy)), by Kool et al. 2019, appendix B.3, so that no digit is lost.
    """
    v = limit - noisy + log_of_one_minus_exp(noisy - top)
    result = limit - jnp.maximum(v, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(v)))
    return jnp.where(jnp.isfinite(noisy) & jnp.isfinite(limit), result, -jnp.inf)


def log_of_one_minus_exp(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """log(1 - exp(x)) for x of at most 0, without loss near 0 or far from it."""
    return jnp.where(x > -0.6931472, jnp.log(-jnp.expm1(x)), jnp.log1p(-jnp.exp(x)))


def stochastic(
    model: Model,
    params: Params,
    source: Int[Array, "B S"],
    keys: Key[Array, " B"],
    *,
    width: int,
    max_length: int,
    scoring: HypothesisScore = LIKELIHOOD,
    rules: LogitsRules = NO_RULES,
    prefix: Int[Array, "B P"] | None = None,
    compactions: int = 0,
) -> SearchResult:
    """`width` different hypotheses of each sentence in the order they are drawn, with their importance weights.

    sum f(y) exp(log_weight(y)) over the hypotheses is an unbiased estimate of the mean of f over all strings.
    """
    # one more, whose noisy log-probability is the threshold that all others are above
    found = search(
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
    threshold = found.scores[:, width:]
    found = SearchResult(*(leaf[:, :width] for leaf in found))
    there = jnp.isfinite(found.scores)
    lengths = jnp.maximum(real(found.tokens).sum(-1), 1).astype(jnp.float32)
    looked = uncovered(found.alignment.sum(2), jnp.repeat(real(source)[:, None], width, axis=1))
    scores = scoring.score(found.log_weights, lengths, looked)
    return found._replace(
        scores=jnp.where(there, scores, -jnp.inf),
        log_weights=jnp.where(there, found.log_weights - log_inclusion(found.log_weights, threshold), -jnp.inf),
    )


def log_inclusion(total: Float[Array, "B K"], threshold: Float[Array, "B 1"]) -> Float[Array, "B K"]:
    """log(1 - exp(-exp(total - threshold))): how likely a string is above the threshold. Kool et al. 2019, eq. 10.

    With a threshold of -inf, where there were no more strings, all are certain.
    """
    x = total - threshold
    return jnp.where(x < -15, x, jnp.log(-jnp.expm1(-jnp.exp(jnp.maximum(x, -15.0)))))
