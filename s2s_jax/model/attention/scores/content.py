"""How well does what a decoder state asks for fit what each encoder state says?"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from s2s_jax.model.attention.scores.base import Score, table_name
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.layer_norm import layer_norm
from s2s_jax.model.ops.matmul import broadcast_bias, matmul


class Dot(Score):
    """score = q . k. Luong et al. 2015, arXiv:1508.04025, eq. 8."""

    def build(self, rngs):
        """Check that the two can be multiplied."""
        if self.query != self.memory:
            raise ValueError(
                f"score={table_name(type(self))!r} needs query and memory of one size, got query {self.query} "
                f"and memory {self.memory}; use score='general', which learns the map between them."
            )

    def __call__(self, query, keys):
        """q . k, with factors in the compute precision and a float32 sum."""
        factors = query.astype(self.dtype), keys.astype(self.dtype)
        return jnp.einsum("bq,bsq->bs", *factors, preferred_element_type=jnp.float32)


class ScaledDot(Dot):
    """score = q . k / sqrt(Q). Vaswani et al. 2017, arXiv:1706.03762, eq. 1."""

    def __call__(self, query, keys):
        """q . k / sqrt(Q)."""
        return super().__call__(query, keys) / self.query**0.5


class Cosine(Dot):
    """score = t q . k / (|q| |k|), t learned, 10 at first. Graves et al. 2014, arXiv:1410.5401, eq. 5-6."""

    def build(self, rngs):
        """The temperature t, which is also the largest score there can be."""
        super().build(rngs)
        self.temperature = nnx.Param(jnp.array(10.0))

    def prepare(self, memory):
        """t k / |k|."""
        return self.temperature[...] * _unit(memory)

    def __call__(self, query, keys):
        """q / |q| . t k / |k|."""
        return super().__call__(_unit(query), keys)


class Linear(Dot):
    """score = w . [q; k; q * k; q - k] + b. Seo et al. 2017, arXiv:1611.01603, eq. 1 has the first three parts."""

    def build(self, rngs):
        """w, four parts as wide as the query, and b."""
        super().build(rngs)
        self.weight = nnx.Param(glorot(rngs.params(), 4 * self.query, 1)[:, 0])
        self.bias = nnx.Param(jnp.array(0.0))

    def prepare(self, memory):
        """What q is multiplied by, w_1 + w_3 * k + w_4, and beside it all that is free of q, (w_2 - w_4) . k + b."""
        of_query, of_memory, of_product, of_difference = jnp.split(self.weight[...], 4)
        met = broadcast_bias(of_query + of_difference, 3) + broadcast_bias(of_product, 3) * memory
        free = matmul(memory, (of_memory - of_difference)[:, None], self.dtype) + self.bias[...]
        return jnp.concatenate([met, free], axis=-1)

    def __call__(self, query, keys):
        """[q; 1] . key."""
        return super().__call__(_with_one(query), keys)


class General(Dot):
    """score = q . W k. Luong et al. 2015, eq. 8."""

    def build(self, rngs):
        """W, as large as both."""
        self.weight = nnx.Param(glorot(rngs.params(), self.memory, self.query))

    def prepare(self, memory):
        """W k."""
        return matmul(memory, self.weight[...], self.dtype)


class ScaledGeneral(General):
    """score = g q . W k, g learned, 1 at first. Luong et al. 2015, eq. 8, with the scale of TensorFlow Addons."""

    def build(self, rngs):
        """W and g."""
        super().build(rngs)
        self.gain = nnx.Param(jnp.array(1.0))

    def prepare(self, memory):
        """g W k."""
        return self.gain[...] * super().prepare(memory)


class Biaffine(General):
    """score = q . W k + w_q . q + w_k . k + b. Dozat & Manning 2017, arXiv:1611.01734."""

    def build(self, rngs):
        """W, w_q, w_k and b. A softmax does not see w_q and b: they are the same for every token."""
        super().build(rngs)
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, 1)[:, 0])
        self.memory_kernel = nnx.Param(glorot(rngs.params(), self.memory, 1)[:, 0])
        self.bias = nnx.Param(jnp.array(0.0))

    def prepare(self, memory):
        """What q is multiplied by, W k + w_q, and beside it all that is free of q, w_k . k + b."""
        together = jnp.concatenate([self.weight[...], self.memory_kernel[...][:, None]], axis=-1)
        added = jnp.concatenate([self.query_kernel[...], self.bias[...][None]])
        return matmul(memory, together, self.dtype) + broadcast_bias(added, 3)

    def __call__(self, query, keys):
        """[q; 1] . key."""
        return super().__call__(_with_one(query), keys)


class TanhDot(Dot):
    """score = tanh(W q + b) . tanh(U k + c). Watanabe et al. 2018, arXiv:1804.00015 (ESPnet), its dot attention."""

    def build(self, rngs):
        """W and U, and their biases b and c."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, self.config.size))
        self.memory_kernel = nnx.Param(glorot(rngs.params(), self.memory, self.config.size))
        self.query_bias = nnx.Param(jnp.zeros((self.config.size,)))
        self.memory_bias = nnx.Param(jnp.zeros((self.config.size,)))

    def prepare(self, memory):
        """tanh(U k + c)."""
        return jnp.tanh(matmul(memory, self.memory_kernel[...], self.dtype) + broadcast_bias(self.memory_bias[...], 3))

    def query_projection(self):
        """W."""
        return self.query_kernel[...]

    def __call__(self, query, keys):
        """tanh(W q + b) . key, W q given."""
        return super().__call__(jnp.tanh(query + broadcast_bias(self.query_bias[...], 2)), keys)


