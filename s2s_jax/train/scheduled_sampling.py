"""How often is the decoder shown the true previous token while it learns, and what is it shown otherwise?"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from s2s_jax.validation import at_least, check_fields, one_of, traced_value

SCHEDULES = ("constant", "linear", "exponential", "inverse-sigmoid", "piecewise")
PREDICTIONS = ("argmax", "sample", "soft", "gumbel")
SOFT_PREDICTIONS = ("soft", "gumbel")  # tails through which the gradient passes


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScheduledSamplingConfig:
    """Scheduled sampling, Bengio et al. 2015, arXiv:1506.03099: a coin a token decides what is fed."""

    schedule: str = "constant"
    """How the probability of the true token changes: constant, linear, exponential, inverse-sigmoid or piecewise."""
    start: float = 1.0
    """Probability of the true token at first; 1 throughout is teacher forcing, 0 free running."""
    end: float = 0.0
    """Lowest probability of the true token (all schedules but constant and piecewise)."""
    decay: float = 10_000.0
    """Steps from start to end (linear); steps to fall to 1/e (exponential); k (inverse-sigmoid)."""
    points: tuple[tuple[int, float], ...] = ()
    """Piecewise: (step, probability) pairs in order of step, joined by straight lines."""
    prediction: str = "argmax"
    """What is fed of the model's own last prediction when the coin shows tails: argmax or sample, a token; soft, the
    mean embedding under its distribution (Goyal et al. 2017, arXiv:1704.06970); gumbel, a sampled token through which
    the gradient passes as if it were soft (Jang et al. 2017, arXiv:1611.01144). The last two cost a vocabulary product
    more a step."""
    temperature: float = 1.0
    """Of the soft and gumbel tails: below 1 sharper, towards 0 an argmax or a sample."""
    parallel_passes: int = 0
    """0: the model's own tokens are found one step after the other; k: in k passes over all steps at once, which is
    faster and only nearly the same (`train.feed`)."""

    def __post_init__(self):
        check_fields(self, "scheduled_sampling")
        one_of("scheduled_sampling.schedule", self.schedule, SCHEDULES)
        one_of("scheduled_sampling.prediction", self.prediction, PREDICTIONS)
        for name in ("start", "end"):
            _probability(f"scheduled_sampling.{name}", getattr(self, name))
        if not self.decay > 0:
            raise ValueError(f"scheduled_sampling.decay must be positive, got {self.decay}")
        at_least("scheduled_sampling.parallel_passes", self.parallel_passes, 0)
        if not self.temperature > 0:
            raise ValueError(f"scheduled_sampling.temperature must be positive, got {self.temperature}")
        if self.parallel_passes and self.prediction in SOFT_PREDICTIONS:
            raise ValueError(
                f"scheduled_sampling.parallel_passes finds tokens, which scheduled_sampling.prediction={self.prediction} does not feed; set it to 0."
            )
        for _, probability in self.points:
            _probability("scheduled_sampling.points", probability)
        steps = [step for step, _ in self.points]
        if steps != sorted(set(steps)):
            raise ValueError(
                f"scheduled_sampling.points must stand in order of their steps, each once, got steps {steps}"
            )
        if (self.schedule == "piecewise") != bool(self.points):
            raise ValueError(
                "scheduled_sampling.points and scheduled_sampling.schedule=piecewise need each other; give both or neither."
            )
        at_least("scheduled_sampling.start - scheduled_sampling.end", self.start - self.end, 0)

    @property
    def is_teacher_forcing(self) -> bool:
        """Whether every token fed is the true one, whatever the step."""
        return self.schedule == "constant" and self.start == 1


def probability(config: ScheduledSamplingConfig, step: Int[Array, ""]) -> Float[Array, ""]:
    """The probability of feeding the true token at a training step; the step is traced, nothing recompiles.

    linear: max(end, start - (start - end) step / decay). exponential: max(end, start exp(-step / decay)).
    inverse-sigmoid: start k / (k + exp(step / k)), computed as sigmoid(ln k - step / k), which never overflows.
    Bengio et al. 2015, section 2.4.
    """
    now = step.astype(jnp.float32)
    start, end, decay = traced_value(config.start), traced_value(config.end), traced_value(config.decay)
    if config.schedule == "constant":
        return jnp.full((), start)
    if config.schedule == "piecewise":
        steps, values = zip(*config.points, strict=True)
        return jnp.interp(now, jnp.array(steps, jnp.float32), jnp.array(values, jnp.float32))
    if config.schedule == "linear":
        value = start - (start - end) * now / decay
    elif config.schedule == "exponential":
        value = start * jnp.exp(-now / decay)
    else:
        value = start * jax.nn.sigmoid(jnp.log(jnp.float32(decay)) - now / decay)
    return jnp.maximum(value, end)


def predicted_token(logits: Float[Array, "B V"], tail: str, key: Key[Array, ""]) -> Int[Array, " B"]:
    """The model's own prediction, as the next step is fed it."""
    if tail == "argmax":
        return logits.argmax(-1).astype(jnp.int32)
    return jax.random.categorical(key, logits).astype(jnp.int32)


def predicted_weights(
    logits: Float[Array, "B V"], config: ScheduledSamplingConfig, key: Key[Array, ""]
) -> Float[Array, "B V"]:
    """The model's own prediction as weights over the vocabulary, by a soft tail; gradients pass."""
    if config.prediction == "soft":
        return jax.nn.softmax(logits / config.temperature)
    noisy = (logits + jax.random.gumbel(key, logits.shape)) / config.temperature
    soft = jax.nn.softmax(noisy)
    return jax.nn.one_hot(noisy.argmax(-1), noisy.shape[-1]) + soft - jax.lax.stop_gradient(soft)


def _probability(setting: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{setting} must be a probability in [0, 1], got {value}")
