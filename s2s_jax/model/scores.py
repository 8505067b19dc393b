"""How well does a decoder state fit each encoder state? One class a score, one line in the table.

A score is `prepare(memory) -> keys`, once a sentence, and `score(query, keys) -> scores`, once a step; a score that
multiplies the query first names the matrix (`asking`) and gets the product. To add one: write the class, add its line
to SCORES; tests, help and sweeps read the table.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from s2s_jax.model.attention_config import AttentionConfig
from s2s_jax.model.initial import glorot
from s2s_jax.model.products import product


class Score(nnx.Module):
    """What every score shares.

    Args:
        query: width Q of the decoder state that asks.
        memory: width M of an encoder state.
        config: the numbers that some scores need, such as the width A of the space in which the two meet (`size`).
    """

    def __init__(self, query: int, memory: int, config: AttentionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.query, self.memory, self.config, self.dtype = query, memory, config, dtype
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the parameters; scores without any need not say so."""

    def prepare(self, memory: Float[Array, "B S M"]) -> Float[Array, "B S K"]:
        """The keys: all that does not change from step to step."""
        return memory

    def asking(self) -> Float[Array, "Q A"] | None:
        """What the query is multiplied by before it meets the keys, if by anything."""
        return None

    def __call__(self, query: Float[Array, "B Q"], keys: Float[Array, "B S K"]) -> Float[Array, "B S"]:
        """One number a source token."""
        raise NotImplementedError


class Dot(Score):
    """score = q . k. Luong et al. 2015, arXiv:1508.04025, eq. 8."""

    def build(self, rngs):
        """Check that the two can be multiplied."""
        if self.query != self.memory:
            name = next(name for name, score in SCORES.items() if score is type(self))
            raise ValueError(
                f"score={name!r} needs query and memory of one size, got query {self.query} and memory {self.memory}; "
                "use score='general', which learns the map between them."
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


class General(Dot):
    """score = q . W k. Luong et al. 2015, eq. 8."""

    def build(self, rngs):
        """W, as large as both."""
        self.weight = nnx.Param(glorot(rngs.params(), self.memory, self.query))

    def prepare(self, memory):
        """W k."""
        return product(memory, self.weight[...], self.dtype)


class Additive(Score):
    """score = v . tanh(W q + U k). Bahdanau et al. 2015, arXiv:1409.0473, A.1.2."""

    def build(self, rngs):
        """W, U and v; v as wide as they are."""
        self.of_query = nnx.Param(glorot(rngs.params(), self.query, self.config.size))
        self.of_memory = nnx.Param(glorot(rngs.params(), self.memory, self.config.size))
        self.vector = nnx.Param(glorot(rngs.params(), self.config.size, 1)[:, 0])

    def prepare(self, memory):
        """U k."""
        return product(memory, self.of_memory[...], self.dtype)

    def asking(self):
        """W."""
        return self.of_query[...]

    def __call__(self, query, keys):
        """v . tanh(W q + U k), W q given."""
        return jnp.einsum("bsa,a->bs", jnp.tanh(query[:, None] + keys), self.vector[...])


class Concat(Additive):
    """score = v . tanh(W [q; k]). Luong et al. 2015, eq. 8. The same family as additive, kept as one matrix."""

    def build(self, rngs):
        """W, whose first Q rows meet the query and the others the memory."""
        self.weight = nnx.Param(glorot(rngs.params(), self.query + self.memory, self.config.size))
        self.vector = nnx.Param(glorot(rngs.params(), self.config.size, 1)[:, 0])

    def prepare(self, memory):
        """The memory's share of W [q; k]."""
        return product(memory, self.weight[self.query :], self.dtype)

    def asking(self):
        """The rows of W that meet the query."""
        return self.weight[: self.query]


SCORES = {
    "dot": Dot,
    "scaled-dot": ScaledDot,
    "general": General,
    "concat": Concat,
    "additive": Additive,
}
