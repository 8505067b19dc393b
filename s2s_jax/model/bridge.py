"""The decoder's first state, made of what the encoder returns."""

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from s2s_jax.model.cells import Carry
from s2s_jax.model.encoder import Encoded
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import matmul

BridgeName = Literal["zero", "learned", "last", "projected", "mean"]


class Bridge(nnx.Module):
    """The zero bridge, and the base of all bridges: one carry per decoder layer.

    Args:
        end: width of an encoder layer's last state, directions concatenated.
        ends: number of encoder layers.
        end_states: number of leaves in an encoder's carry, 2 for an LSTM.
        layers, size, states: number of decoder layers, their width, and the number of leaves in their carries.
    """

    copies_state = False  # the encoder's and the decoder's states must have the same widths
    reads_source = False  # the first state depends on the whole source

    def __init__(
        self, *, end: int, ends: int, end_states: int, layers: int, size: int, states: int, dtype: DTypeLike, rngs
    ):
        self.end, self.ends, self.end_states = end, ends, end_states
        self.layers, self.size, self.states = layers, size, states
        self.dtype = dtype
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Draw the parameters, if there are any."""

    def __call__(self, encoded: Encoded, mask: Bool[Array, "B S"]) -> tuple[Carry, ...]:
        """The carry of each decoder layer: zeros."""
        zeros = jnp.zeros((mask.shape[0], self.size))
        return tuple((zeros,) * self.states for _ in range(self.layers))

    def _matching(self, encoded: Encoded, layer: int, leaf: int) -> Float[Array, "B M"]:
        """The encoder's carry for a decoder layer: of the same layer or the top one, the same leaf or the output."""
        carry = encoded.carries[min(layer, self.ends - 1)]
        return carry[leaf if leaf < self.end_states else 0]


class Learned(Bridge):
    """Each decoder layer starts from a learned state, whatever the source; zero at first."""

    def build(self, rngs):
        """Create one state per layer and leaf."""
        self.start = nnx.Param(jnp.zeros((self.layers, self.states, self.size)))

    def __call__(self, encoded, mask):
        """The learned states, for every sentence."""
        starts = jnp.broadcast_to(self.start[...][:, :, None], (self.layers, self.states, mask.shape[0], self.size))
        return tuple(tuple(layer) for layer in starts)


class Last(Bridge):
    """Each decoder layer starts from the last state of the encoder's layer, unchanged. Sutskever et al. 2014."""

    copies_state = True
    reads_source = True

    def __call__(self, encoded, mask):
        """The encoder's last states."""
        return tuple(
            tuple(self._matching(encoded, layer, leaf) for leaf in range(self.states)) for layer in range(self.layers)
        )


class Projected(Bridge):
    """state = tanh(W [last state, directions concatenated]), one W per layer and leaf. Bahdanau et al. 2015, A.2.2."""

    reads_source = True

    def build(self, rngs):
        """Draw one matrix per layer and leaf."""
        self.weight = nnx.Param(glorot(rngs.params(), self.layers, self.states, self.end, self.size))

    def __call__(self, encoded, mask):
        """Each layer's learned map of the encoder's last state, or of what `_source` returns."""
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


BRIDGES = {"zero": Bridge, "learned": Learned, "last": Last, "projected": Projected, "mean": Mean}
