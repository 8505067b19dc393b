"""What is a score? One class; `scores.SCORES` names them all."""

import re

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.shapes import Size


class Score(nnx.Module):
    """What every score shares.

    A score is `prepare(memory) -> keys`, once a sentence, and `score(query, keys) -> scores`, once a step; a score
    that multiplies the query first names the matrix (`asking`) and gets the product. What the history says of a token
    is added to its key before the score sees it, so a score need not know of it.

    Args:
        query: width Q of the decoder state that asks.
        memory: width M of an encoder state.
        config: the numbers that some scores need, such as the width A of the space in which the two meet (`size`).
    """

    stateful = False  # True: `step` carries a state of the score's own
    needs_history = False  # True: it makes no sense without a history of past alignments

    def __init__(self, query: int, memory: int, config: AttentionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.query, self.memory, self.config, self.dtype = query, memory, config, dtype
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the parameters; scores without any need not say so."""

    def prepare(self, memory: Float[Array, "B S M"]) -> Float[Array, "B S K"]:
        """The keys: all that does not change from step to step."""
        return memory

    def query_projection(self) -> Float[Array, "Q A"] | None:
        """What the query is multiplied by before it meets the keys, if by anything."""
        return None

    def __call__(self, query: Float[Array, "B Q"], keys: Float[Array, "B S K"]) -> Float[Array, "B S"]:
        """One number a source token."""
        raise NotImplementedError

    def start(self, batch: Size) -> PyTree:
        """What a score that remembers knows before the first step."""
        return ()

    def step(
        self, query: Float[Array, "B Q"], keys: Float[Array, "B S K"], past: Float[Array, "B S F"], state: PyTree
    ) -> tuple[Float[Array, "B S"], PyTree]:
        """The scores, and what is remembered; `past` is what the history says of each token."""
        return self(query, keys), state


def table_name(kind: type) -> str:
    """The name of a class in its table: ScaledDot is scaled-dot."""
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "-", kind.__name__).lower()
