"""What does the decoder start from, given what the encoder ended with?"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from s2s_jax.model.cells import Carry
from s2s_jax.model.encoder import Encoded
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import matmul


class Bridge(nnx.Module):
    """The zero bridge, and what all bridges share: one carry a decoder layer.

    Args:
        ends: width of each encoder layer's last state, directions side by side, and how many leaves a carry has.
        layers, size, states: the decoder's layers, their width, and how many leaves its carries have.
    """

    copies_state = False  # the encoder's and the decoder's states must have the same widths

    def __init__(
        self, *, end: int, ends: int, end_states: int, layers: int, size: int, states: int, dtype: DTypeLike, rngs
    ):
        self.end, self.ends, self.end_states = end, ends, end_states
        self.layers, self.size, self.states = layers, size, states
        self.dtype = dtype
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the parameters, or refuse what does not fit."""

    def __call__(self, encoded: Encoded, mask: Bool[Array, "B S"]) -> tuple[Carry, ...]:
        """Zeros."""
        zeros = jnp.zeros((mask.shape[0], self.size))
        return tuple((zeros,) * self.states for _ in range(self.layers))

    def _matching(self, encoded: Encoded, layer: int, leaf: int) -> Float[Array, "B M"]:
        """The encoder's carry for a decoder layer: the same layer, or its top one; the same leaf, or its output."""
        carry = encoded.carries[min(layer, self.ends - 1)]
        return carry[leaf if leaf < self.end_states else 0]


class Last(Bridge):
    """Each decoder layer starts from the last state of the encoder's layer, as it is. Sutskever et al. 2014."""

    copies_state = True

    def __call__(self, encoded, mask):
        """Copies."""
        return tuple(
            tuple(self._matching(encoded, layer, leaf) for leaf in range(self.states)) for layer in range(self.layers)
        )


class Projected(Bridge):
    """state = tanh(W [last state, directions together]), a W for each layer and leaf. Bahdanau et al. 2015, A.2.2."""

    def build(self, rngs):
        """The maps, one below the other."""
        self.weight = nnx.Param(glorot(rngs.params(), self.layers, self.states, self.end, self.size))

    def __call__(self, encoded, mask):
        """Each layer's learned map of the encoder's last state."""
        return tuple(
            tuple(
                jnp.tanh(matmul(self._source(encoded, mask, layer, leaf), self.weight[layer, leaf], self.dtype))
                for leaf in range(self.states)
            )
            for layer in range(self.layers)
        )

    def _source(self, encoded, mask, layer, leaf):
        return self._matching(encoded, layer, leaf)


class Mean(Projected):
    """state = tanh(W mean of the outputs over real tokens). Sennrich et al. 2017 (Nematus), arXiv:1703.04357."""

    def _source(self, encoded, mask, layer, leaf):
        count = jnp.maximum(mask.sum(-1, keepdims=True), 1).astype(jnp.float32)
        return encoded.outputs.sum(1) / count  # outputs are zero on padding


BRIDGES = {"zero": Bridge, "last": Last, "projected": Projected, "mean": Mean}
