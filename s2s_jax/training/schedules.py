"""Schedules of a probability or a weight that falls from a start to an end while a model is trained."""

import typing
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s2s_jax.validation import at_least, one_of, traced_value

ProbabilityScheduleName = Literal["constant", "linear", "exponential", "inverse-sigmoid", "piecewise"]


@runtime_checkable
class ProbabilitySchedule(Protocol):
    """The settings of a schedule; a group of settings that has one has these among its own."""

    @property
    def schedule(self) -> ProbabilityScheduleName:
        """Its form."""
        ...

    @property
    def start(self) -> float:
        """The value at step 0."""
        ...

    @property
    def end(self) -> float:
        """The lowest value, of all forms but constant and piecewise."""
        ...

    @property
    def decay(self) -> float:
        """Steps from start to end (linear); steps to fall to 1/e (exponential); k (inverse-sigmoid)."""
        ...

    @property
    def points(self) -> tuple[tuple[int, float], ...]:
        """Form piecewise: (step, value) in order of step, joined by straight lines."""
        ...


def check_schedule(group: str, config: ProbabilitySchedule) -> None:
    """Check the settings of a schedule, whose full names begin with `group`.

    Raises:
        ValueError: naming the setting, its value and what was wanted.
    """
    one_of(f"{group}.schedule", config.schedule, typing.get_args(ProbabilityScheduleName))
    for name in ("start", "end"):
        _check_probability(f"{group}.{name}", getattr(config, name))
    if not config.decay > 0:
        raise ValueError(f"{group}.decay must be positive, got {config.decay}")
    for _, value in config.points:
        _check_probability(f"{group}.points", value)
    steps = [step for step, _ in config.points]
    if steps != sorted(set(steps)):
        raise ValueError(f"{group}.points must be in increasing order of their steps, got steps {steps}")
    if (config.schedule == "piecewise") != bool(config.points):
        raise ValueError(f"{group}.points and {group}.schedule=piecewise need each other; give both or neither.")
    at_least(f"{group}.start - {group}.end", config.start - config.end, 0)


def _check_probability(setting: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{setting} must be a probability in [0, 1], got {value}")


def value_at(config: ProbabilitySchedule, step: Int[Array, ""]) -> Float[Array, ""]:
    """The value of a schedule at a training step, which is traced, so that nothing recompiles.

    linear: max(end, start - (start - end) step / decay). exponential: max(end, start exp(-step / decay)).
    inverse-sigmoid: start k / (k + exp(step / k)), computed as sigmoid(ln k - step / k), which never overflows.
    Bengio et al. 2015, section 2.4.
    """
    time = step.astype(jnp.float32)
    start, end, decay = traced_value(config.start), traced_value(config.end), traced_value(config.decay)
    if config.schedule == "constant":
        return jnp.full((), start)
    if config.schedule == "piecewise":
        steps, values = zip(*config.points, strict=True)
        return jnp.interp(time, jnp.array(steps, jnp.float32), jnp.array(values, jnp.float32))
    if config.schedule == "linear":
        value = start - (start - end) * time / decay
    elif config.schedule == "exponential":
        value = start * jnp.exp(-time / decay)
    else:
        value = start * jax.nn.sigmoid(jnp.log(jnp.float32(decay)) - time / decay)
    return jnp.maximum(value, end)
