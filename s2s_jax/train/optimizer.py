"""How do gradients become steps?"""

import dataclasses

import jax
import optax

from s2s_jax.validation import at_least, check_fields, one_of, traced_value

OPTIMIZERS = {
    "adam": optax.scale_by_adam,
    "adamw": optax.scale_by_adam,
    "adagrad": optax.scale_by_rss,
    "adadelta": optax.scale_by_adadelta,
    "lion": optax.scale_by_lion,
    "radam": optax.scale_by_radam,
    "rmsprop": optax.scale_by_rms,
    "sgd": optax.identity,
}
SCHEDULES = ("constant", "linear", "cosine", "inverse-sqrt", "exponential")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its learning rate."""

    name: str = "adam"
    """adam, adamw, adagrad, adadelta, lion, radam, rmsprop or sgd."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after warm-up."""
    schedule: str = "constant"
    """How the rate falls after warm-up: constant, linear or cosine (to the last step), inverse-sqrt, exponential."""
    warmup_steps: int = 0
    """Steps in which the rate climbs from 0."""
    final_fraction: float = 0.0
    """Share of the highest rate at the last step (linear, cosine), or for every `steps` (exponential)."""
    clip_norm: float = 5.0
    """Largest global norm of a gradient; longer ones are scaled down. 0 for none. Pascanu et al. 2013."""
    weight_decay: float = 0.0
    """Decay of the parameters beside the gradient (adamw, lion). Loshchilov & Hutter 2019."""
    ema: float = 0.0
    """Decay of the moving average of the parameters that validation and decoding use; 0 for none."""

    def __post_init__(self):
        check_fields(self, "optimizer")
        one_of("optimizer.name", self.name, OPTIMIZERS)
        one_of("optimizer.schedule", self.schedule, SCHEDULES)
        for name in ("learning_rate", "warmup_steps", "clip_norm", "weight_decay"):
            at_least(f"optimizer.{name}", getattr(self, name), 0)
        for name in ("final_fraction", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"optimizer.{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.weight_decay and self.name not in ("adamw", "lion"):
            raise ValueError(f"optimizer.weight_decay needs optimizer.name=adamw or lion, got {self.name}")


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step."""
    after = max(1, steps - config.warmup_steps)
    peak = traced_value(config.learning_rate)
    last = peak * config.final_fraction
    falls = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, last, after),
        "cosine": optax.cosine_decay_schedule(peak, after, alpha=config.final_fraction),
        "inverse-sqrt": lambda step: peak * (max(1, config.warmup_steps) / (step + max(1, config.warmup_steps))) ** 0.5,
        "exponential": optax.exponential_decay(peak, after, max(config.final_fraction, 1e-6)),
    }
    rise = optax.linear_schedule(0.0, peak, max(1, config.warmup_steps))
    fall = falls[config.schedule]
    if not config.warmup_steps:
        return fall
    # from step 1: a rate of 0 at the first step would waste it
    return optax.join_schedules([lambda step: rise(step + 1), fall], [config.warmup_steps])


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping, the optimizer's direction, decay, and the rate, in this order."""
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    parts.append(OPTIMIZERS[config.name]())
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay))
    return promoting(optax.chain(*parts, optax.scale_by_learning_rate(learning_rate(config, steps))))


def promoting(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer, also where jax is told never to promote dtypes silently: optax counts on it, we don't."""

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(updates, state, params)

    return optax.GradientTransformation(optimizer.init, update)
