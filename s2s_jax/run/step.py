"""The training step of a run: its loss, its optimizer and its model in one function."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from s2s_jax.model.interface import Model
from s2s_jax.training.devices import WHOLE, Layout
from s2s_jax.training.objectives import LossConfig, make_loss
from s2s_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig, probability
from s2s_jax.training.step import TrainStep, make_step


def training_step(
    model: Model,
    loss: LossConfig,
    sampling: ScheduledSamplingConfig,
    optimizer: OptimizerConfig,
    *,
    steps: int,
    layout: Layout = WHOLE,
    compiler_options: Mapping[str, Any] | None = None,
) -> TrainStep:
    """The compiled training step of a run of `steps` steps."""
    return make_step(
        make_loss(model, loss, sampling),
        make_optimizer(optimizer, steps),
        ema=optimizer.ema,
        accumulate=optimizer.accumulate,
        skip_spikes=optimizer.skip_spikes,
        layout=layout,
        compiler_options=compiler_options,
    )


def step_values(
    sampling: ScheduledSamplingConfig, optimizer: OptimizerConfig, *, steps: int, per_epoch: int
) -> Callable[[int], dict[str, float]]:
    """The function that gives the numbers that depend on a step alone: its learning rate, its coins and its epoch."""
    schedule = learning_rate(optimizer, steps)

    @jax.jit
    def computed(index: Int[Array, ""]) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            return schedule(index), probability(sampling, index)

    def values(step: int) -> dict[str, float]:
        rate, true = map(float, computed(np.int32(step - 1)))  # the first step has index 0
        return {"learning_rate": rate, "teacher_forcing_probability": true, "epoch": step / per_epoch}

    return values
