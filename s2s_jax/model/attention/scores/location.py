"""Scores of the tokens' positions and of earlier alignments."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from s2s_jax.model.attention.scores.base import Score
from s2s_jax.model.attention.scores.content import Additive
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import broadcast_bias, matmul

LARGEST_EXPONENT = 20.0  # moves of 5e8 tokens: after 10,000 of them b times the squared distance is still finite
PRIOR = 11  # width of the prior of dynamic convolution: it moves on by 0 to 10 tokens per step


class Location(Score):
    """score_s = (W q)_s: the token's position without its content. Luong et al. 2015, section 3.1, location."""

    has_keys = False
    settings = ("positions",)

    def build(self, rngs):
        """Create W, with one column per position."""
        self.weight = nnx.Param(glorot(rngs.params(), self.query, self.config.positions))

    def prepare(self, memory):
        """Keys of width 0: only the number of tokens matters.

        Raises:
            ValueError: while tracing, if there are more tokens than positions.
        """
        positions, tokens = self.config.positions, memory.shape[1]
        if tokens > positions:
            raise ValueError(
                f"model.attention.positions must be at least {tokens}, because model.attention.score=location reads "
                f"sources padded to {tokens} tokens, got {positions}; use --model.attention.positions {tokens}, or "
                "leave longer sources out."
            )
        return memory[..., :0]

    def query_projection(self):
        """The matrix W."""
        return self.weight[...]

    def __call__(self, query, keys):
        """(W q)_s for every token s, where `query` is W q."""
        return query[:, : keys.shape[1]]


class LocationAware(Additive):
    """score = v . tanh(W q + U k + V (F * past)), past alignments convolved. Chorowski et al. 2015, arXiv:1506.07503.

    Additive, with a wide convolution over the history. With history `previous-and-coverage` it has the two channels of
    Shen et al. 2018, arXiv:1712.05884. The paper's sharpening is the softmax's temperature, its smoothing the
    normalizer `smoothed-sigmoid`, its windowing the constraint `window`.
    """

    needs_history = True
    default_kernel = 31
    settings = ("size", "bias")


