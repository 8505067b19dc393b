"""Several attention heads in parallel, and the attention that a config describes."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import PyTree

from s2s_jax.model.attention.attention import WITHOUT_ATTENTION, Attention, AttentionOutput
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import matmul


class Head(Attention):
    """One of several heads: an attention in a narrower space, to which query and memory are mapped first."""

    def __init__(self, config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size = config.size
        mapped = 2 * size if config.values == "split" else size  # keys and values are each as wide as the head
        super().__init__(config, size, mapped, dtype=dtype, rngs=rngs)
        self.query_kernel = nnx.Param(glorot(rngs.params(), query, size))
        self.memory_kernel = nnx.Param(glorot(rngs.params(), memory, mapped))

    def prepare(self, memory):
        """What the narrower attention prepares of the mapped memory."""
        return super().prepare(self._map_memory(memory))

    def values(self, memory):
        """The values of the narrower attention."""
        return super().values(self._map_memory(memory))

    def _map_memory(self, memory):
        return matmul(memory, self.memory_kernel[...], self.dtype)

    def step_weights(self):
        """The query's map, followed by the weights of the narrower attention."""
        return (self.query_kernel[...], *super().step_weights())

    def attend(self, weights, state, query, keys, values, mask, noise=None):
        """The narrower attention, queried by the mapped query."""
        mapped = matmul(query, weights[0], self.dtype)
        return super().attend(weights[1:], state, mapped, keys, values, mask, noise)


class Heads(nnx.Module):
    """Several heads whose contexts are concatenated. Vaswani et al. 2017, arXiv:1706.03762, 3.2.2.

    Any score, normalizer, history and constraint; each head has its own parameters. There is no output map, because
    what the decoder computes of the context is linear in it. All heads run in one program: every array has an axis N of
    heads, after the batch axis in whatever a beam gathers.
    """

    reads_last_state = False

    def __init__(self, config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.count, narrow = config.heads, head_config(config)

        def make(rngs: nnx.Rngs) -> Head:
            return Head(narrow, query, memory, dtype=dtype, rngs=rngs)

        head = nnx.eval_shape(lambda: make(nnx.Rngs(params=0)))
        self.graph = nnx.graphdef(head)
        self.stateful, self.noisy = head.stateful, head.noisy
        self.width = self.count * head.width
        keys = jax.random.split(rngs.params(), self.count)
        stacked = jax.vmap(lambda key: nnx.to_pure_dict(nnx.state(make(nnx.Rngs(params=key)))))(keys)
        self.heads = nnx.data(jax.tree.map(nnx.Param, stacked))

    def _map_heads(self, function, *arguments, axes=0):
        """A function of each head and its part of the arguments; results have the heads on axis `axes`."""
        params = jax.tree.map(lambda leaf: leaf[...], self.heads, is_leaf=lambda leaf: isinstance(leaf, nnx.Param))
        apply = lambda params, *inputs: function(nnx.merge(self.graph, params), *inputs)  # noqa: E731
        return jax.vmap(apply, in_axes=(0, *(0 for _ in arguments)), out_axes=axes)(params, *arguments)

    def prepare(self, memory):
        """What each head prepares, [B, N, ...]."""
        return self._map_heads(lambda head: head.prepare(memory), axes=1)

    def values(self, memory):
        """The values of all heads, concatenated."""
        values = self._map_heads(lambda head: head.values(memory), axes=2)
        return values.reshape(*values.shape[:2], -1)

    def start(self, keys, mask):
        """The state of each head, [B, N, ...]."""
        return self._map_heads(lambda head, keys: head.start(keys, mask), _heads_first(keys), axes=1)

    def step_weights(self):
        """The weights used at every step, [N, ...]."""
        return self._map_heads(lambda head: head.step_weights())

    def attend(self, weights, state, query, keys, values, mask, noise=None):
        """The concatenated contexts, the mean alignment, and the alignment of each head."""
        numbers = jnp.arange(self.count)
        values = jnp.moveaxis(values.reshape(*values.shape[:2], self.count, -1), 2, 0)

        def attend_head(head, number, weights, state, keys, values):
            head_noise = None if noise is None else jax.vmap(_fold_in, in_axes=(0, None))(noise, number)
            return head.attend(weights, state, query, keys, values, mask, head_noise)

        inputs = numbers, weights, _heads_first(state), _heads_first(keys), values
        output = self._map_heads(attend_head, *inputs, axes=1)
        context = output.context.reshape(mask.shape[0], -1)
        return AttentionOutput(context, output.alignment.mean(1), output.state, output.alignment)


def build_attention(config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
    """The attention that a config describes."""
    if not config.attends:
        return WITHOUT_ATTENTION[config.score](memory)
    kind = Heads if config.heads > 1 else Attention
    return kind(config, query, memory, dtype=dtype, rngs=rngs)


def head_config(config: AttentionConfig) -> AttentionConfig:
    """The config of each of several heads."""
    return dataclasses.replace(config, heads=1, size=config.size // config.heads)


def _heads_first(tree: PyTree) -> PyTree:
    """The tree with the axis of the heads, which comes after the batch, moved to the front."""
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), tree)


def _fold_in(key, number):
    return jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), number))
