"""Where may attention look at all? A constraint stands around the normalizer, as a mask before it or a weight after it.

The monotonic ones read the weights of the sigmoid as probabilities of stopping at (or staying with) each token, and
make the alignment out of those and the previous one.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from s2s_jax.model.attention import monotonic
from s2s_jax.model.attention.config import AttentionConfig
from s2s_jax.model.attention.scores import SCORES
from s2s_jax.model.attention.scores.base import table_name
from s2s_jax.model.ops.initializers import glorot

NormalizeFn = Callable[[Float[Array, "B S"], Bool[Array, "B S"]], Float[Array, "B S"]]


class ConstraintStep(NamedTuple):
    """What a constraint is told of the step."""

    time: Int[Array, " B"]  # steps before this one
    noise: Float[Array, "B S"] | None  # normal noise in training; None elsewhere


class Constraint(nnx.Module):
    """none: every real token may be looked at.

    Args:
        query: width Q of the decoder state that asks.
        memory: width M of what the keys are made of.
        values: width of what is averaged.
    """

    stateful = False
    needs_time = False  # whether it asks for the time
    monotonic = False  # whether it reads sigmoid's weights as choices

    def __init__(
        self, query: int, memory: int, config: AttentionConfig, *, values: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.query, self.memory, self.values, self.config, self.dtype = query, memory, values, config, dtype
        self.build(rngs)

    def build(self, rngs: nnx.Rngs) -> None:
        """Make the parameters; constraints without any need not say so."""

    def query_projection(self) -> Float[Array, "Q A"] | None:
        """What the query is multiplied by before `weights` gets it, if by anything."""
        return None

    def prepare(self, memory: Float[Array, "B S M"]) -> PyTree:
        """All that does not change from step to step."""
        return ()

    def start(self, mask: Bool[Array, "B S"]) -> PyTree:
        """What is remembered before the first step."""
        return ()

    def weights(
        self,
        asked,
        prepared,
        scores: Float[Array, "B S"],
        mask: Bool[Array, "B S"],
        *,
        by: NormalizeFn,
        state,
        now: ConstraintStep,
    ) -> tuple[Float[Array, "B S"], PyTree]:
        """The alignment and what is remembered of it."""
        return by(scores, mask), state

    def update(self, state: PyTree, query: Float[Array, "B Q"], context: Float[Array, "B M"]) -> PyTree:
        """What is remembered once the context is known."""
        return state


class WaitK(Constraint):
    """Only the first t + k tokens at step t = 0, 1, ...: what a simultaneous translator has read. Ma et al. 2019."""

    needs_time = True

    def weights(self, asked, prepared, scores, mask, *, by, state, now):
        """Those of the tokens that were read."""
        read = _places(mask) < (now.time + self.config.wait_k)[:, None]
        return by(scores, mask & read), state


class LocalM(Constraint):
    """Only tokens at most `window` from token t at step t. Luong et al. 2015, arXiv:1508.04025, section 3.2, local-m.

    Past the end of the source the window stays at its last token.
    """

    needs_time = True

    def weights(self, asked, prepared, scores, mask, *, by, state, now):
        """Those of the tokens in the window."""
        center = jnp.minimum(now.time, mask.sum(-1) - 1)[:, None]
        return by(scores, mask & (jnp.abs(_places(mask) - center) <= self.config.window)), state


class LocalP(Constraint):
    """Tokens at most `window` from p = n sigmoid(v . tanh(W q)), times exp(-2 (s - p)^2 / window^2). Luong et al. 2015.

    Section 3.2, eq. 9-10, with tokens counted from 0. The weights sum to less than 1 unless `renormalized`.
    """

    def build(self, rngs):
        """W and v."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, self.config.size))
        self.vector = nnx.Param(glorot(rngs.params(), self.config.size, 1)[:, 0])

    def query_projection(self):
        """W."""
        return self.query_kernel[...]

    def weights(self, asked, prepared, scores, mask, *, by, state, now):
        """Those of the tokens in the window, by their distance; p learns through the distance alone."""
        share = jax.nn.sigmoid(jnp.tanh(asked) @ self.vector[...])
        tokens = mask.sum(-1).astype(jnp.float32)
        distance = _places(mask).astype(jnp.float32) - (tokens * share)[:, None]
        inside = jnp.abs(jax.lax.stop_gradient(distance)) <= self.config.window
        deviation = max(self.config.window, 1) / 2
        weights = by(scores, mask & inside) * jnp.exp(-(distance**2) / (2 * deviation**2))
        return (_shares(weights) if self.config.renormalized else weights), state


class Window(Constraint):
    """Only tokens at most `window` from the median of the previous alignment. Chorowski et al. 2015, section 2.3.

    The first step may look everywhere.
    """

    stateful = True

    def start(self, mask):
        """No median yet."""
        return jnp.full((mask.shape[0], 1), -1)

    def weights(self, asked, prepared, scores, mask, *, by, state, now):
        """Those of the tokens in the window, and where their median is."""
        near = (jnp.abs(_places(mask) - state) <= self.config.window) | (state < 0)
        weights = by(scores, mask & near)
        grown = jnp.cumsum(jax.lax.stop_gradient(weights), axis=-1)
        median = (grown < grown[:, -1:] / 2).sum(-1, keepdims=True)
        return weights, median.astype(state.dtype)


