"""Which tokens may be attended to. A constraint wraps the normalizer: a mask before it or a factor after it.

The monotonic constraints read the weights of an independent normalizer (`sigmoid`) as probabilities of choosing each
token (or of staying with it), and compute the alignment from those and the previous alignment.
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
    """What a constraint may depend on besides scores and state."""

    time: Int[Array, " B"]  # steps before this one
    noise: Float[Array, "B S"] | None  # normal noise in training, for monotonic constraints; otherwise None


class Constraint(nnx.Module):
    """none: every real token may be attended to.

    The class attributes are facts, which `model.compatibility` reads to decide what can be combined.

    Args:
        query: width Q of the decoder state that queries.
        memory: width M of the states of which the keys are made.
        values: width of the states that are averaged.
    """

    stateful = False
    needs_time = False  # `weights` reads `step.time`
    monotonic = False  # the normalizer's weights are read as independent probabilities, with noise in training
    scores_twice = False  # it has a second score of the same kind, without state or history
    needs_window = False  # a `window` of 0 reaches no token
    reads_prefix = False  # the rest of the source is unknown yet, and nothing else may tell the decoder of it
    settings: tuple[str, ...] = ()  # of model.attention, which it reads; see `declared_settings`

    def __init__(
        self, query: int, memory: int, config: AttentionConfig, *, values: int, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        self.query, self.memory, self.values, self.config, self.dtype = query, memory, values, config, dtype
        self.build(rngs)

    @classmethod
    def sums_to_one(cls, config: AttentionConfig) -> bool | None:
        """Whether the weights always sum to 1; None where they do exactly if the normalizer's weights do."""
        return False if cls.monotonic else None

    def build(self, rngs: nnx.Rngs) -> None:
        """Create the parameters; a constraint without any does not override this."""

    def query_projection(self) -> Float[Array, "Q A"] | None:
        """The matrix by which the query is multiplied before `weights` receives it; None for the query itself."""
        return None

    def prepare(self, memory: Float[Array, "B S M"]) -> PyTree:
        """Everything that stays the same from step to step."""
        return ()

    def start(self, mask: Bool[Array, "B S"]) -> PyTree:
        """The state before the first step."""
        return ()

    def weights(
        self,
        query,
        prepared,
        scores: Float[Array, "B S"],
        mask: Bool[Array, "B S"],
        *,
        normalize: NormalizeFn,
        state,
        step: ConstraintStep,
    ) -> tuple[Float[Array, "B S"], PyTree]:
        """The alignment and the next state; `query` is the projected query."""
        return normalize(scores, mask), state

    def update(self, state: PyTree, query: Float[Array, "B Q"], context: Float[Array, "B M"]) -> PyTree:
        """The next state once the context is known."""
        return state


class WaitK(Constraint):
    """Only the first t + k tokens at step t = 0, 1, ...: what a simultaneous translator has read. Ma et al. 2019."""

    needs_time = True
    reads_prefix = True
    settings = ("wait_k",)

    def weights(self, query, prepared, scores, mask, *, normalize, state, step):
        """The weights of the tokens read so far."""
        read = _positions(mask) < (step.time + self.config.wait_k)[:, None]
        return normalize(scores, mask & read), state


class LocalM(Constraint):
    """Only tokens at most `window` from token t at step t. Luong et al. 2015, arXiv:1508.04025, section 3.2, local-m.

    Past the end of the source the window stays at its last token.
    """

    needs_time = True
    settings = ("window",)

    def weights(self, query, prepared, scores, mask, *, normalize, state, step):
        """The weights of the tokens in the window."""
        center = jnp.minimum(step.time, mask.sum(-1) - 1)[:, None]
        return normalize(scores, mask & (jnp.abs(_positions(mask) - center) <= self.config.window)), state