class DynamicConvolution(Score):
    """score = v . tanh(U (F * past) + T (G(q) * past) + b) + log (P * past). Battenberg et al. 2020, arXiv:1910.10288.

    It ignores content: F is a static convolution of the previous alignment, G(q) = V tanh(W q + c) a convolution that
    depends on the query, and P a fixed beta-binomial prior (n = 10, 0.1, 0.9) that only moves forward.
    """

    has_keys = False
    needs_history = True
    needs_previous_alignment = True
    default_kernel = 21
    settings = ("size", "kernel", "filters")

    def build(self, rngs):
        """Create F, V, W, U, T, v and the biases."""
        config, filters = self.config, self.config.filters
        self.kernel = config.kernel or self.default_kernel
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, config.size))
        self.query_bias = nnx.Param(jnp.zeros((config.size,)))
        self.dynamic_kernel = nnx.Param(glorot(rngs.params(), config.size, self.kernel * filters))
        self.filters = nnx.Param(glorot(rngs.params(), self.kernel, filters))
        self.weight = nnx.Param(glorot(rngs.params(), 2 * filters, config.size))
        self.bias = nnx.Param(jnp.zeros((config.size,)))
        self.vector = nnx.Param(glorot(rngs.params(), config.size, 1)[:, 0])

    def prepare(self, memory):
        """Keys of width 0."""
        return memory[..., :0]

    def query_projection(self):
        """The matrix W."""
        return self.query_kernel[...]

    def step(self, query, keys, features, state):
        """Both convolutions of the previous alignment, plus the log of the prior's, at least log 1e-6."""
        inner = jnp.tanh(query + broadcast_bias(self.query_bias[...], 2))
        dynamic_filters = matmul(inner, self.dynamic_kernel[...], self.dtype).reshape(query.shape[0], self.kernel, -1)
        windows = _windows(features[..., 0], self.kernel // 2, self.kernel)
        static = jnp.einsum("bsr,rc->bsc", windows, self.filters[...])
        dynamic = jnp.einsum("bsr,brc->bsc", windows, dynamic_filters)
        both = jnp.concatenate([static, dynamic], axis=-1)
        hidden = jnp.einsum("bsc,ca->bsa", both, self.weight[...]) + broadcast_bias(self.bias[...], 3)
        prior = _windows(features[..., 0], PRIOR - 1, PRIOR) @ jnp.asarray(beta_binomial(PRIOR - 1, 0.1, 0.9)[::-1])
        return jnp.einsum("bsa,a->bs", jnp.tanh(hidden), self.vector[...]) + jnp.log(jnp.maximum(prior, 1e-6)), state


class GaussianMixture(Score):
    """score = log sum_i a_i exp(-b_i (k_i - s)^2), k_i moving on by exp(.). Graves 2013, arXiv:1308.0850, eq. 46-51.

    a, b and the moves are exp(W q + c); b and the moves are at most exp(20). The paper's weights are those of the
    normalizer `exponential`; a softmax makes them sum to 1.
    """

    stateful = True
    has_keys = False
    settings = ("mixtures",)

    def build(self, rngs):
        """Create W and c, three numbers per component."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, 3 * self.config.mixtures))
        self.bias = nnx.Param(jnp.zeros((3 * self.config.mixtures,)))

    def prepare(self, memory):
        """Keys of width 0."""
        return memory[..., :0]

    def query_projection(self):
        """The matrix W."""
        return self.query_kernel[...]

    def start(self, batch):
        """The centers [B, mixtures] of all components, in front of the first token."""
        return jnp.zeros((batch, self.config.mixtures))

    def step(self, query, keys, features, state):
        """The log of the mixture at tokens 1, 2, ..., S, and the centers of its components."""
        weight, spread, move = jnp.split(query + broadcast_bias(self.bias[...], 2), 3, axis=-1)
        log_weight, precision, move = self._mixture(weight, spread, move)
        center = state + move
        positions = jnp.arange(1, keys.shape[1] + 1, dtype=jnp.float32)
        distance = center[:, None] - positions[None, :, None]
        return jax.nn.logsumexp(log_weight[:, None] - precision[:, None] * distance**2, axis=-1), center

    def _mixture(self, weight, spread, move):
        """The log weight, the factor of the squared distance, and the move of each component."""
        return weight, jnp.exp(jnp.minimum(spread, LARGEST_EXPONENT)), jnp.exp(jnp.minimum(move, LARGEST_EXPONENT))


class GaussianMixtureV2(GaussianMixture):
    """score = log sum_i a_i N(s; k_i, d_i^2), a softmax, d and the moves softplus. Battenberg et al. 2020, V2."""

    settings = ("mixtures",)

    def _mixture(self, weight, spread, move):
        deviation = jax.nn.softplus(spread) + 1e-3
        log_weight = jax.nn.log_softmax(weight) - jnp.log(deviation) - 0.5 * jnp.log(2 * jnp.pi)
        return log_weight, 0.5 / deviation**2, jax.nn.softplus(move)


def beta_binomial(n: int, a: float, b: float) -> Float[Array, " N"]:
    """The probabilities of 0, 1, ..., n successes in n trials whose success probability is Beta(a, b) distributed."""
    k = jnp.arange(n + 1.0)
    lgamma = jax.lax.lgamma
    combinations = lgamma(n + 1.0) - lgamma(k + 1) - lgamma(n - k + 1)
    log_beta_ratio = lgamma(k + a) + lgamma(n - k + b) - lgamma(n + a + b) + lgamma(a + b) - lgamma(a) - lgamma(b)
    return jnp.exp(combinations + log_beta_ratio)


def _windows(row: Float[Array, "B S"], before: int, width: int) -> Float[Array, "B S R"]:
    """For each token the `width` entries around it, the first one `before` tokens earlier; zeros beyond the ends."""
    padded = jnp.pad(row, ((0, 0), (before, width - 1 - before)))
    return jnp.stack([padded[:, start : start + row.shape[1]] for start in range(width)], axis=-1)
