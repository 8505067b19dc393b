"""What does attention remember of where it looked before?

A history says a few numbers of each token (`past`). They are convolved, where `model.attention.kernel` says so, mapped to
the width of a key and added to the token's key (`Marks`), so that every score that has keys can have every history.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.monotonic import first
from s2s_jax.model.attention.scores.base import table_name
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import broadcast_bias, matmul


class History(nnx.Module):
    """none: every step looks anew.

    Args:
        query: width Q of the decoder state that asks.
        memory: width M of an encoder state.
        at_first: whether the alignment before the first step is all on the first token, and not spread evenly.
    """

    stateful = False
    width = 0  # numbers a token in `past`

    def __init__(
        self,
        query: int,
        memory: int,
        config: AttentionConfig,
        *,
        at_first: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.query, self.memory, self.config, self.starts_on_first, self.dtype = query, memory, config, at_first, dtype
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the parameters; histories without any need not say so."""

    def query_projection(self) -> Float[Array, "Q A"] | None:
        """What the query is multiplied by before `after` gets it, if by anything."""
        return None

    def prepare(self, memory: Float[Array, "B S M"]) -> PyTree:
        """All that does not change from step to step."""
        return ()

    def start(self, mask: Bool[Array, "B S"]) -> PyTree:
        """What is remembered before the first step."""
        return ()

    def features(self, prepared: PyTree, state: PyTree, mask: Bool[Array, "B S"]) -> Float[Array, "B S F"]:
        """What is said of each token."""
        return jnp.zeros((*mask.shape, 0))

    def adjust_scores(self, state: PyTree, scores: Float[Array, "B S"]) -> Float[Array, "B S"]:
        """The scores as the history changes them."""
        return scores

    def remaining(self, prepared: PyTree, state: PyTree) -> Float[Array, "B S"] | None:
        """How much weight each token may still get, where the history limits that."""
        return None

    def update(self, prepared, state, scores, alignment, asked, mask) -> PyTree:
        """What is remembered after a step."""
        return state


class Previous(History):
    """past_s = the previous weight. Chorowski et al. 2015, arXiv:1506.07503, section 2.2."""

    stateful = True
    width = 1

    def start(self, mask):
        """Spread evenly, or all on the first token."""
        return first(mask) if self.starts_on_first else uniform(mask)

    def features(self, prepared, state, mask):
        """The previous alignment."""
        return state[..., None]

    def update(self, prepared, state, scores, alignment, asked, mask):
        """The alignment."""
        return alignment


class Coverage(History):
    """past_s = sum of all earlier weights. See et al. 2017, arXiv:1704.04368, eq. 10; Tu et al. 2016, by count.

    With normalizer constrained-softmax no token gets more than `model.attention.fertility` in all. Martins & Kreutzer 2017.
    """

    stateful = True
    width = 1

    def start(self, mask) -> Any:
        """Nothing is covered."""
        return jnp.zeros(mask.shape)

    def features(self, prepared, state, mask):
        """What covers each token."""
        return state[..., None]

    def remaining(self, prepared, state):
        """The fertility less what is covered."""
        return self.config.fertility - state

    def update(self, prepared, state, scores, alignment, asked, mask):
        """The weights added."""
        return state + alignment


class PreviousAndCoverage(Coverage):
    """past_s = the previous weight and the sum of all earlier ones. Shen et al. 2018, arXiv:1712.05884, section 2.2."""

    width = 2

    def start(self, mask):
        """Spread evenly, and nothing covered."""
        return uniform(mask), jnp.zeros(mask.shape)

    def features(self, prepared, state, mask):
        """Both."""
        return jnp.stack(state, axis=-1)

    def remaining(self, prepared, state):
        """The fertility less what is covered."""
        return super().remaining(prepared, state[1])

    def update(self, prepared, state, scores, alignment, asked, mask):
        """The alignment, and the weights added."""
        return alignment, state[1] + alignment


class CoverageFertility(Coverage):
    """past_s = sum of all earlier weights / f_s, f_s = N sigmoid(u . h_s). Tu et al. 2016, arXiv:1601.04811, eq. 8-9.

    N is `model.attention.fertility`: the most target words that one source word may account for.
    """

    def build(self, rngs):
        """u."""
        self.weight = nnx.Param(glorot(rngs.params(), self.memory, 1))

    def prepare(self, memory):
        """The fertility of each token."""
        fertility = self.config.fertility * jax.nn.sigmoid(matmul(memory, self.weight[...], self.dtype)[..., 0])
        return jnp.maximum(fertility, 1e-2)

    def remaining(self, prepared, state):
        """The fertility less what is covered."""
        return prepared * (1 - state)

    def update(self, prepared, state, scores, alignment, asked, mask):
        """The weights added, each as a share of its token's fertility."""
        return state + alignment / prepared


