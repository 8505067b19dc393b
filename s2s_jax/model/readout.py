"""What vector predicts the next token? Made of the context, the state that asked for it, and the last token."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from s2s_jax.model.cells import Weights
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import matmul


class Readout(nnx.Module):
    """tanh(W [context; state]), the attentional vector. Luong et al. 2015, arXiv:1508.04025, eq. 5.

    Args:
        size: width R of the vector.
    """

    def __init__(self, context: int, state: int, embedding: int, size: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.context, self.state, self.embedding, self.size, self.dtype = context, state, embedding, size, dtype
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """W."""
        self.weight = nnx.Param(glorot(rngs.params(), self.context + self.state, self.size))

    def step_weights(self) -> Weights:
        """The weights of each step; each meets one product."""
        return (self.weight[...],)

    def __call__(
        self,
        inside: Weights,
        context: Float[Array, "*B M"],
        state: Float[Array, "*B H"],
        embedded: Float[Array, "*B E"],
    ) -> Float[Array, "*B R"]:
        """The vector."""
        return jnp.tanh(matmul(jnp.concatenate([context, state], -1), inside[0], self.dtype))


class WithToken(Readout):
    """tanh(W [context; state; embedding]). Sennrich et al. 2017 (Nematus), arXiv:1703.04357, eq. 10."""

    def build(self, rngs):
        """W."""
        self.weight = nnx.Param(glorot(rngs.params(), self.context + self.state + self.embedding, self.size))

    def __call__(self, inside, context, state, embedded):
        """The vector."""
        return jnp.tanh(matmul(jnp.concatenate([context, state, embedded], -1), inside[0], self.dtype))


class Deep(WithToken):
    """Maxout of U s + V E y + C c, in pairs. Bahdanau et al. 2015, arXiv:1409.0473, A.2.2; Goodfellow et al. 2013."""

    def build(self, rngs):
        """C, U and V, one below the other, for both of each pair."""
        seen = self.context + self.state + self.embedding
        self.weight = nnx.Param(glorot(rngs.params(), seen, 2 * self.size))

    def __call__(self, inside, context, state, embedded):
        """The vector."""
        pairs = matmul(jnp.concatenate([context, state, embedded], -1), inside[0], self.dtype)
        return pairs.reshape(*pairs.shape[:-1], self.size, 2).max(-1)


class Gated(Readout):
    """tanh((1 - z) * P_t + z * P_s), z = sigmoid(W [context; state; embedding]). Tu et al. 2017, arXiv:1608.06043.

    P_t = U [state; embedding] is what the target says, P_s = V context what the source says; the gate weighs the two.
    """

    def build(self, rngs):
        """W, U and V."""
        of_target = self.state + self.embedding
        self.weight = nnx.Param(glorot(rngs.params(), self.context + of_target, self.size))
        self.target_kernel = nnx.Param(glorot(rngs.params(), of_target, self.size))
        self.source_kernel = nnx.Param(glorot(rngs.params(), self.context, self.size))

    def step_weights(self):
        """W, U and V."""
        return self.weight[...], self.target_kernel[...], self.source_kernel[...]

    def __call__(self, inside, context, state, embedded):
        """The vector."""
        of_gate, of_target, of_source = inside
        target = jnp.concatenate([state, embedded], -1)
        gate = jax.nn.sigmoid(matmul(jnp.concatenate([context, target], -1), of_gate, self.dtype))
        said = matmul(target, of_target, self.dtype), matmul(context, of_source, self.dtype)
        return jnp.tanh(self._weighed(gate, *said))

    def _weighed(self, gate, target, source):
        return (1 - gate) * target + gate * source


class GatedSource(Gated):
    """tanh(P_t + z * P_s): the gate weighs the source alone. Tu et al. 2017, arXiv:1608.06043, section 3.2."""

    def _weighed(self, gate, target, source):
        return target + gate * source


class GatedTarget(Gated):
    """tanh(z * P_t + P_s): the gate weighs the target alone. Tu et al. 2017, arXiv:1608.06043, section 3.2."""

    def _weighed(self, gate, target, source):
        return gate * target + source


GATES: dict[str, type[Gated]] = {"source": GatedSource, "target": GatedTarget, "both": Gated}