class LocalP(Constraint):
    """Tokens at most `window` from p = n sigmoid(v . tanh(W q)), times exp(-2 (s - p)^2 / window^2). Luong et al. 2015.

    Section 3.2, eq. 9-10, with tokens counted from 0. The weights sum to less than 1 unless `renormalized`.
    """

    needs_window = True
    settings = ("window", "renormalized", "size")

    @classmethod
    def sums_to_one(cls, config):
        """Where the weights are renormalized."""
        return config.renormalized

    def build(self, rngs):
        """Create W and v."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, self.config.size))
        self.vector = nnx.Param(glorot(rngs.params(), self.config.size, 1)[:, 0])

    def query_projection(self):
        """The matrix W."""
        return self.query_kernel[...]

    def weights(self, query, prepared, scores, mask, *, normalize, state, step):
        """The weights of the tokens in the window, scaled by distance; p is trained through the distance alone."""
        fraction = jax.nn.sigmoid(jnp.tanh(query) @ self.vector[...])
        length = mask.sum(-1).astype(jnp.float32)
        distance = _positions(mask).astype(jnp.float32) - (length * fraction)[:, None]
        in_window = jnp.abs(jax.lax.stop_gradient(distance)) <= self.config.window
        deviation = max(self.config.window, 1) / 2
        weights = normalize(scores, mask & in_window) * jnp.exp(-(distance**2) / (2 * deviation**2))
        return (_renormalize(weights) if self.config.renormalized else weights), state


class Window(Constraint):
    """Only tokens at most `window` from the median of the previous alignment. Chorowski et al. 2015, section 2.3.

    At the first step every token may be attended to.
    """

    stateful = True
    settings = ("window",)

    def start(self, mask):
        """-1: there is no median yet."""
        return jnp.full((mask.shape[0], 1), -1)

    def weights(self, query, prepared, scores, mask, *, normalize, state, step):
        """The weights of the tokens in the window, and the position of their median."""
        near = (jnp.abs(_positions(mask) - state) <= self.config.window) | (state < 0)
        weights = normalize(scores, mask & near)
        cumulative = jnp.cumsum(jax.lax.stop_gradient(weights), axis=-1)
        median = (cumulative < cumulative[:, -1:] / 2).sum(-1, keepdims=True)
        return weights, median.astype(state.dtype)


class Monotonic(Constraint):
    """a_s = p_s sum_{k<=s} a'_k prod_{l=k}^{s-1} (1 - p_l): one scan from left to right. Raffel et al. 2017.

    arXiv:1704.00784, algorithm 1; p = sigmoid(score + r + noise), a' the previous alignment. Training takes the
    expectation, exactly; without noise the first token with p > 1/2 is chosen (`monotonic_hard`).
    """

    stateful = True
    monotonic = True
    settings = ("monotonic_noise", "monotonic_hard", "monotonic_bias")
    offset = -1.0  # r at first: moving on is more probable than choosing

    def build(self, rngs):
        """Create r."""
        self.bias = nnx.Param(jnp.array(self.config.monotonic_bias or self.offset))

    def start(self, mask):
        """All weight on the first token."""
        return monotonic.first_token(mask)

    def weights(self, query, prepared, scores, mask, *, normalize, state, step):
        """The alignment, and the choice from which the next step continues."""
        choice = self._choose(self._probabilities(scores, mask, normalize, step), state, mask, step)
        return self._alignment(query, prepared, choice, mask), choice

    def _probabilities(self, scores, mask, normalize: NormalizeFn, step: ConstraintStep):
        scores = scores + self.bias[...]
        return normalize(scores if step.noise is None else scores + self.config.monotonic_noise * step.noise, mask)

    def _choose(self, probabilities, state, mask, step: ConstraintStep):
        choose = monotonic.hard_choice if self._is_hard(step) else monotonic.expected_choice
        return choose(probabilities, state)

    def _is_hard(self, step: ConstraintStep) -> bool:
        return self.config.monotonic_hard and step.noise is None

    def _alignment(self, query, prepared, choice, mask):
        return choice


class Mocha(Monotonic):
    """b_s = sum_{k=s}^{s+w-1} a_k softmax(u_{k-w+1}, ..., u_k)_s, a the choice of `monotonic`. Chiu & Raffel 2018.

    arXiv:1712.05382: soft attention over the w = `mocha_chunk` tokens up to there, u from a second score of the same
    kind.
    """

    scores_twice = True
    settings = ("monotonic_noise", "monotonic_hard", "monotonic_bias", "mocha_chunk")

    def build(self, rngs):
        """Create r and the second score."""
        super().build(rngs)
        self.second_score = SCORES[self.config.score](self.query, self.memory, self.config, dtype=self.dtype, rngs=rngs)

    def query_projection(self):
        """The second score's matrix."""
        return self.second_score.query_projection()

    def prepare(self, memory):
        """The second score's keys."""
        return self.second_score.prepare(memory)

    def _alignment(self, query, prepared, choice, mask):
        energies = self.second_score(query, prepared)
        return monotonic.chunkwise(choice, energies, mask, width=self.config.mocha_chunk)


