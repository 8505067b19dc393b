"""What attention remembers of earlier alignments.

A history gives each token a few numbers, its features. They are convolved if `model.attention.kernel` is positive,
mapped to the width of a key and added to the token's key (`HistoryFeatures`), so that every score that has keys can be
combined with every history.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree

from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.monotonic import first_token
from s2s_jax.model.attention.scores.base import table_name
from s2s_jax.model.ops.initializers import glorot
from s2s_jax.model.ops.matmul import broadcast_bias, matmul


class History(nnx.Module):
    """none: earlier alignments are not remembered.

    The class attributes are facts, which `model.compatibility` reads to decide what can be combined.

    Args:
        query: width Q of the decoder state that queries.
        memory: width M of an encoder state.
        starts_on_first: whether the alignment before the first step is all on the first token, or uniform.
    """

    stateful = False
    width = 0  # features per token; a property where settings decide
    limits_weight = False  # `remaining` says how much weight each token may still get
    is_previous_alignment = False  # the features are the previous alignment and nothing else
    settings: tuple[str, ...] = ()  # of model.attention, which it reads; see `declared_settings`

    def __init__(
        self,
        query: int,
        memory: int,
        config: AttentionConfig,
        *,
        starts_on_first: bool = False,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.query, self.memory, self.config, self.dtype = query, memory, config, dtype
        self.starts_on_first = starts_on_first
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Create the parameters; a history without any does not override this."""

    def query_projection(self) -> Float[Array, "Q A"] | None:
        """The matrix by which the query is multiplied before `update` receives it; None for the query itself."""
        return None

    def prepare(self, memory: Float[Array, "B S M"]) -> PyTree:
        """Everything that stays the same from step to step."""
        return ()

    def start(self, mask: Bool[Array, "B S"]) -> PyTree:
        """The state before the first step."""
        return ()

    def _first_alignment(self, mask: Bool[Array, "B S"]) -> Float[Array, "B S"]:
        return first_token(mask) if self.starts_on_first else uniform_alignment(mask)

    def features(self, prepared: PyTree, state: PyTree, mask: Bool[Array, "B S"]) -> Float[Array, "B S F"]:
        """The features of each token."""
        return jnp.zeros((*mask.shape, 0))

    def adjust_scores(self, state: PyTree, scores: Float[Array, "B S"]) -> Float[Array, "B S"]:
        """The scores after the history has changed them."""
        return scores

    def remaining(self, prepared: PyTree, state: PyTree) -> Float[Array, "B S"] | None:
        """How much weight each token may still get, where the history limits that."""
        return None

    def update(self, prepared, state, scores, alignment, query, mask) -> PyTree:
        """The state after a step; `query` is the projected query."""
        return state


class Previous(History):
    """feature_s = the previous weight. Chorowski et al. 2015, arXiv:1506.07503, section 2.2."""

    stateful = True
    width = 1
    is_previous_alignment = True
    settings = ()

    def start(self, mask):
        """A uniform alignment, or one all on the first token."""
        return self._first_alignment(mask)

    def features(self, prepared, state, mask):
        """The previous alignment, one number per token."""
        return state[..., None]

    def update(self, prepared, state, scores, alignment, query, mask):
        """The alignment itself."""
        return alignment


class Coverage(History):
    """feature_s = sum of all earlier weights. See et al. 2017, arXiv:1704.04368, eq. 10; Tu et al. 2016, by count.

    With the normalizer `constrained-softmax` no token gets more than `model.attention.fertility` in total. Martins &
    Kreutzer 2017.
    """

    stateful = True
    width = 1
    limits_weight = True
    settings = ()  # the fertility matters only where the normalizer takes a bound

    def start(self, mask) -> Any:
        """Zeros: no token is covered yet."""
        return jnp.zeros(mask.shape)

    def features(self, prepared, state, mask):
        """The coverage, one number per token."""
        return state[..., None]

    def remaining(self, prepared, state):
        """The fertility minus the coverage."""
        return self.config.fertility - state

    def update(self, prepared, state, scores, alignment, query, mask):
        """The coverage plus the new weights."""
        return state + alignment


class PreviousAndCoverage(Coverage):
    """feature_s = the previous weight and the sum of all earlier ones. Shen et al. 2018, arXiv:1712.05884."""

    width = 2
    settings = ()

    def start(self, mask):
        """The alignment with which `previous` starts, and a coverage of zeros."""
        return self._first_alignment(mask), jnp.zeros(mask.shape)

    def features(self, prepared, state, mask):
        """Both numbers per token."""
        return jnp.stack(state, axis=-1)

    def remaining(self, prepared, state):
        """The fertility minus the coverage."""
        return super().remaining(prepared, state[1])

    def update(self, prepared, state, scores, alignment, query, mask):
        """The alignment, and the coverage plus the new weights."""
        return alignment, state[1] + alignment


class CoverageFertility(Coverage):
    """feature_s = sum of all earlier weights / f_s, f_s = N sigmoid(u . h_s). Tu et al. 2016, eq. 8-9.

    N is `model.attention.fertility`: the largest number of target words that one source word accounts for.
    """

    settings = ("fertility",)

    def build(self, rngs):
        """Create u."""
        self.weight = nnx.Param(glorot(rngs.params(), self.memory, 1))

    def prepare(self, memory):
        """The predicted fertility of each token."""
        fertility = self.config.fertility * jax.nn.sigmoid(matmul(memory, self.weight[...], self.dtype)[..., 0])
        return jnp.maximum(fertility, 1e-2)

    def remaining(self, prepared, state):
        """The fertility minus the coverage."""
        return prepared * (1 - state)

    def update(self, prepared, state, scores, alignment, query, mask):
        """The coverage plus the new weights, each divided by its token's fertility."""
        return state + alignment / prepared