class CoverageTanh(History):
    """past_s = tanh(V past_s + u a_s + W h_s + Y q), a_s the weight. Tu et al. 2016, section 3.1.2, with tanh."""

    stateful = True
    gates = 1

    @property
    def width(self):
        """As the config says."""
        return self.config.coverage_size

    def build(self, rngs):
        """V, u, W and Y, and a bias."""
        wide_as = self.gates * self.width
        self.feature_kernel = nnx.Param(glorot(rngs.params(), self.width, wide_as))
        self.weight_feature_kernel = nnx.Param(glorot(rngs.params(), 1, wide_as)[0])
        self.memory_kernel = nnx.Param(glorot(rngs.params(), self.memory, wide_as))
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, wide_as))
        self.bias = nnx.Param(jnp.zeros((wide_as,)))

    def query_projection(self):
        """Y."""
        return self.query_kernel[...]

    def prepare(self, memory):
        """W h and the bias."""
        return matmul(memory, self.memory_kernel[...], self.dtype) + broadcast_bias(self.bias[...], 3)

    def start(self, mask):
        """Zeros."""
        return jnp.zeros((*mask.shape, self.width))

    def features(self, prepared, state, mask):
        """The vectors."""
        return state

    def _given(self, prepared, alignment, asked):
        """What does not hang on the last vector."""
        return prepared + alignment[..., None] * broadcast_bias(self.weight_feature_kernel[...], 3) + asked[:, None]

    def update(self, prepared, state, scores, alignment, asked, mask):
        """The next vectors; zeros on padding."""
        new = jnp.tanh(self._given(prepared, alignment, asked) + state @ self.feature_kernel[...])
        return jnp.where(mask[..., None], new, 0.0)


class CoverageGru(CoverageTanh):
    """past_s = GRU(past_s, [a_s; h_s; q]), a_s the weight. Tu et al. 2016, arXiv:1601.04811, section 3.1.2."""

    gates = 3

    def update(self, prepared, state, scores, alignment, asked, mask):
        """The next vectors, reset after the product as in `cells.Gru`; zeros on padding."""
        given, kept = self._given(prepared, alignment, asked), state @ self.feature_kernel[...]
        seen, of_input = jnp.split(given, [2 * self.width], axis=-1)
        inner, of_state = jnp.split(kept, [2 * self.width], axis=-1)
        reset, update = jnp.split(jax.nn.sigmoid(seen + inner), 2, axis=-1)
        new = jnp.tanh(of_input + reset * of_state)
        return jnp.where(mask[..., None], new + update * (state - new), 0.0)


class IntraTemporal(History):
    """exp(score_ts) is divided by the sum of all earlier exp(score_js). Paulus et al. 2018, arXiv:1705.04304, eq. 3."""

    stateful = True

    def start(self, mask):
        """The log of that sum, and whether there was a step yet."""
        return jnp.zeros(mask.shape), jnp.zeros((mask.shape[0], 1))

    def adjust_scores(self, state, scores):
        """Scores less the log of the sum, for which 0 stands at the first step."""
        total, _ = state
        return scores - total

    def update(self, prepared, state, scores, alignment, asked, mask):
        """The score added to the sum, both as logs."""
        total, begun = state
        scores = jnp.where(mask, scores, 0.0)
        return jnp.where(begun > 0, jnp.logaddexp(total, scores), scores), jnp.ones_like(begun)


HISTORIES: dict[str, type[History]] = {"none": History} | {
    table_name(kind): kind
    for kind in (
        Previous,
        Coverage,
        PreviousAndCoverage,
        CoverageFertility,
        CoverageTanh,
        CoverageGru,
        IntraTemporal,
    )
}


class HistoryFeatures(nnx.Module):
    """The key of a token and what the history says of it: k_s + U past_s, or k_s + U (F * past)_s with a kernel."""

    def __init__(self, past: int, key: int, config: AttentionConfig, *, kernel: int, rngs: nnx.Rngs):
        inner = config.filters if kernel else past
        if kernel:
            self.filters = nnx.Param(glorot(rngs.params(), kernel * past, inner).reshape(kernel, past, inner))
        self.convolves = bool(kernel)
        self.weight = nnx.Param(glorot(rngs.params(), inner, key))

    def __call__(self, keys: Float[Array, "B S K"], past: Float[Array, "B S F"]) -> Float[Array, "B S K"]:
        """The keys of this step."""
        if self.convolves:
            past = convolved(past, self.filters[...])
        return keys + jnp.einsum("bsf,fk->bsk", past, self.weight[...])


def uniform(mask: Bool[Array, "B S"]) -> Float[Array, "B S"]:
    """The same weight on every real token."""
    real = mask.astype(jnp.float32)
    return real / jnp.maximum(real.sum(-1, keepdims=True), 1.0)


def convolved(past: Float[Array, "B S F"], filters: Float[Array, "R F C"]) -> Float[Array, "B S C"]:
    """Each token's neighborhood seen through each filter, zeros beyond the ends."""
    return jax.lax.conv_general_dilated(past, filters, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
