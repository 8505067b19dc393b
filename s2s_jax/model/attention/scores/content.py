"""Scores of the tokens' content: how well a decoder state matches each encoder state."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from s2s_jax.model.attention.scores.base import Score
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.layer_norm import layer_norm
from s2s_jax.model.ops.matmul import broadcast_bias, contract, matmul


class Uniform(Score):
    """score = 0. With softmax the context is the mean of the encoder states, whatever the query."""

    has_keys = False
    settings = ()

    def prepare(self, memory):
        """Keys of width 0: only the number of tokens matters."""
        return memory[..., :0]

    def __call__(self, query, keys):
        """Zeros, one per token."""
        return jnp.zeros(keys.shape[:2])


class Dot(Score):
    """score = q . k. Luong et al. 2015, arXiv:1508.04025, eq. 8."""

    needs_equal_widths = True
    settings = ()

    def __call__(self, query, keys):
        """q . k [B, S], with factors in the compute precision and a float32 sum."""
        return contract("bq,bsq->bs", query, keys, self.dtype)


class ScaledDot(Dot):
    """score = q . k / sqrt(Q). Vaswani et al. 2017, arXiv:1706.03762, eq. 1."""

    settings = ()

    def __call__(self, query, keys):
        """q . k / sqrt(Q), one number per token."""
        return super().__call__(query, keys) / self.query**0.5


class Cosine(Dot):
    """score = t q . k / (|q| |k|), t learned, 10 at first. Graves et al. 2014, arXiv:1410.5401, eq. 5-6."""

    settings = ()

    def build(self, rngs):
        """Create the temperature t, which is also the largest possible score."""
        self.temperature = nnx.Param(jnp.array(10.0))

    def prepare(self, memory):
        """The keys t k / |k|."""
        return self.temperature[...] * _unit(memory)

    def __call__(self, query, keys):
        """q / |q| . t k / |k|, one number per token."""
        return super().__call__(_unit(query), keys)


class Linear(Dot):
    """score = w . [q; k; q * k; q - k] + b. Seo et al. 2017, arXiv:1611.01603, eq. 1 has the first three parts."""

    settings = ()

    def build(self, rngs):
        """Create w, four parts as wide as the query, and b."""
        self.weight = nnx.Param(glorot(rngs.params(), 4 * self.query, 1)[:, 0])
        self.bias = nnx.Param(jnp.array(0.0))

    def prepare(self, memory):
        """The factor of q, w_1 + w_3 * k + w_4, followed by the part without q, (w_2 - w_4) . k + b."""
        query_part, memory_part, product_part, difference_part = jnp.split(self.weight[...], 4)
        factor = broadcast_bias(query_part + difference_part, 3) + broadcast_bias(product_part, 3) * memory
        rest = matmul(memory, (memory_part - difference_part)[:, None], self.dtype) + self.bias[...]
        return jnp.concatenate([factor, rest], axis=-1)

    def __call__(self, query, keys):
        """[q; 1] . key, one number per token."""
        return super().__call__(_append_one(query), keys)


class General(Dot):
    """score = q . W k. Luong et al. 2015, eq. 8."""

    needs_equal_widths = False
    settings = ()

    def build(self, rngs):
        """Create W [M, Q]."""
        self.weight = nnx.Param(glorot(rngs.params(), self.memory, self.query))

    def prepare(self, memory):
        """The keys W k."""
        return matmul(memory, self.weight[...], self.dtype)


class ScaledGeneral(General):
    """score = g q . W k, g learned, 1 at first. Luong et al. 2015, eq. 8, with the scale of TensorFlow Addons."""

    settings = ()

    def build(self, rngs):
        """Create W and the gain g."""
        super().build(rngs)
        self.gain = nnx.Param(jnp.array(1.0))

    def prepare(self, memory):
        """The keys g W k."""
        return self.gain[...] * super().prepare(memory)


class Biaffine(General):
    """score = q . W k + w_q . q + w_k . k + b. Dozat & Manning 2017, arXiv:1611.01734."""

    settings = ()

    def build(self, rngs):
        """Create W, w_q, w_k and b. A softmax ignores w_q and b, which are the same for every token."""
        super().build(rngs)
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, 1)[:, 0])
        self.memory_kernel = nnx.Param(glorot(rngs.params(), self.memory, 1)[:, 0])
        self.bias = nnx.Param(jnp.array(0.0))

    def prepare(self, memory):
        """The factor of q, W k + w_q, followed by the part without q, w_k . k + b."""
        kernel = jnp.concatenate([self.weight[...], self.memory_kernel[...][:, None]], axis=-1)
        bias = jnp.concatenate([self.query_kernel[...], self.bias[...][None]])
        return matmul(memory, kernel, self.dtype) + broadcast_bias(bias, 3)

    def __call__(self, query, keys):
        """[q; 1] . key, one number per token."""
        return super().__call__(_append_one(query), keys)


class TanhDot(Dot):
    """score = tanh(W q + b) . tanh(U k + c). Watanabe et al. 2018, arXiv:1804.00015 (ESPnet), its dot attention."""

    needs_equal_widths = False
    settings = ("size",)

    def build(self, rngs):
        """Create W and U, and their biases b and c."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, self.config.size))
        self.memory_kernel = nnx.Param(glorot(rngs.params(), self.memory, self.config.size))
        self.query_bias = nnx.Param(jnp.zeros((self.config.size,)))
        self.memory_bias = nnx.Param(jnp.zeros((self.config.size,)))

    def prepare(self, memory):
        """The keys tanh(U k + c)."""
        return jnp.tanh(matmul(memory, self.memory_kernel[...], self.dtype) + broadcast_bias(self.memory_bias[...], 3))

    def query_projection(self):
        """The matrix W."""
        return self.query_kernel[...]

    def __call__(self, query, keys):
        """tanh(W q + b) . key, where `query` is W q."""
        return super().__call__(jnp.tanh(query + broadcast_bias(self.query_bias[...], 2)), keys)


