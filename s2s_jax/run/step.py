"""The training step of a run: its loss, its optimizer and its model in one function."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from s2s_jax.config import Experiment
from s2s_jax.model.interface import Model
from s2s_jax.training.devices import WHOLE, Layout
from s2s_jax.training.objectives import DEFAULT_SEQUENCE, OBJECTIVES, LossConfig, SequenceLevel, make_loss
from s2s_jax.training.optimizer import OptimizerConfig, frozen_mask, learning_rate, make_optimizer
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig
from s2s_jax.training.schedules import ProbabilitySchedule, value_at
from s2s_jax.training.sequence_level.config import SequenceTraining
from s2s_jax.training.step import TrainStep, make_step


def training_step(
    model: Model,
    loss: LossConfig,
    sampling: ScheduledSamplingConfig,
    optimizer: OptimizerConfig,
    *,
    steps: int,
    sequence: SequenceTraining = DEFAULT_SEQUENCE,
    layout: Layout = WHOLE,
    compiler_options: Mapping[str, Any] | None = None,
) -> TrainStep:
    """The compiled training step of a run of `steps` steps."""
    return make_step(
        make_loss(model, loss, sampling, sequence),
        make_optimizer(optimizer, steps),
        ema=optimizer.ema,
        accumulate=optimizer.accumulate,
        skip_spikes=optimizer.skip_spikes,
        frozen=frozen_mask(optimizer),
        layout=layout,
        compiler_options=compiler_options,
    )


def step_values(experiment: Experiment, *, per_epoch: int) -> Callable[[int], dict[str, float]]:
    """The function that gives the numbers that depend on a step alone: its learning rate, its coins and its epoch.

    Where the objective is sequence-level, the weight of cross-entropy in it is one of them.
    """
    schedule = learning_rate(experiment.optimizer, experiment.steps)
    schedules: dict[str, ProbabilitySchedule] = {"teacher_forcing_probability": experiment.scheduled_sampling}
    if isinstance(OBJECTIVES[experiment.loss.objective], SequenceLevel):
        schedules["cross_entropy_weight"] = experiment.sequence_training

    @jax.jit
    def computed(index: Int[Array, ""]) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):  # optax relies on it
            return schedule(index), [value_at(config, index) for config in schedules.values()]

    def values(step: int) -> dict[str, float]:
        rate, scheduled = computed(np.int32(step - 1))  # the first step has index 0
        of_schedules = dict(zip(schedules, map(float, scheduled), strict=True))
        return {"learning_rate": float(rate), **of_schedules, "epoch": step / per_epoch}

    return values
