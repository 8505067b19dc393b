"""Attention of the decoder over its own last states, besides that over the source (intra-decoder attention)."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from s2s_jax.model.attention.normalizers import softmax
from s2s_jax.model.cells import Weights
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import contract, matmul
from s2s_jax.shapes import Size


class SelfAttentionState(NamedTuple):
    """The last decoder states of each sentence, the newest last."""

    states: Float[Array, "B P H"]  # zeros where there were fewer steps
    steps: Int[Array, " B"]  # number of steps so far, at most P


class DecoderSelfAttention(nnx.Module):
    """score = h_t . W h_j for the steps j before t, softmax, context = sum of weight_j h_j; zeros at the first step.

    Paulus et al. 2018, arXiv:1705.04304, eq. 6-8, where j runs over all earlier steps; here over the last `length`.
    """

    def __init__(self, size: int, length: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.size, self.length, self.dtype = size, length, dtype
        self.weight = nnx.Param(glorot(rngs.params(), size, size))

    def start(self, batch: Size) -> SelfAttentionState:
        """The state before the first step: no states to attend to."""
        return SelfAttentionState(jnp.zeros((batch, self.length, self.size)), jnp.zeros(batch, jnp.int32))

    def step_weights(self) -> Weights:
        """The weight used at every step: W."""
        return (self.weight[...],)

    def __call__(
        self, weights: Weights, state: SelfAttentionState, states: Float[Array, "*T B H"]
    ) -> tuple[SelfAttentionState, Float[Array, "*T B H"]]:
        """The state after one step or after many, and the context of each of them.

        No context changes a decoder state, so that many steps can be attended in parallel.
        """
        steps = states.reshape(-1, *states.shape[-2:])
        state, contexts = self._attend(state, steps, matmul(states, weights[0], self.dtype).reshape(steps.shape))
        return state, contexts.reshape(states.shape)

    def _attend(self, state, states, queries):
        new = states.shape[0]
        memory = jnp.concatenate([state.states, states.swapaxes(0, 1)], axis=1)
        positions, times = jnp.arange(self.length + new)[None], jnp.arange(new)[:, None]
        in_window = (times <= positions) & (positions < times + self.length)  # step t is at position length + t
        exists = positions >= self.length - state.steps[:, None]
        mask = in_window[:, None, :] & exists[None]
        weights = softmax(contract("tbh,bph->tbp", queries, memory, self.dtype), mask)
        contexts = contract("tbp,bph->tbh", weights, memory, self.dtype)
        return SelfAttentionState(memory[:, new:], jnp.minimum(state.steps + new, self.length)), contexts