class CoverageTanh(History):
    """feature_s = tanh(V feature_s + u a_s + W h_s + Y q), a_s the weight. Tu et al. 2016, section 3.1.2, with tanh."""

    stateful = True
    gates = 1
    settings = ("coverage_size",)

    @property
    def width(self):
        """The configured width of a coverage vector."""
        return self.config.coverage_size

    def build(self, rngs):
        """Create V, u, W and Y, and a bias."""
        width = self.gates * self.width
        self.feature_kernel = nnx.Param(glorot(rngs.params(), self.width, width))
        self.weight_feature_kernel = nnx.Param(glorot(rngs.params(), 1, width)[0])
        self.memory_kernel = nnx.Param(glorot(rngs.params(), self.memory, width))
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, width))
        self.bias = nnx.Param(jnp.zeros((width,)))

    def query_projection(self):
        """The matrix Y."""
        return self.query_kernel[...]

    def prepare(self, memory):
        """W h plus the bias."""
        return matmul(memory, self.memory_kernel[...], self.dtype) + broadcast_bias(self.bias[...], 3)

    def start(self, mask):
        """Zeros of shape [B, S, width]."""
        return jnp.zeros((*mask.shape, self.width))

    def features(self, prepared, state, mask):
        """The coverage vectors."""
        return state

    def _input(self, prepared, alignment, query):
        """The part of the update that does not depend on the last vector."""
        return prepared + alignment[..., None] * broadcast_bias(self.weight_feature_kernel[...], 3) + query[:, None]

    def update(self, prepared, state, scores, alignment, query, mask):
        """The next coverage vectors; zeros on padding."""
        new = jnp.tanh(self._input(prepared, alignment, query) + state @ self.feature_kernel[...])
        return jnp.where(mask[..., None], new, 0.0)


class CoverageGru(CoverageTanh):
    """feature_s = GRU(feature_s, [a_s; h_s; q]), a_s the weight. Tu et al. 2016, arXiv:1601.04811, section 3.1.2."""

    gates = 3
    settings = ("coverage_size",)

    def update(self, prepared, state, scores, alignment, query, mask):
        """The next coverage vectors, reset after the product as in `cells.Gru`; zeros on padding."""
        inputs, recurrent = self._input(prepared, alignment, query), state @ self.feature_kernel[...]
        input_gates, input_candidate = jnp.split(inputs, [2 * self.width], axis=-1)
        state_gates, state_candidate = jnp.split(recurrent, [2 * self.width], axis=-1)
        reset, update = jnp.split(jax.nn.sigmoid(input_gates + state_gates), 2, axis=-1)
        new = jnp.tanh(input_candidate + reset * state_candidate)
        return jnp.where(mask[..., None], new + update * (state - new), 0.0)


class IntraTemporal(History):
    """exp(score_ts) is divided by the sum of all earlier exp(score_js). Paulus et al. 2018, arXiv:1705.04304, eq. 3."""

    stateful = True
    settings = ()

    def start(self, mask):
        """The log of that sum, and whether there was an earlier step."""
        return jnp.zeros(mask.shape), jnp.zeros((mask.shape[0], 1))

    def adjust_scores(self, state, scores):
        """The scores minus the log of the sum, which is taken as 0 at the first step."""
        total, _ = state
        return scores - total

    def update(self, prepared, state, scores, alignment, query, mask):
        """The sum with the new scores added, in logarithms."""
        total, started = state
        scores = jnp.where(mask, scores, 0.0)
        return jnp.where(started > 0, jnp.logaddexp(total, scores), scores), jnp.ones_like(started)


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
    """The key of a token plus its mapped features: k_s + U f_s, or k_s + U (F * f)_s with a convolution.

    Args:
        width: features per token.
        key: width K of a key.
        kernel: width in tokens of the convolution; 0 for none.
    """

    def __init__(self, width: int, key: int, config: AttentionConfig, *, kernel: int, rngs: nnx.Rngs):
        inner = config.filters if kernel else width
        if kernel:
            self.filters = nnx.Param(glorot(rngs.params(), kernel * width, inner).reshape(kernel, width, inner))
        self.convolves = bool(kernel)
        self.weight = nnx.Param(glorot(rngs.params(), inner, key))

    def __call__(self, keys: Float[Array, "B S K"], features: Float[Array, "B S F"]) -> Float[Array, "B S K"]:
        """The keys of this step."""
        if self.convolves:
            features = convolve(features, self.filters[...])
        return keys + jnp.einsum("bsf,fk->bsk", features, self.weight[...])


def uniform_alignment(mask: Bool[Array, "B S"]) -> Float[Array, "B S"]:
    """The same weight on every real token; zeros on padding."""
    real = mask.astype(jnp.float32)
    return real / jnp.maximum(real.sum(-1, keepdims=True), 1.0)


def convolve(features: Float[Array, "B S F"], filters: Float[Array, "R F C"]) -> Float[Array, "B S C"]:
    """The convolution of the features over the tokens, with zeros beyond the ends."""
    return jax.lax.conv_general_dilated(features, filters, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
