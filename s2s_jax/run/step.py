"""The training step of a run: its loss, its optimizer and its model in one function."""

from s2s_jax.model.interface import Model
from s2s_jax.training.objectives import LossConfig, make_loss
from s2s_jax.training.optimizer import OptimizerConfig, make_optimizer
from s2s_jax.training.scheduled_sampling import ScheduledSamplingConfig
from s2s_jax.training.step import TrainStep, make_step


def training_step(
    model: Model, loss: LossConfig, sampling: ScheduledSamplingConfig, optimizer: OptimizerConfig, *, steps: int
) -> TrainStep:
    """The compiled training step of a run of `steps` steps."""
    return make_step(
        make_loss(model, loss, sampling),
        make_optimizer(optimizer, steps),
        ema=optimizer.ema,
        accumulate=optimizer.accumulate,
    )
