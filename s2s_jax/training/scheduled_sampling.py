"""Scheduled sampling: how often training feeds the decoder the true previous token, and what it feeds otherwise."""

import dataclasses
import typing
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from s2s_jax.model.interface import (
    DecoderInputs,
    InputPolicy,
    LogitsReader,
    Memory,
    Model,
    Params,
    State,
    TokenSampler,
    time_first,
)
from s2s_jax.training.schedules import ProbabilityScheduleName, check_schedule
from s2s_jax.validation import at_least, check_fields, one_of

PredictionName = Literal["argmax", "sample", "soft", "gumbel"]
SOFT_PREDICTIONS = ("soft", "gumbel")  # those through which the gradient passes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduledSamplingConfig:
    """Scheduled sampling, Bengio et al. 2015, arXiv:1506.03099: one coin per token decides what is fed."""

    schedule: ProbabilityScheduleName = "constant"
    """How the probability of the true token changes: constant, linear, exponential, inverse-sigmoid or piecewise."""
    start: float = 1.0
    """Probability of the true token at step 0; a constant 1 is teacher forcing, a constant 0 is free running."""
    end: float = 0.0
    """Lowest probability of the true token (all schedules but constant and piecewise)."""
    decay: float = 10_000.0
    """Steps from start to end (linear); steps to fall to 1/e (exponential); k (inverse-sigmoid)."""
    points: tuple[tuple[int, float], ...] = ()
    """Schedule piecewise: (step, probability) pairs in order of step, joined by straight lines."""
    prediction: PredictionName = "argmax"
    """What is fed in place of the true token: argmax or sample, a predicted token; soft, the mean embedding under the
    predicted distribution (Goyal et al. 2017, arXiv:1704.06970); gumbel, a sampled token through which the gradient
    passes as if it were soft (Jang et al. 2017, arXiv:1611.01144). The last two cost one more vocabulary product per
    step."""
    temperature: float = 1.0
    """Temperature of soft and gumbel: below 1 the distribution is sharper, towards 0 it is an argmax or a sample."""
    parallel_passes: int = 0
    """0: predicted tokens are found step by step; k: in k passes over all steps at once, which is faster and an
    approximation (Duckworth et al. 2019, arXiv:1906.04331)."""

    def __post_init__(self):
        check_fields(self, "scheduled_sampling")
        check_schedule("scheduled_sampling", self)
        one_of("scheduled_sampling.prediction", self.prediction, typing.get_args(PredictionName))
        at_least("scheduled_sampling.parallel_passes", self.parallel_passes, 0)
        if not self.temperature > 0:
            raise ValueError(f"scheduled_sampling.temperature must be positive, got {self.temperature}")
        if self.parallel_passes and self.prediction in SOFT_PREDICTIONS:
            raise ValueError(
                f"scheduled_sampling.parallel_passes={self.parallel_passes} predicts tokens, and "
                f"scheduled_sampling.prediction={self.prediction} feeds weights; set "
                "scheduled_sampling.parallel_passes=0."
            )

    @property
    def is_teacher_forcing(self) -> bool:
        """Whether every token fed is the true one, whatever the step."""
        return self.schedule == "constant" and self.start == 1


class _Draw(NamedTuple):
    """The random choices of a batch, and the true tokens."""

    true: Int[Array, "B T"]
    coins: Bool[Array, "B T"]  # whether the true token is fed
    key: Key[Array, ""]  # for predictions that are sampled