class Additive(Score):
    """score = v . tanh(W q + U k), or + b inside with model.attention.bias. Bahdanau et al. 2015, arXiv:1409.0473.

    Appendix A.1.2.
    """

    settings = ("size", "bias")
    bias: nnx.Param | None = None  # where there is one

    def build(self, rngs):
        """Create W, U and v; v is as wide as they are."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, self.config.size))
        self.memory_kernel = nnx.Param(glorot(rngs.params(), self.memory, self.config.size))
        self._build_outer(rngs, bias=self.config.bias)

    def _build_outer(self, rngs, *, bias: bool):
        """Create the parameters that all additive scores have: v, and b where it is configured."""
        self.vector = nnx.Param(glorot(rngs.params(), self.config.size, 1)[:, 0])
        if bias:
            self.bias = nnx.Param(jnp.zeros((self.config.size,)))

    def prepare(self, memory):
        """The keys U k, plus b where there is one."""
        return self._add_bias(matmul(memory, self.memory_kernel[...], self.dtype))

    def _add_bias(self, keys):
        return keys if self.bias is None else keys + broadcast_bias(self.bias[...], 3)

    def query_projection(self):
        """The matrix W."""
        return self.query_kernel[...]

    def __call__(self, query, keys):
        """v . tanh(W q + key), where `query` is W q."""
        return self._combine(query, keys, self.vector[...])

    def _combine(self, query, keys, vector):
        return jnp.einsum("bsa,a->bs", jnp.tanh(query[:, None] + keys), vector)


class Concat(Additive):
    """score = v . tanh(W [q; k]). Luong et al. 2015, eq. 8. The same family as additive, kept as one matrix."""

    settings = ("size", "bias")

    def build(self, rngs):
        """Create W, whose first Q rows multiply the query and whose other rows multiply the memory."""
        self.weight = nnx.Param(glorot(rngs.params(), self.query + self.memory, self.config.size))
        self._build_outer(rngs, bias=self.config.bias)

    def prepare(self, memory):
        """The memory's part of W [q; k], plus b where there is one."""
        return self._add_bias(matmul(memory, self.weight[self.query :], self.dtype))

    def query_projection(self):
        """The rows of W that multiply the query."""
        return self.weight[: self.query]


class AdditiveLayerNorm(Additive):
    """score = v . tanh(LN(W q) + LN(U k)). Sennrich et al. 2017, arXiv:1703.04357; Ba et al. 2016, arXiv:1607.06450."""

    settings = ("size", "bias")

    def build(self, rngs):
        """Create W, U, v, and the gains of both normalizations."""
        super().build(rngs)
        self.query_gain = nnx.Param(jnp.ones((self.config.size,)))
        self.memory_gain = nnx.Param(jnp.ones((self.config.size,)))

    def prepare(self, memory):
        """The keys LN(U k), plus b where there is one."""
        keys = matmul(memory, self.memory_kernel[...], self.dtype)
        return self._add_bias(broadcast_bias(self.memory_gain[...], 3) * layer_norm(keys))

    def __call__(self, query, keys):
        """v . tanh(LN(W q) + key), where `query` is W q."""
        return super().__call__(broadcast_bias(self.query_gain[...], 2) * layer_norm(query), keys)


class NormalizedAdditive(Additive):
    """score = g v / |v| . tanh(W q + U k + b), g sqrt(1 / A) at first. Raffel et al. 2017, arXiv:1704.00784."""

    settings = ("size",)

    def _build_outer(self, rngs, *, bias):
        """Create v, always b, and the gain g."""
        super()._build_outer(rngs, bias=True)
        self.gain = nnx.Param(jnp.array(self.config.size**-0.5))

    def __call__(self, query, keys):
        """g v / |v| . tanh(W q + key), where `query` is W q."""
        return self._combine(query, keys, self.gain[...] * _unit(self.vector[...]))


def _append_one(query: Float[Array, "B Q"]) -> Float[Array, "B K"]:
    """[q; 1] for keys with one more column: adds a number to the product without slicing the keys."""
    return jnp.concatenate([query, jnp.ones((query.shape[0], 1), query.dtype)], axis=-1)


def _unit(x: Float[Array, "*B Q"]) -> Float[Array, "*B Q"]:
    """x scaled to length 1; a zero vector stays zero, and its gradient is finite."""
    return x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-6)
