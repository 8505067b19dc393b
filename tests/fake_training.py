"""A training without a model: batches, a step and a validation of a few lines, on real files and the real loop."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from s2s_jax.shapes import Batch
from s2s_jax.training.checkpoint.checkpoints import CheckpointConfig
from s2s_jax.training.loop import StepProgram, TrainerContext, TrainingLoop, ValidationResult
from s2s_jax.training.metrics_writer import MetricsWriter, RecordConfig
from s2s_jax.training.objectives import LossSums
from s2s_jax.training.run_log import RunLog
from s2s_jax.training.step import Metrics, TrainState
from s2s_jax.training.stop_policy import BudgetConfig, StopPolicy, TrainProgress, ValidationConfig

QUIET = Console(quiet=True)


class Lowered:
    """A program that compiles in no time."""

    def compile(self) -> "Lowered":
        return self

    def memory_analysis(self) -> None:
        return None


def take_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """A step that learns nothing; its loss is 1 nat per token."""
    tokens = float((batch.target != 0).sum())
    sums = LossSums(*map(jnp.float32, (tokens, tokens, tokens, 0)))
    return state._replace(step=state.step + 1), Metrics(sums, jnp.float32(2.0), jnp.array(True))


def program(**changes: Any) -> StepProgram:
    """The program of one run."""
    steps = StepProgram(
        step=take_step,
        lower=lambda state, batch: Lowered(),
        join_states=lambda states: states[0],
        join_batches=lambda batches: batches[0],
        put=lambda batch: batch,
        of_run=lambda tree, index: tree,
    )
    return steps._replace(**changes)


@dataclasses.dataclass
class Saved:
    """Checkpoints that remember their steps."""

    steps: list[int] = dataclasses.field(default_factory=list)

    def save(self, step: int, state: TrainState, **_: Any) -> None:
        self.steps.append(step)

    def wait(self) -> None:
        pass

    def latest(self) -> int | None:
        return max(self.steps, default=None)


def batches(first: int, last: int) -> Iterator[Batch]:
    """One row of two source and three target tokens per step."""
    for _ in range(first, last):
        yield Batch(np.ones((1, 2), np.int32), np.ones((1, 3), np.int32))


def state_at(step: int) -> TrainState:
    return TrainState(jnp.int32(step), {"weight": jnp.ones(2)}, (), (), jnp.zeros(2, jnp.uint32))


@contextlib.contextmanager
def training(
    directory: Path,
    *,
    steps: int,
    console: Console = QUIET,
    validate: Callable[..., ValidationResult] = lambda params: ValidationResult({"loss": 1.0}, [], 1.0),
    every: int = 1000,
    log_every: int = 1,
    given: StepProgram | None = None,
    trackers: tuple[str, ...] = (),
    **context: Any,
) -> Iterator[tuple[TrainingLoop, Saved]]:
    """A loop from step 0, and the checkpoints that it writes."""
    policy = StopPolicy(steps, ValidationConfig(every=every), BudgetConfig())
    record = RecordConfig(log_every=log_every, trackers=trackers)
    with MetricsWriter(directory, record, steps=steps, log=RunLog(console), validated_every=every) as writer:
        saved = Saved()
        run = TrainerContext(
            **{
                "batches": batches,
                "validate": validate,
                "checkpoints": saved,
                "checkpoint": CheckpointConfig(every=1000),
                "writer": writer,
                "directory": directory,
                "policy": policy,
                "progress": TrainProgress(),
                **context,
            }
        )
        yield TrainingLoop([run], given or program(), [state_at(0)]), saved