def scheduled_sampling(
    model: Model, params: Params, *, epsilon: Float[Array, ""], config: ScheduledSamplingConfig
) -> InputPolicy:
    """The input policy that feeds, per step and sentence, the true token with probability epsilon, else a prediction.

    Bengio et al. 2015, arXiv:1506.03099. Sampled tokens are found within the one unroll that the loss sees, and no
    gradient passes through the choice. With `config.parallel_passes`, the predictions come from that many passes over
    all steps at once, each fed with the result of the pass before; as many passes as steps give the sequential result.
    Duckworth et al. 2019, arXiv:1906.04331. Soft predictions are weights over the vocabulary, found in a pass of their
    own, through which gradients pass.

    Args:
        epsilon: probability of the true token, traced. At 1 every token fed is true, at 0 none is but BOS.
    """
    choose = _parallel if config.parallel_passes else _soft if config.prediction in SOFT_PREDICTIONS else _sequential

    def feed(memory: Memory, state: State, true: Int[Array, "B T"], key: Key[Array, ""]) -> DecoderInputs:
        for_coins, for_choice = jax.random.split(key)
        coins = jax.random.uniform(for_coins, true.shape) < epsilon
        coins = coins.at[:, 0].set(True)  # before the first step there is no prediction
        inputs = (params, memory, state)
        inputs = inputs if config.prediction in SOFT_PREDICTIONS else jax.lax.stop_gradient(inputs)
        return choose(model, *inputs, _Draw(true, coins, for_choice), config)

    return feed


def _sequential(
    model: Model, params: Params, memory: Memory, state: State, draw: _Draw, config: ScheduledSamplingConfig
) -> DecoderInputs:
    def pick(logits: Float[Array, "B V"], inputs: tuple[Array, Array], key: Key[Array, ""]) -> Int[Array, " B"]:
        true, heads = inputs
        return jnp.where(heads, true, predicted_token(logits, config.prediction, key))

    return DecoderInputs(draw.true, TokenSampler(pick, (draw.true, draw.coins), draw.key))


def _soft(
    model: Model, params: Params, memory: Memory, state: State, draw: _Draw, config: ScheduledSamplingConfig
) -> DecoderInputs:
    """Weights [B, T, V]: one-hot at the true token where the coin shows heads."""
    true, coins, key = draw
    vocabulary = jax.eval_shape(model.step, params, memory, state, true[:, 0])[1].logits.shape[-1]
    first = jax.nn.one_hot(true[:, 0], vocabulary)

    def body(last, inputs):
        state, fed = last
        true, heads, time = inputs
        state, step = model.step(params, memory, state, fed)
        predicted = predicted_weights(step.logits, config, jax.random.fold_in(key, time))
        fed = jnp.where(heads[:, None], jax.nn.one_hot(true, vocabulary), predicted)
        return (state, fed), fed

    times = jnp.arange(true.shape[1] - 1)
    _, fed = jax.lax.scan(body, (state, first), (true.T[1:], coins.T[1:], times))
    return DecoderInputs(jnp.concatenate([first[:, None], time_first(fed)], axis=1))


def _parallel(
    model: Model, params: Params, memory: Memory, state: State, draw: _Draw, config: ScheduledSamplingConfig
) -> DecoderInputs:
    true, coins, key = draw
    tokens, times = true, jnp.broadcast_to(jnp.arange(true.shape[1]), true.shape)
    for pass_key in jax.random.split(key, config.parallel_passes):

        def read(logits, times, pass_key=pass_key):
            return predicted_token(logits, config.prediction, jax.random.fold_in(pass_key, times[0]))

        _, output = model.unroll(params, memory, state, tokens, reader=LogitsReader(read, times, true.size))
        tokens = jnp.where(coins, true, jnp.roll(output.logits, 1, axis=1))
    return DecoderInputs(tokens)


def predicted_token(logits: Float[Array, "B V"], prediction: PredictionName, key: Key[Array, ""]) -> Int[Array, " B"]:
    """The predicted token of each row, by argmax or sampled."""
    if prediction == "argmax":
        return logits.argmax(-1).astype(jnp.int32)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def predicted_weights(
    logits: Float[Array, "B V"], config: ScheduledSamplingConfig, key: Key[Array, ""]
) -> Float[Array, "B V"]:
    """The prediction as weights over the vocabulary, through which gradients pass."""
    if config.prediction == "soft":
        return jax.nn.softmax(logits / config.temperature)
    noisy = (logits + jax.random.gumbel(key, logits.shape)) / config.temperature
    soft = jax.nn.softmax(noisy)
    return jax.nn.one_hot(noisy.argmax(-1), noisy.shape[-1]) + soft - jax.lax.stop_gradient(soft)
