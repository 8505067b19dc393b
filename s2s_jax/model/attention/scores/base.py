"""The base class of scores, and the name of a class in its table."""

import re

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.shapes import Size


class Score(nnx.Module):
    """What all scores share.

    A score is `prepare(memory) -> keys`, computed once per sentence, and `score(query, keys) -> scores`, computed once
    per decoder step. A score that first multiplies the query by a matrix returns that matrix from `query_projection`
    and receives the product. The history's features of a token are added to its key before the score receives it, so a
    score need not know of them.

    The class attributes are facts, which `model.compatibility` reads to decide what can be combined.

    Args:
        query: width Q of the decoder state that queries.
        memory: width M of an encoder state.
        config: the settings that some scores read, such as the width A of the common space (`size`).
    """

    stateful = False  # `step` carries a state of the score's own
    has_keys = True  # keys are made of the tokens' content; False for scores of the position alone
    needs_equal_widths = False  # query and memory are multiplied as they are
    needs_history = False  # it reads what a history says of earlier alignments
    needs_previous_alignment = False  # `features` in `step` must be the previous alignment alone, first token first
    default_kernel = 0  # width of the convolution over the history's features where `kernel` is 0
    settings: tuple[str, ...] = ()  # of model.attention, which it reads; see `declared_settings`

    def __init__(self, query: int, memory: int, config: AttentionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        self.query, self.memory, self.config, self.dtype = query, memory, config, dtype
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Create the parameters; a score without any does not override this."""

    def prepare(self, memory: Float[Array, "B S M"]) -> Float[Array, "B S K"]:
        """The keys: everything that stays the same from step to step. By default the memory itself."""
        return memory

    def query_projection(self) -> Float[Array, "Q A"] | None:
        """The matrix by which the query is multiplied before `__call__` receives it; None for the query itself."""
        return None

    def __call__(self, query: Float[Array, "B Q"], keys: Float[Array, "B S K"]) -> Float[Array, "B S"]:
        """One score per source token."""
        raise NotImplementedError

    def start(self, batch: Size) -> PyTree:
        """The state of a stateful score before the first step."""
        return ()

    def step(
        self, query: Float[Array, "B Q"], keys: Float[Array, "B S K"], features: Float[Array, "B S F"], state: PyTree
    ) -> tuple[Float[Array, "B S"], PyTree]:
        """The scores and the next state; `features` is what the history says of each token."""
        return self(query, keys), state


def table_name(kind: type) -> str:
    """The name of a class in its table: ScaledDot is `scaled-dot`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "-", kind.__name__).lower()


def declared_settings(kind: type) -> tuple[str, ...] | None:
    """The settings of `model.attention` that a class of a table reads, or None where the class itself does not say.

    The declaration is not inherited, because a subclass may read more. Where it is missing, any setting may matter.
    """
    return vars(kind).get("settings")
