"""Attention to several sources at once: to a source line and to the rows of its features.

The context is one vector as ever, and the alignment is that of the source line, so that the rest of the decoder, every
loss and every search knows nothing of it. Libovicky & Helcl 2017, arXiv:1704.06567.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.heads import build_attention
from s2s_jax.model.feature_encoders import FeatureRows
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import matmul


class Rows(NamedTuple):
    """What one attention reads, prepared once per sentence."""

    keys: PyTree
    values: Float[Array, "B R V"]
    mask: Bool[Array, "B R"]


class FlatAttention(nnx.Module):
    """One softmax over the tokens of the source and of all features, whose rows a learned map makes as wide.

    The alignment is that of the source tokens; what is missing from a sum of 1 went to the features. 3.1 (flat).
    """

    reads_last_state = False  # fixed contexts are not combined with features

    def __init__(
        self,
        config: AttentionConfig,
        query: int,
        memory: int,
        features: tuple[int, ...],
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype = config, dtype
        self.main = build_attention(config, query, memory, dtype=dtype, rngs=rngs)
        self.maps = nnx.Param(glorot(rngs.params(), len(features), features[0], memory))
        self.stateful, self.noisy, self.width = self.main.stateful, self.main.noisy, self.main.width
        self.build(query, memory, len(features), rngs)

    def build(self, query: int, memory: int, count: int, rngs: nnx.Rngs) -> None:
        """Create further parameters."""

    def _mapped(self, features: tuple[FeatureRows, ...]) -> list[Float[Array, "B F M"]]:
        """The rows of each feature, as wide as the encoder's outputs."""
        return [matmul(one.rows, self.maps[number], self.dtype) for number, one in enumerate(features)]

    def prepare(
        self, memory: Float[Array, "B S M"], mask: Bool[Array, "B S"], features: tuple[FeatureRows, ...]
    ) -> Any:
        """The keys and values of source and features together, in this order."""
        rows = jnp.concatenate([memory, *self._mapped(features)], axis=1)
        masks = jnp.concatenate([mask, *(one.mask for one in features)], axis=1)
        return Rows(self.main.prepare(rows), self.main.values(rows), masks)

    def values(self, memory: Float[Array, "B S M"]) -> Float[Array, "B S V"]:
        """The values of the source."""
        return self.main.values(memory)

    def start(self, keys: PyTree, mask: Bool[Array, "B S"]) -> PyTree:
        """The state of the attention over all rows."""
        return self.main.start(keys.keys, keys.mask)

    def step_weights(self) -> tuple:
        """The weights of the attention over all rows."""
        return self.main.step_weights()

    def attend(self, weights, state, query, keys, values, mask, noise=None):
        """The context of all rows, and the alignment of the source's."""
        output = self.main.attend(weights, state, query, keys.keys, keys.values, keys.mask, noise)
        source = mask.shape[1]
        heads = output.heads if isinstance(output.heads, tuple) else output.heads[..., :source]
        return output._replace(alignment=output.alignment[:, :source], heads=heads)


class SeparateAttention(FlatAttention):
    """An attention to the source as configured, and one to each feature, whose contexts are concatenated.

    Those of features have the same score and heads, a softmax, and neither history nor constraint. 3.1 (concatenation).
    """

    def build(self, query, memory, count, rngs):
        """Create the attention to each feature."""
        plain = dataclasses.replace(self.config, normalizer="softmax", history="none", constraint="none")
        options = {"dtype": self.dtype, "rngs": rngs}
        self.others = nnx.List(build_attention(plain, query, memory, **options) for _ in range(count))
        self.width += sum(other.width for other in self.others)

    def prepare(self, memory, mask, features):
        """The keys of the source, and keys and values of each feature."""
        mapped = zip(self.others, self._mapped(features), features, strict=True)
        return self.main.prepare(memory), tuple(
            Rows(other.prepare(rows), other.values(rows), one.mask) for other, rows, one in mapped
        )

    def start(self, keys, mask):
        """The state of the attention to the source; the others have none."""
        return self.main.start(keys[0], mask)

    def step_weights(self):
        """The weights of each attention, and those that combine them."""
        return self.main.step_weights(), *(other.step_weights() for other in self.others), self._combining()

    def _combining(self) -> tuple:
        return ()

    def attend(self, weights, state, query, keys, values, mask, noise=None):
        """The contexts combined, and the alignment of the source's attention."""
        of_source, *of_others, combining = weights
        output = self.main.attend(of_source, state, query, keys[0], values, mask, noise)
        others = zip(self.others, of_others, keys[1], strict=True)
        contexts = [output.context, *(other.attend(own, (), query, *rows).context for other, own, rows in others)]
        return output._replace(context=self.combine(combining, query, contexts))

    def combine(
        self, weights: tuple, query: Float[Array, "B Q"], contexts: list[Float[Array, "B _"]]
    ) -> Float[Array, "B M"]:
        """The context that the decoder reads."""
        return jnp.concatenate(contexts, axis=-1)


class HierarchicalAttention(SeparateAttention):
    """The contexts of all sources are attended to in turn: eq. 8-10.

    energy_k = v . tanh(W query + U_k context_k), weight = softmax over k, context = sum of weight_k V_k context_k.
    """

    def build(self, query, memory, count, rngs):
        """Create the attention to each feature, and that to the contexts."""
        super().build(query, memory, count, rngs)
        self.width = width = self.main.width
        size, count = self.config.size, count + 1
        self.query_kernel = nnx.Param(glorot(rngs.params(), query, size))
        self.key_kernels = nnx.Param(glorot(rngs.params(), count, width, size))
        self.energy = nnx.Param(glorot(rngs.params(), size, 1))
        self.value_kernels = nnx.Param(glorot(rngs.params(), count, width, width))

    def _combining(self):
        return self.query_kernel[...], self.key_kernels[...], self.energy[...], self.value_kernels[...]

    def combine(self, weights, query, contexts):
        """The contexts, each mapped, weighed by the second attention."""
        query_kernel, key_kernels, energy, value_kernels = weights
        projected = matmul(query, query_kernel, self.dtype)
        keys = [matmul(context, key_kernels[number], self.dtype) for number, context in enumerate(contexts)]
        energies = [matmul(jnp.tanh(projected + key), energy, self.dtype) for key in keys]
        weight = jax.nn.softmax(jnp.concatenate(energies, axis=-1), axis=-1)
        mapped = [matmul(context, value_kernels[number], self.dtype) for number, context in enumerate(contexts)]
        parts = [weight[:, number, None] * value for number, value in enumerate(mapped)]
        return sum(parts[1:], parts[0])


FEATURE_ATTENTIONS: dict[str, type[FlatAttention]] = {
    "flat": FlatAttention,
    "separate": SeparateAttention,
    "hierarchical": HierarchicalAttention,
}
