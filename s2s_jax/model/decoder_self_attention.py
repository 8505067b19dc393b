"""What does the decoder see of what it said itself? Attention over its own last states, beside that over the source."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from s2s_jax.model.attention.normalizers import softmax
from s2s_jax.model.cells import Weights
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import matmul
from s2s_jax.shapes import Size


class SelfAttentionState(NamedTuple):
    """The last states of each sentence, the newest last."""

    states: Float[Array, "B P H"]  # zeros where there were not so many steps yet
    steps: Int[Array, " B"]  # how many there are, at most P


class DecoderSelfAttention(nnx.Module):
    """score = h_t . W h_j for the steps j before t, softmax, context = sum of weight_j h_j; zeros at the first step.

    Paulus et al. 2018, arXiv:1705.04304, eq. 6-8, where j runs over all earlier steps; here over the last `length`.
    """

    def __init__(self, size: int, length: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.size, self.length, self.dtype = size, length, dtype
        self.weight = nnx.Param(glorot(rngs.params(), size, size))

    def start(self, batch: Size) -> SelfAttentionState:
        """Nothing was said yet."""
        return SelfAttentionState(jnp.zeros((batch, self.length, self.size)), jnp.zeros(batch, jnp.int32))

    def step_weights(self) -> Weights:
        """W, which meets the state of each step."""
        return (self.weight[...],)

    def __call__(
        self, inside: Weights, past: SelfAttentionState, states: Float[Array, "*T B H"]
    ) -> tuple[SelfAttentionState, Float[Array, "*T B H"]]:
        """What is kept after a step or after many, and what each of them sees.

        No context changes a state, so that many steps can be seen at once.
        """
        steps = states.reshape(-1, *states.shape[-2:])
        past, contexts = self._seen(past, steps, matmul(states, inside[0], self.dtype).reshape(steps.shape))
        return past, contexts.reshape(states.shape)

    def _seen(self, past, states, asked):
        new = states.shape[0]
        whole = jnp.concatenate([past.states, states.swapaxes(0, 1)], axis=1)
        place, now = jnp.arange(self.length + new)[None], jnp.arange(new)[:, None]
        near = (now <= place) & (place < now + self.length)  # step t stands at place length + t
        said = place >= self.length - past.steps[:, None]
        mask = near[:, None, :] & said[None]
        factors = whole.astype(self.dtype)
        scores = jnp.einsum("tbh,bph->tbp", asked.astype(self.dtype), factors, preferred_element_type=jnp.float32)
        weights = softmax(scores, mask).astype(self.dtype)
        contexts = jnp.einsum("tbp,bph->tbh", weights, factors, preferred_element_type=jnp.float32)
        return SelfAttentionState(whole[:, new:], jnp.minimum(past.steps + new, self.length)), contexts