class Monotonic(Constraint):
    """a_s = p_s sum_{k<=s} a'_k prod_{l=k}^{s-1} (1 - p_l): one walk from left to right. Raffel et al. 2017.

    arXiv:1704.00784, algorithm 1; p = sigmoid(score + r + noise), a' the previous alignment. Training takes the
    expectation, exactly; without noise the walk stops where p > 1/2 (`hard`).
    """

    stateful = True
    monotonic = True
    offset = -1.0  # r at first: walk on rather than stop

    def build(self, rngs):
        """r."""
        self.bias = nnx.Param(jnp.array(self.offset))

    def start(self, mask):
        """The first token."""
        return monotonic.first(mask)

    def weights(self, asked, prepared, scores, mask, *, by, state, now):
        """Where the walk stops, and what is looked at from there."""
        stopped = self._stopped(self._chances(scores, mask, by, now), state, mask, now)
        return self._seen(asked, prepared, stopped, mask), stopped

    def _chances(self, scores, mask, by: NormalizeFn, now: ConstraintStep):
        scores = scores + self.bias[...]
        return by(scores if now.noise is None else scores + self.config.monotonic_noise * now.noise, mask)

    def _stopped(self, chances, state, mask, now: ConstraintStep):
        walk = monotonic.chosen if self._is_hard(now) else monotonic.expected
        return walk(chances, state)

    def _is_hard(self, now: ConstraintStep) -> bool:
        return self.config.monotonic_hard and now.noise is None

    def _seen(self, asked, prepared, stopped, mask):
        return stopped


class Mocha(Monotonic):
    """b_s = sum_{k=s}^{s+w-1} a_k softmax(u_{k-w+1}, ..., u_k)_s, a where `monotonic` stops. Chiu & Raffel 2018.

    arXiv:1712.05382: soft attention over the w = `chunk` tokens up to there, u from a second score of the same kind.
    """

    def build(self, rngs):
        """r, and the second score."""
        super().build(rngs)
        self.second = SCORES[self.config.score](self.query, self.memory, self.config, dtype=self.dtype, rngs=rngs)

    def query_projection(self):
        """The second score's matrix."""
        return self.second.query_projection()

    def prepare(self, memory):
        """The second score's keys."""
        return self.second.prepare(memory)

    def _seen(self, asked, prepared, stopped, mask):
        return monotonic.chunkwise(stopped, self.second(asked, prepared), mask, width=self.config.mocha_chunk)


class Milk(Mocha):
    """b_s = sum_{k>=s} a_k softmax(u_1, ..., u_k)_s, a where `monotonic` stops. Arivazhagan et al. 2019.

    arXiv:1906.05218: soft attention over all tokens up to there, u from a second score of the same kind. Whatever walks
    off the end stops at the last token, so the weights always sum to 1.
    """

    def _stopped(self, chances, state, mask, now):
        return monotonic.residual_on_last(super()._stopped(chances, state, mask, now), mask)

    def _seen(self, asked, prepared, stopped, mask):
        return monotonic.lookback(stopped, self.second(asked, prepared), mask)


class Stepwise(Monotonic):
    """a_s = a'_s p_s + a'_{s-1} (1 - p_{s-1}): each step stays or moves on by one. He et al. 2019, arXiv:1906.00672."""

    offset = 3.5  # stay rather than move on

    def _stopped(self, chances, state, mask, now):
        walk = monotonic.stepwise_chosen if self._is_hard(now) else monotonic.stepwise
        return walk(chances, state, mask)


class Forward(Constraint):
    """a_s ~ (a'_s + a'_{s-1}) w_s, w any normalizer's weights. Zhang et al. 2018, arXiv:1807.06736, algorithm 1."""

    stateful = True

    def start(self, mask):
        """The first token, and an even chance of moving on."""
        return monotonic.first(mask), jnp.full((mask.shape[0], 1), 0.5)

    def weights(self, asked, prepared, scores, mask, *, by, state, now):
        """The weights that can be reached in one move."""
        previous, move = state
        alignment = monotonic.forward(by(scores, mask), previous, move=move)
        return alignment, (alignment, move)


class ForwardAgent(Forward):
    """a_s ~ ((1 - u) a'_s + u a'_{s-1}) w_s, u = sigmoid(v . [context; q] + b) of the last step. Zhang et al. 2018.

    Algorithm 2, the transition agent; it does not see the last output.
    """

    def build(self, rngs):
        """v and b."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, 1)[:, 0])
        self.context_kernel = nnx.Param(glorot(rngs.params(), self.values, 1)[:, 0])
        self.bias = nnx.Param(jnp.array(0.0))

    def update(self, state, query, context):
        """The chance of moving on at the next step."""
        said = query @ self.query_kernel[...] + context @ self.context_kernel[...] + self.bias[...]
        return state[0], jax.nn.sigmoid(said)[:, None]


CONSTRAINTS: dict[str, type[Constraint]] = {"none": Constraint} | {
    table_name(kind): kind
    for kind in (WaitK, LocalM, LocalP, Window, Monotonic, Mocha, Milk, Stepwise, Forward, ForwardAgent)
}


def _places(mask: Bool[Array, "B S"]) -> Int[Array, "1 S"]:
    return jnp.arange(mask.shape[1])[None]


def _shares(weights: Float[Array, "B S"]) -> Float[Array, "B S"]:
    total = weights.sum(-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)
