"""The optimizer, its learning rate over time, and gradient clipping."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from s2s_jax.training.parameter_groups import frozen, is_decayed, matched, multipliers, parsed_multiplier
from s2s_jax.validation import at_least, check_fields, fraction, one_of, traced_value


def _adam(*, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=beta1, b2=beta2, eps=epsilon)


def _adagrad(*, epsilon: float = 1e-7) -> optax.GradientTransformation:
    return optax.scale_by_rss(eps=epsilon)


def _adadelta(*, beta2: float = 0.9, epsilon: float = 1e-6) -> optax.GradientTransformation:
    return optax.scale_by_adadelta(rho=beta2, eps=epsilon)


def _lion(*, beta1: float = 0.9, beta2: float = 0.99) -> optax.GradientTransformation:
    return optax.scale_by_lion(b1=beta1, b2=beta2)


def _radam(*, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> optax.GradientTransformation:
    return optax.scale_by_radam(b1=beta1, b2=beta2, eps=epsilon)


def _rmsprop(*, beta2: float = 0.9, epsilon: float = 1e-8) -> optax.GradientTransformation:
    return optax.scale_by_rms(decay=beta2, eps=epsilon)


def _sgd(*, momentum: float = 0.0) -> optax.GradientTransformation:
    return optax.trace(decay=momentum) if momentum else optax.identity()


# name -> the direction of a step; the arguments are those settings of `OptimizerConfig` that the optimizer reads
OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": _adam,
    "adamw": _adam,
    "adagrad": _adagrad,
    "adadelta": _adadelta,
    "lion": _lion,
    "radam": _radam,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}
OptimizerName = Literal["adam", "adamw", "adagrad", "adadelta", "lion", "radam", "rmsprop", "sgd"]
# the rate of a step does not depend on the number of steps
STEP_FREE_SCHEDULES = ("constant", "inverse-sqrt", "step", "plateau")
UndecayedName = Literal["biases", "norms", "embeddings"]
ScheduleName = Literal["constant", "linear", "cosine", "inverse-sqrt", "exponential", "step", "plateau"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its learning rate."""

    name: OptimizerName = "adam"
    """adam, adamw, adagrad, adadelta, lion, radam, rmsprop or sgd."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached after warm-up."""
    schedule: ScheduleName = "constant"
    """Decay of the rate after warm-up: constant, linear or cosine (to the last step), inverse-sqrt, exponential, step
    (every optimizer.decay_every steps), plateau (after validations without improvement)."""
    warmup_steps: int = 0
    """Steps in which the rate rises from 0."""
    final_fraction: float = 0.0
    """Fraction of the peak rate at the last step (linear, cosine), or after every `steps` steps (exponential, which
    needs one above 0); the least there is (step, plateau)."""
    decay_factor: float = 0.5
    """Factor of the rate at each decay (step, plateau)."""
    decay_every: int = 1000
    """Steps between two decays, counted from the end of warm-up (step)."""
    decay_patience: int = 3
    """Validations without a better value of validation.metric after which the rate decays (plateau)."""
    extended: tuple[tuple[int, int], ...] = ()
    """Parts of a run before `s2s train --extend` raised its steps: [last step, steps of the schedule until then]."""
    clip_norm: float = 5.0
    """Largest global norm of a gradient; larger ones are scaled down. 0 for none. Pascanu et al. 2013."""
    skip_spikes: float = 0.0
    """Skip a step whose gradient's norm is more than so many times the median of the last 100 steps; 0 for none. A
    skipped step changes no parameter and is counted in metrics.jsonl. A norm that is not finite ends the run."""
    accumulate: int = 1
    """Parts of a batch whose gradients are computed one after another and added: less memory for the same step, up to
    rounding. Dropout and scheduled sampling draw other numbers per part, so that with them it is another run."""
    weight_decay: float = 0.0
    """Decoupled weight decay (adamw, lion). Loshchilov & Hutter 2019."""
    undecayed: tuple[UndecayedName, ...] = ()
    """Parameters without weight decay: any of biases, norms (the gains of layer normalization) and embeddings."""
    beta1: float = 0.9
    """Decay per step of the mean gradient (adam, adamw, radam), or of the mean in the direction (lion)."""
    beta2: float = 0.0
    """Decay per step of the mean squared gradient (adam, adamw, radam: usually 0.999; adadelta, rmsprop: 0.9), or of
    the mean that is kept (lion: 0.99); 0 for the usual one."""
    epsilon: float = 0.0
    """Keeps the denominator above 0 (adam, adamw, radam, rmsprop: usually 1e-8; adagrad: 1e-7; adadelta: 1e-6); 0 for
    the usual one."""
    momentum: float = 0.0
    """Fraction of the last step's direction that is added to the gradient (sgd). Polyak 1964; 0 for none."""
    ema: float = 0.0
    """Decay of the moving average of the parameters that validation and decoding use; 0 for none."""
    freeze: tuple[str, ...] = ()
    """Patterns of the parameters that are not trained, such as encoder.* or *embedding; `s2s info RUN` lists the paths
    that they are matched with."""
    multipliers: tuple[str, ...] = ()
    """Learning rates of groups of parameters, PATTERN=FACTOR, such as encoder.*=0.1; the last pattern that matches a
    parameter decides its factor."""

    def __post_init__(self):
        check_fields(self, "optimizer")
        one_of("optimizer.name", self.name, OPTIMIZERS)
        one_of("optimizer.schedule", self.schedule, SCHEDULES)
        at_least("optimizer.accumulate", self.accumulate, 1)
        for name in ("learning_rate", "warmup_steps", "clip_norm", "weight_decay"):
            at_least(f"optimizer.{name}", getattr(self, name), 0)
        _check_parts(self.extended)
        self._check_decay()
        for entry in self.multipliers:
            parsed_multiplier(entry)
        for name in ("final_fraction", "ema", "beta1", "beta2", "momentum"):
            fraction(f"optimizer.{name}", getattr(self, name))
        at_least("optimizer.epsilon", self.epsilon, 0)
        self._check_moments()
        if self.skip_spikes and not self.skip_spikes > 1:
            raise ValueError(
                f"optimizer.skip_spikes must be 0 for none, or a multiple of the median above 1, got {self.skip_spikes}"
            )
        if self.schedule == "exponential" and not self.final_fraction:
            raise ValueError(
                "optimizer.schedule=exponential never reaches optimizer.final_fraction=0; use "
                "--optimizer.final-fraction 0.01 for a hundredth of the peak rate at the last step, or "
                "--optimizer.schedule linear."
            )
        if self.weight_decay and self.name not in ("adamw", "lion"):
            raise ValueError(f"optimizer.weight_decay needs optimizer.name=adamw or lion, got {self.name}")
        for name in self.undecayed:
            one_of("optimizer.undecayed", name, get_args(UndecayedName))
        if self.undecayed and not self.weight_decay:
            raise ValueError(
                f"optimizer.undecayed={list(self.undecayed)} needs weight decay; set optimizer.weight_decay above 0, "
                "or leave optimizer.undecayed out."
            )

    def _check_decay(self) -> None:
        """Refuse a decay that is none, and settings of one that the schedule does not read."""
        at_least("optimizer.decay_every", self.decay_every, 1)
        at_least("optimizer.decay_patience", self.decay_patience, 1)
        if not 0 < self.decay_factor < 1:
            raise ValueError(f"optimizer.decay_factor must be above 0 and below 1, got {self.decay_factor}")
        for name, readers in DECAY_SETTINGS.items():
            value = getattr(self, name)
            if value != type(self).__dataclass_fields__[name].default and self.schedule in _UNDECAYED - {*readers}:
                raise ValueError(
                    f"optimizer.{name}={value} is not read by optimizer.schedule={self.schedule}, but by "
                    f"{' and '.join(readers)}; leave it out, or choose {' or '.join(readers)}."
                )

    def _check_moments(self) -> None:
        """Refuse settings of moments that the optimizer does not read."""
        for name in MOMENTS:
            value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if value != default and name not in self._read_moments():
                others = ", ".join(other for other in OPTIMIZERS if name in _parameters(OPTIMIZERS[other]))
                raise ValueError(
                    f"optimizer.{name}={value} is not read by optimizer.name={self.name}, but by {others}; leave it "
                    "out, or choose one of these."
                )

    def _read_moments(self) -> dict[str, float]:
        """The settings of moments that the optimizer reads."""
        return {name: getattr(self, name) for name in MOMENTS if name in _parameters(OPTIMIZERS[self.name])}

    def direction(self) -> optax.GradientTransformation:
        """The optimizer without learning rate, clipping and weight decay."""
        usual = ("beta2", "epsilon")  # where 0 stands for it
        moments = {name: value for name, value in self._read_moments().items() if value or name not in usual}
        return OPTIMIZERS[self.name](**moments)