class Additive(Score):
    """score = v . tanh(W q + U k), or + b inside with model.attention.bias. Bahdanau et al. 2015, arXiv:1409.0473, A.1.2."""

    bias: nnx.Param | None = None  # where there is one

    def build(self, rngs):
        """W, U and v; v as wide as they are."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, self.config.size))
        self.memory_kernel = nnx.Param(glorot(rngs.params(), self.memory, self.config.size))
        self._build_outer(rngs, bias=self.config.bias)

    def _build_outer(self, rngs, *, bias: bool):
        """What does not depend on how W and U are kept: v, and b where it is wanted."""
        self.vector = nnx.Param(glorot(rngs.params(), self.config.size, 1)[:, 0])
        if bias:
            self.bias = nnx.Param(jnp.zeros((self.config.size,)))

    def prepare(self, memory):
        """U k, and b where there is one."""
        return self._biased(matmul(memory, self.memory_kernel[...], self.dtype))

    def _biased(self, keys):
        return keys if self.bias is None else keys + broadcast_bias(self.bias[...], 3)

    def query_projection(self):
        """W."""
        return self.query_kernel[...]

    def __call__(self, query, keys):
        """v . tanh(W q + key), W q given."""
        return self._summed(query, keys, self.vector[...])

    def _summed(self, query, keys, vector):
        return jnp.einsum("bsa,a->bs", jnp.tanh(query[:, None] + keys), vector)


class Concat(Additive):
    """score = v . tanh(W [q; k]). Luong et al. 2015, eq. 8. The same family as additive, kept as one matrix."""

    def build(self, rngs):
        """W, whose first Q rows meet the query and the others the memory."""
        self.weight = nnx.Param(glorot(rngs.params(), self.query + self.memory, self.config.size))
        self._build_outer(rngs, bias=self.config.bias)

    def prepare(self, memory):
        """The memory's share of W [q; k], and b where there is one."""
        return self._biased(matmul(memory, self.weight[self.query :], self.dtype))

    def query_projection(self):
        """The rows of W that meet the query."""
        return self.weight[: self.query]


class AdditiveLayerNorm(Additive):
    """score = v . tanh(LN(W q) + LN(U k)). Sennrich et al. 2017, arXiv:1703.04357; Ba et al. 2016, arXiv:1607.06450."""

    def build(self, rngs):
        """W, U, v, and the gains of both norms."""
        super().build(rngs)
        self.query_gain = nnx.Param(jnp.ones((self.config.size,)))
        self.memory_gain = nnx.Param(jnp.ones((self.config.size,)))

    def prepare(self, memory):
        """LN(U k), and b where there is one."""
        share = matmul(memory, self.memory_kernel[...], self.dtype)
        return self._biased(broadcast_bias(self.memory_gain[...], 3) * layer_norm(share))

    def __call__(self, query, keys):
        """v . tanh(LN(W q) + key), W q given."""
        return super().__call__(broadcast_bias(self.query_gain[...], 2) * layer_norm(query), keys)


class NormalizedAdditive(Additive):
    """score = g v / |v| . tanh(W q + U k + b), g sqrt(1 / A) at first. Raffel et al. 2017, arXiv:1704.00784."""

    def _build_outer(self, rngs, *, bias):
        """v, and always b; and the length g that v is brought to."""
        super()._build_outer(rngs, bias=True)
        self.gain = nnx.Param(jnp.array(self.config.size**-0.5))

    def __call__(self, query, keys):
        """g v / |v| . tanh(W q + key), W q given."""
        return self._summed(query, keys, self.gain[...] * _unit(self.vector[...]))


def _with_one(query: Float[Array, "B Q"]) -> Float[Array, "B K"]:
    """[q; 1], which meets keys with one more column: a sum beside the product, without cutting the keys apart."""
    return jnp.concatenate([query, jnp.ones((query.shape[0], 1), query.dtype)], axis=-1)


def _unit(x: Float[Array, "*B Q"]) -> Float[Array, "*B Q"]:
    """x with length 1; a zero vector stays one, and its gradient is finite."""
    return x * jax.lax.rsqrt((x**2).sum(-1, keepdims=True) + 1e-6)
