"""Where does the decoder look? Score, normalise, average: one interface for every kind of attention.

`prepare` once a sentence, `start` once, `attend` at every step; what `start` returns is carried through every scan and
every beam, so an attention may remember whatever it likes.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from s2s_jax.choices import one_of
from s2s_jax.model.attention_config import AttentionConfig
from s2s_jax.model.cells import Weights
from s2s_jax.model.normalisers import NORMALISERS
from s2s_jax.model.products import product
from s2s_jax.model.scores import SCORES


def check(config: AttentionConfig) -> None:
    """Refuse names that stand in no table.

    Raises:
        ValueError: naming the setting and the nearest choice.
    """
    one_of("attention.score", config.score, ["none", *SCORES])
    one_of("attention.normaliser", config.normaliser, NORMALISERS)


class Attention(nnx.Module):
    """Content attention: the weights depend on the query and the memory alone."""

    remembers = False  # True: `attend` needs its own last state, so steps cannot be attended together

    def __init__(self, config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.width = memory
        self.dtype = dtype
        self.score = SCORES[config.score](query, memory, config, dtype=dtype, rngs=rngs)
        self.normalise = NORMALISERS[config.normaliser]

    def prepare(self, memory: Float[Array, "B S M"]) -> PyTree:
        """What the score needs of the memory, computed once a sentence."""
        return self.score.prepare(memory)

    def start(self, keys: PyTree, mask: Bool[Array, "B S"]) -> PyTree:
        """What is remembered before the first step: nothing."""
        return ()

    def inside(self) -> Weights:
        """The weights of each step."""
        matrix = self.score.asking()
        return () if matrix is None else (matrix,)

    def attend(
        self,
        inside: Weights,
        state: PyTree,
        query: Float[Array, "B Q"],
        keys: PyTree,
        values: Float[Array, "B S M"],
        mask,
    ) -> tuple[Float[Array, "B M"], Float[Array, "B S"], PyTree]:
        """The context, the alignment that made it, and what is remembered. Padding weighs exactly 0."""
        asked = product(query, inside[0], self.dtype) if inside else query
        alignment = self.normalise(self.score(asked, keys), mask)
        factors = alignment.astype(self.dtype), values.astype(self.dtype)
        context = jnp.einsum("bs,bsm->bm", *factors, preferred_element_type=jnp.float32)
        return context, alignment, state


class NoAttention(nnx.Module):
    """The thought-vector model's attention: a context of width 0. The decoder knows its first state and no more."""

    remembers = False
    width = 0

    def prepare(self, memory):
        """Nothing to prepare."""
        return ()

    def start(self, keys, mask):
        """Nothing to remember."""
        return ()

    def inside(self):
        """Nothing to multiply."""
        return ()

    def attend(self, inside, state, query, keys, values, mask):
        """An empty context and an alignment of zeros."""
        return values[:, 0, :0], jnp.zeros(mask.shape), state


def build_attention(config: AttentionConfig, query: int, memory: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
    """The attention that a config asks for."""
    if config.score == "none":
        return NoAttention()
    return Attention(config, query, memory, dtype=dtype, rngs=rngs)