MOMENTS = ("beta1", "beta2", "epsilon", "momentum")
# the schedules that read the settings of a decay; one of the user's own may read any of them
DECAY_SETTINGS = {"decay_factor": ("step", "plateau"), "decay_every": ("step",), "decay_patience": ("plateau",)}
_UNDECAYED = {*get_args(ScheduleName)}


def _parameters(function: Callable) -> Collection[str]:
    return inspect.signature(function).parameters


def _check_parts(parts: tuple[tuple[int, int], ...]) -> None:
    ends = [0, *(end for end, _ in parts)]
    if ends != sorted(set(ends)) or any(steps < 1 for _, steps in parts):
        raise ValueError(
            f"optimizer.extended must have rising last steps and positive steps, got {parts}; s2s train --extend "
            "writes it."
        )


def reads_steps(config: OptimizerConfig) -> bool:
    """Whether the rate of a step depends on the number of steps, so that a run of more steps is another run."""
    return config.schedule not in STEP_FREE_SCHEDULES


def warmup_warning(config: OptimizerConfig, steps: int) -> str | None:
    """A warning where warm-up lasts longer than the run, else None."""
    if config.warmup_steps <= steps:
        return None
    return (
        f"optimizer.warmup_steps={config.warmup_steps:,} is more than steps={steps:,}: the learning rate ends at "
        f"{steps / config.warmup_steps:.1%} of its peak; give more --steps, or fewer --optimizer.warmup-steps."
    )


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step; a run that was extended follows one schedule per part."""
    last = _one_schedule(config, steps)
    if not config.extended:
        return last
    parts = [(end, _one_schedule(config, steps_of_part)) for end, steps_of_part in reversed(config.extended)]

    def rate(step: Any) -> Any:
        value = last(step)
        for end, schedule in parts:  # the step with index `end` is the first of the next part
            value = jnp.where(step < end, schedule(step), value)
        return value

    return rate


def _one_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    peak = traced_value(config.learning_rate)
    decay = SCHEDULES[config.schedule](config, peak, max(1, steps - config.warmup_steps))
    if not config.warmup_steps:
        return decay
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    # from step 1: a rate of 0 at the first step would waste it
    return optax.join_schedules([lambda step: warmup(step + 1), decay], [config.warmup_steps])


def _constant(config: OptimizerConfig, peak: Any, steps: int) -> optax.Schedule:
    return optax.constant_schedule(peak)


def _linear(config: OptimizerConfig, peak: Any, steps: int) -> optax.Schedule:
    return optax.linear_schedule(peak, peak * config.final_fraction, steps)


def _cosine(config: OptimizerConfig, peak: Any, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, steps, alpha=config.final_fraction)


def _inverse_sqrt(config: OptimizerConfig, peak: Any, steps: int) -> optax.Schedule:
    warmup = max(1, config.warmup_steps)
    return lambda step: peak * (warmup / (step + warmup)) ** 0.5


def _exponential(config: OptimizerConfig, peak: Any, steps: int) -> optax.Schedule:
    return optax.exponential_decay(peak, steps, config.final_fraction)


def _step(config: OptimizerConfig, peak: Any, steps: int) -> optax.Schedule:
    def rate(step: Any) -> Any:
        return peak * jnp.maximum(config.decay_factor ** (step // config.decay_every), config.final_fraction)

    return rate


def plateau_factor(config: OptimizerConfig, decays: int) -> float:
    """The factor of the learning rate after so many decays on a plateau."""
    return max(config.decay_factor**decays, config.final_fraction)


# (config, peak rate, steps after warm-up) -> the rate after warm-up as a function of the step
SCHEDULES: dict[str, Callable[[OptimizerConfig, Any, int], optax.Schedule]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "inverse-sqrt": _inverse_sqrt,
    "exponential": _exponential,
    "step": _step,
    "plateau": _constant,  # times `plateau_factor`, which the step takes from its state
}


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping, the optimizer's direction, weight decay and the learning rate, in this order.

    Frozen parameters take no part: they have no moments, and their gradients are not in the norm that is clipped.
    """
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    parts.append(config.direction())
    if config.weight_decay:
        mask = functools.partial(is_decayed, undecayed=config.undecayed) if config.undecayed else None
        parts.append(optax.add_decayed_weights(config.weight_decay, mask))
    if config.multipliers:
        parts.append(optax.stateless(functools.partial(_multiplied, entries=config.multipliers)))
    optimizer = optax.chain(*parts, optax.scale_by_learning_rate(learning_rate(config, steps)))
    if mask := frozen_mask(config):
        optimizer = optax.chain(
            optax.masked(optimizer, lambda params: jax.tree.map(lambda still: not still, mask(params))),
            optax.masked(optax.set_to_zero(), mask),
        )
    return promoting(optimizer)