class Milk(Mocha):
    """b_s = sum_{k>=s} a_k softmax(u_1, ..., u_k)_s, a the choice of `monotonic`. Arivazhagan et al. 2019.

    arXiv:1906.05218: soft attention over all tokens up to there, u from a second score of the same kind. Where no token
    is chosen the last one is, so the weights always sum to 1.
    """

    settings = ("monotonic_noise", "monotonic_hard", "monotonic_bias")

    @classmethod
    def sums_to_one(cls, config):
        """Always: the last token gets the missing weight."""
        return True

    def _choose(self, probabilities, state, mask, step):
        return monotonic.residual_on_last(super()._choose(probabilities, state, mask, step), mask)

    def _alignment(self, query, prepared, choice, mask):
        return monotonic.lookback(choice, self.second_score(query, prepared), mask)


class Stepwise(Monotonic):
    """a_s = a'_s p_s + a'_{s-1} (1 - p_{s-1}): each step stays or moves on by one. He et al. 2019, arXiv:1906.00672."""

    settings = ("monotonic_noise", "monotonic_hard", "monotonic_bias")
    offset = 3.5  # staying is more probable than moving on

    def _choose(self, probabilities, state, mask, step):
        choose = monotonic.stepwise_hard if self._is_hard(step) else monotonic.stepwise_expected
        return choose(probabilities, state, mask)


class Forward(Constraint):
    """a_s ~ (a'_s + a'_{s-1}) w_s, w any normalizer's weights. Zhang et al. 2018, arXiv:1807.06736, algorithm 1.

    Where w is 0 on every token that can be reached, it is left out of the formula for that step.
    """

    stateful = True
    settings = ()

    @classmethod
    def sums_to_one(cls, config):
        """Always: the alignment is renormalized, and never all zeros."""
        return True

    def start(self, mask):
        """All weight on the first token, and a probability of moving on of 1/2."""
        return monotonic.first_token(mask), jnp.full((mask.shape[0], 1), 0.5)

    def weights(self, query, prepared, scores, mask, *, normalize, state, step):
        """The weights of the tokens that one move can reach."""
        previous, move = state
        alignment = monotonic.forward_alignment(normalize(scores, mask), previous, mask, move=move)
        return alignment, (alignment, move)


class ForwardAgent(Forward):
    """a_s ~ ((1 - u) a'_s + u a'_{s-1}) w_s, u = sigmoid(v . [context; q] + b) of the last step. Zhang et al. 2018.

    Algorithm 2, the transition agent; it does not read the last output token.
    """

    settings = ()

    def build(self, rngs):
        """Create v and b."""
        self.query_kernel = nnx.Param(glorot(rngs.params(), self.query, 1)[:, 0])
        self.context_kernel = nnx.Param(glorot(rngs.params(), self.values, 1)[:, 0])
        self.bias = nnx.Param(jnp.array(0.0))

    def update(self, state, query, context):
        """The probability of moving on at the next step."""
        logit = query @ self.query_kernel[...] + context @ self.context_kernel[...] + self.bias[...]
        return state[0], jax.nn.sigmoid(logit)[:, None]


CONSTRAINTS: dict[str, type[Constraint]] = {"none": Constraint} | {
    table_name(kind): kind
    for kind in (WaitK, LocalM, LocalP, Window, Monotonic, Mocha, Milk, Stepwise, Forward, ForwardAgent)
}


def _positions(mask: Bool[Array, "B S"]) -> Int[Array, "1 S"]:
    return jnp.arange(mask.shape[1])[None]


def _renormalize(weights: Float[Array, "B S"]) -> Float[Array, "B S"]:
    total = weights.sum(-1, keepdims=True)
    return weights / jnp.where(total > 0, total, 1.0)
