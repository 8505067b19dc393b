"""How well does a decoder state fit each encoder state, by where it stands and where was looked before?"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from s2s_jax.model.attention.scores.base import Score
from s2s_jax.model.attention.scores.content import Additive
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import broadcast_bias, matmul

PRIOR = 11  # tokens that dynamic convolution may move on by in one step, and one


class Location(Score):
    """score_s = (W q)_s: where a token stands, not what it says. Luong et al. 2015, section 3.1, location."""

    def build(self, rngs):
        """W, a column for each position."""
        self.weight = nnx.Param(glorot(rngs.params(), self.query, self.config.positions))

    def prepare(self, memory):
        """Keys of width 0: all that is asked of the memory is how many tokens it has.

        Raises:
            ValueError: while tracing, if it has more than there are positions.
        """
        positions, tokens = self.config.positions, memory.shape[1]
        if tokens > positions:
            raise ValueError(
                f"model.attention.positions must be at least {tokens} for score='location' to read sources padded to "
                f"{tokens} tokens, got {positions}; raise it, or leave longer sources out."
            )
        return memory[..., :0]

    def query_projection(self):
        """W."""
        return self.weight[...]

    def __call__(self, query, keys):
        """(W q)_s for every token, W q given."""
        return query[:, : keys.shape[1]]


class LocationAware(Additive):
    """score = v . tanh(W q + U k + V (F * past)), past alignments convolved. Chorowski et al. 2015, arXiv:1506.07503.

    Additive, with a history whose `model.attention.kernel` is wide. With history previous-and-coverage it has the two
    channels of Shen et al. 2018, arXiv:1712.05884; sharpening is the softmax's temperature, smoothing the normalizer
    smoothed-sigmoid, windowing the constraint window.
    """

    needs_history = True


class DynamicConvolution(Score):
    """score = v . tanh(U (F * past) + T (G(q) * past) + b) + log (P * past). Battenberg et al. 2020, arXiv:1910.10288.

    No content: F is a static convolution of the previous alignment, G(q) = V tanh(W q + c) one that the query makes,
    and P a fixed beta-binomial prior (n = 10, 0.1, 0.9) that only moves on.
    """

    needs_history = True

    def build(self, rngs):
        """F, V, W, U, T, v and the biases."""
        config, filters = self.config, self.config.filters
        self.kernel = config.kernel or 21
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, config.size))
        self.query_bias = nnx.Param(jnp.zeros((config.size,)))
        self.making = nnx.Param(glorot(rngs.params(), config.size, self.kernel * filters))
        self.filters = nnx.Param(glorot(rngs.params(), self.kernel, filters))
        self.weight = nnx.Param(glorot(rngs.params(), 2 * filters, config.size))
        self.bias = nnx.Param(jnp.zeros((config.size,)))
        self.vector = nnx.Param(glorot(rngs.params(), config.size, 1)[:, 0])

    def prepare(self, memory):
        """Keys of width 0."""
        return memory[..., :0]

    def query_projection(self):
        """W."""
        return self.query_kernel[...]

    def step(self, query, keys, past, state):
        """Both convolutions of the previous alignment, and the log of the prior's, at least log 1e-6."""
        inner = jnp.tanh(query + broadcast_bias(self.query_bias[...], 2))
        made = matmul(inner, self.making[...], self.dtype).reshape(query.shape[0], self.kernel, -1)
        windows = _windows(past[..., 0], self.kernel // 2, self.kernel)
        static = jnp.einsum("bsr,rc->bsc", windows, self.filters[...])
        dynamic = jnp.einsum("bsr,brc->bsc", windows, made)
        features = jnp.concatenate([static, dynamic], axis=-1)
        inside = jnp.einsum("bsc,ca->bsa", features, self.weight[...]) + broadcast_bias(self.bias[...], 3)
        prior = _windows(past[..., 0], PRIOR - 1, PRIOR) @ jnp.asarray(beta_binomial(PRIOR - 1, 0.1, 0.9)[::-1])
        return jnp.einsum("bsa,a->bs", jnp.tanh(inside), self.vector[...]) + jnp.log(jnp.maximum(prior, 1e-6)), state


class GaussianMixture(Score):
    """score = log sum_i a_i exp(-b_i (k_i - s)^2), k_i moving on by exp(.). Graves 2013, arXiv:1308.0850, eq. 46-51.

    a, b and the moves are exp(W q + c). The paper's weights are the normalizer exponential's; softmax makes them sum
    to 1.
    """

    stateful = True

    def build(self, rngs):
        """W and c, three numbers a component."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, 3 * self.config.mixtures))
        self.bias = nnx.Param(jnp.zeros((3 * self.config.mixtures,)))

    def prepare(self, memory):
        """Keys of width 0."""
        return memory[..., :0]

    def query_projection(self):
        """W."""
        return self.query_kernel[...]

    def start(self, batch):
        """Every component before the first token."""
        return jnp.zeros((batch, self.config.mixtures))

    def step(self, query, keys, past, state):
        """The log of the mixture at tokens 1, 2, ..., S, and where its components stand."""
        weight, spread, move = jnp.split(query + broadcast_bias(self.bias[...], 2), 3, axis=-1)
        log_weight, precision, moved = self._mixture(weight, spread, move)
        center = state + moved
        places = jnp.arange(1, keys.shape[1] + 1, dtype=jnp.float32)
        distance = center[:, None] - places[None, :, None]
        return jax.nn.logsumexp(log_weight[:, None] - precision[:, None] * distance**2, axis=-1), center

    def _mixture(self, weight, spread, move):
        """Log weight, factor of the squared distance, and move of each component."""
        return weight, jnp.exp(spread), jnp.exp(move)


class GaussianMixtureV2(GaussianMixture):
    """score = log sum_i a_i N(s; k_i, d_i^2), a softmax, d and the moves softplus. Battenberg et al. 2020, V2."""

    def _mixture(self, weight, spread, move):
        deviation = jax.nn.softplus(spread) + 1e-3
        log_weight = jax.nn.log_softmax(weight) - jnp.log(deviation) - 0.5 * jnp.log(2 * jnp.pi)
        return log_weight, 0.5 / deviation**2, jax.nn.softplus(move)


def beta_binomial(n: int, a: float, b: float) -> Float[Array, " N"]:
    """The probability of each of 0, 1, ..., n successes whose chance is itself Beta(a, b)."""
    k = jnp.arange(n + 1.0)
    lgamma = jax.lax.lgamma
    ways = lgamma(n + 1.0) - lgamma(k + 1) - lgamma(n - k + 1)
    chances = lgamma(k + a) + lgamma(n - k + b) - lgamma(n + a + b) + lgamma(a + b) - lgamma(a) - lgamma(b)
    return jnp.exp(ways + chances)


def _windows(row: Float[Array, "B S"], before: int, width: int) -> Float[Array, "B S R"]:
    """For each token the numbers around it, the first `before` tokens earlier; zeros beyond the ends."""
    padded = jnp.pad(row, ((0, 0), (before, width - 1 - before)))
    return jnp.stack([padded[:, start : start + row.shape[1]] for start in range(width)], axis=-1)
