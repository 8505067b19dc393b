"""The vector that predicts the next token, made of the context, the decoder's state and the last token."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from s2s_jax.model.cells import Weights
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import matmul

ContextGateName = Literal["none", "source", "target", "both"]
ReadoutName = Literal["architecture", "attentional", "attentional-token", "deep", "state"]


class Readout(nnx.Module):
    """tanh(W [context; state]), the attentional vector. Luong et al. 2015, arXiv:1508.04025, eq. 5.

    Args:
        size: width R of the vector.
    """

    has_width = True  # its width can be chosen
    reads_context = True

    def __init__(self, context: int, state: int, embedding: int, size: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.context, self.state, self.embedding, self.size, self.dtype = context, state, embedding, size, dtype
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Draw W."""
        self.weight = nnx.Param(glorot(rngs.params(), self.context + self.state, self.size))

    def step_weights(self) -> Weights:
        """The weights used at every step."""
        return (self.weight[...],)

    def __call__(
        self,
        weights: Weights,
        context: Float[Array, "*B M"],
        state: Float[Array, "*B H"],
        embedded: Float[Array, "*B E"],
    ) -> Float[Array, "*B R"]:
        """The readout vector of one step or of all."""
        return jnp.tanh(matmul(jnp.concatenate([context, state], -1), weights[0], self.dtype))


class WithToken(Readout):
    """tanh(W [context; state; embedding]). Sennrich et al. 2017 (Nematus), arXiv:1703.04357, eq. 10."""

    def build(self, rngs):
        """Draw W."""
        self.weight = nnx.Param(glorot(rngs.params(), self.context + self.state + self.embedding, self.size))

    def __call__(self, weights, context, state, embedded):
        """The readout vector of one step or of all."""
        return jnp.tanh(matmul(jnp.concatenate([context, state, embedded], -1), weights[0], self.dtype))


class Deep(WithToken):
    """Maxout of U s + V E y + C c, in pairs. Bahdanau et al. 2015, arXiv:1409.0473, A.2.2; Goodfellow et al. 2013."""

    def build(self, rngs):
        """Draw C, U and V, one below the other, for both of each pair."""
        inputs = self.context + self.state + self.embedding
        self.weight = nnx.Param(glorot(rngs.params(), inputs, 2 * self.size))

    def __call__(self, weights, context, state, embedded):
        """The readout vector of one step or of all."""
        pairs = matmul(jnp.concatenate([context, state, embedded], -1), weights[0], self.dtype)
        return pairs.reshape(*pairs.shape[:-1], self.size, 2).max(-1)


class StateReadout(Readout):
    """The state itself, without a map of its own. Wu et al. 2016 (GNMT), arXiv:1609.08144, figure 1."""

    has_width = False
    reads_context = False

    def build(self, rngs):
        """Draw nothing: there are no parameters."""

    def step_weights(self):
        """(), since there are no parameters."""
        return ()

    def __call__(self, weights, context, state, embedded):
        """The state, whatever the context and the last token."""
        return state


class Gated(Readout):
    """tanh((1 - z) * P_t + z * P_s), z = sigmoid(W [context; state; embedding]). Tu et al. 2017, arXiv:1608.06043.

    P_t = U [state; embedding] comes from the target, P_s = V context from the source; the gate z weighs the two.
    """

    def build(self, rngs):
        """Draw W, U and V."""
        target = self.state + self.embedding
        self.weight = nnx.Param(glorot(rngs.params(), self.context + target, self.size))
        self.target_kernel = nnx.Param(glorot(rngs.params(), target, self.size))
        self.source_kernel = nnx.Param(glorot(rngs.params(), self.context, self.size))

    def step_weights(self):
        """W, U and V, each used once per step."""
        return self.weight[...], self.target_kernel[...], self.source_kernel[...]

    def __call__(self, weights, context, state, embedded):
        """The readout vector of one step or of all."""
        gate_kernel, target_kernel, source_kernel = weights
        target = jnp.concatenate([state, embedded], -1)
        gate = jax.nn.sigmoid(matmul(jnp.concatenate([context, target], -1), gate_kernel, self.dtype))
        parts = matmul(target, target_kernel, self.dtype), matmul(context, source_kernel, self.dtype)
        return jnp.tanh(self._combine(gate, *parts))

    def _combine(self, gate, target, source):
        return (1 - gate) * target + gate * source


class GatedSource(Gated):
    """tanh(P_t + z * P_s): the gate weighs the source alone. Tu et al. 2017, arXiv:1608.06043, section 3.2."""

    def _combine(self, gate, target, source):
        return target + gate * source


class GatedTarget(Gated):
    """tanh(z * P_t + P_s): the gate weighs the target alone. Tu et al. 2017, arXiv:1608.06043, section 3.2."""

    def _combine(self, gate, target, source):
        return gate * target + source


READOUTS: dict[str, type[Readout]] = {
    "attentional": Readout,
    "attentional-token": WithToken,
    "deep": Deep,
    "state": StateReadout,
}
GATES: dict[str, type[Gated]] = {"source": GatedSource, "target": GatedTarget, "both": Gated}