def frozen_mask(config: OptimizerConfig) -> Callable[[PyTree], PyTree] | None:
    """The function that says of each parameter whether it is frozen; None where none is."""
    return functools.partial(frozen, patterns=config.freeze) if config.freeze else None


def check_patterns(config: OptimizerConfig, params: PyTree) -> None:
    """Refuse patterns that name no parameter, or whose multiplier would have no effect.

    Args:
        params: the model's parameters, or their shapes.

    Raises:
        ValueError: naming the pattern, and paths that are near.
    """
    mask = frozen(params, config.freeze) if config.freeze else jax.tree.map(lambda _: False, params)
    multipliers(params, config.multipliers)
    for entry in config.multipliers:
        named = matched(params, parsed_multiplier(entry)[0], setting="optimizer.multipliers")
        if not any(jax.tree.leaves(jax.tree.map(lambda here, still: here and not still, named, mask))):
            raise ValueError(
                f"optimizer.multipliers={entry} names frozen parameters alone (optimizer.freeze="
                f"{list(config.freeze)}); leave it out."
            )


def _multiplied(updates: PyTree, _: PyTree, *, entries: tuple[str, ...]) -> PyTree:
    return jax.tree.map(lambda update, factor: update * factor, updates, multipliers(updates, entries))


def promoting(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer, also under `jax_numpy_dtype_promotion=strict`: optax relies on promotion, we do not."""

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(updates, state, params)

    return optax.GradientTransformation(optimizer.init, update)
