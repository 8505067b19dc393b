"""In which order do steps, validations and checkpoints happen, and how does a run end?"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from s2s_jax.model.interface import Params
from s2s_jax.shapes import PAD, Batch
from s2s_jax.train.checkpoint.checkpoints import Checkpoints
from s2s_jax.train.metrics_writer import MetricsWriter, ProgressBar
from s2s_jax.train.profile import Profile
from s2s_jax.train.signals import Interrupted, SignalGuard
from s2s_jax.train.step import Metrics, TrainState, TrainStep
from s2s_jax.validation import at_least, check_fields, one_of

LOWER_IS_BETTER = {"loss": True, "exact_match": False, "bleu": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """How the run is measured on the way."""

    every: int = 500
    """Steps between two validations."""
    sentences: int = 200
    """Validation lines translated greedily for quality; 0 for none. The loss is always over all of them."""
    metric: str = "loss"
    """What decides which checkpoint is best, and when to stop early: loss, exact_match or bleu."""
    patience: int = 0
    """Validations without a better one after which the run stops; 0 for never."""

    def __post_init__(self):
        check_fields(self, "validation")
        at_least("validation.every", self.every, 1)
        at_least("validation.sentences", self.sentences, 0)
        at_least("validation.patience", self.patience, 0)
        one_of("validation.metric", self.metric, LOWER_IS_BETTER)
        if self.metric != "loss" and not self.sentences:
            raise ValueError(f"validation.metric={self.metric} needs validation.sentences above 0")


class NotFinite(ArithmeticError):  # noqa: N818 - the name says what is wrong
    """The loss or the gradient of a step is NaN or infinite; the step was not taken."""


class ValidationResult(NamedTuple):
    """What a validation found."""

    values: dict[str, float]
    sample: list[str]


class TrainProgress(NamedTuple):
    """How a run stands; saved with every checkpoint, so that a resumed run stops where it would have."""

    best: float = math.inf  # of the metric, turned so that lower is better
    stale: int = 0  # validations since then
    at: int = 0  # step of the last validation
    tokens: float = 0.0  # target tokens trained on
    seconds: float = 0.0  # of training, compiling and validating left out


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """What a run may spend, besides its steps; schedules go by steps all the same."""

    tokens: int = 0
    """Target tokens after which the run is measured and stops; 0 for no such bound."""
    seconds: float = 0.0
    """Seconds of training, compiling and validating left out, after which it is measured and stops; 0 for no bound."""

    def __post_init__(self):
        check_fields(self, "budget")
        at_least("budget.tokens", self.tokens, 0)
        at_least("budget.seconds", self.seconds, 0)

    def is_spent(self, standing: TrainProgress) -> bool:
        """Whether a bound is reached."""
        return 0 < self.tokens <= standing.tokens or 0 < self.seconds <= standing.seconds


class StopPolicy(NamedTuple):
    """When a run is measured, and when it has reached its end."""

    steps: int
    validation: ValidationConfig
    budget: BudgetConfig

    def is_measured(self, step: int, standing: TrainProgress) -> bool:
        """Whether a validation belongs to a step."""
        due = step % self.validation.every == 0 or step == self.steps
        return step > 0 and (due or self.budget.is_spent(standing))

    def reason(self, step: int, standing: TrainProgress) -> str | None:
        """Why the run has reached its end, in words; None while it has not, or is still to be measured."""
        if step > self.steps:
            return "all steps are taken"
        if standing.at < step:
            return None
        if 0 < self.validation.patience <= standing.stale:
            return f"{standing.stale} validations without a better one"
        if self.budget.is_spent(standing):
            return f"its budget is spent: {standing.tokens:,.0f} target tokens, {standing.seconds:,.0f} s"
        return "all steps are taken" if step == self.steps else None


class TrainerContext(NamedTuple):
    """All that a training run needs, put together by `run.train`."""

    step: TrainStep
    batches: Callable[[int, int], Iterable[Batch]]  # (first step, one past the last) -> their global batches
    put: Callable[[Batch], Batch]
    validate: Callable[[Params], ValidationResult]
    end: StopPolicy
    checkpoints: Checkpoints
    checkpoint_every: int
    recorder: MetricsWriter
    directory: Path
    profile: Path | None = None  # where a trace of some steps goes


def train(job: TrainerContext, state: TrainState, standing: TrainProgress) -> TrainState:
    """The state after the last step, or after the validation that stopped the run early.

    Metrics of a step are read only after the next one was sent to the device, so that neither waits for the other.

    Raises:
        Interrupted: a signal asked for an end; the state is saved.
        NotFinite: a step could not be taken; the batch is kept in the run's folder, the last checkpoint is untouched.
    """
    first, spent = int(state.step), standing.seconds
    if standing.at < first and job.end.is_measured(first, standing):  # stopped between a step and its validation
        standing, _, loss = measure(job, state, first, standing)
        save(job, state, first, standing, loss)
    reason = job.end.reason(first, standing)
    shapes: set[tuple[int, ...]] = set()
    pending: tuple[int, Metrics, Batch] | None = None
    with SignalGuard() as interrupt, Profile(job.profile, job.recorder.say) as profile:
        for number, batch in enumerate(job.batches(first, first if reason else job.end.steps), first + 1):
            profile.before_step()
            state, metrics = _compiled_step(job, state, batch, shapes)
            tell(job, pending)
            pending = (number, metrics, batch)
            tokens = standing.tokens + int((batch.target != PAD).sum())
            standing = standing._replace(tokens=tokens, seconds=spent + job.recorder.seconds)
            measuring = job.end.is_measured(number, standing)
            saving = number % job.checkpoint_every == 0
            if not (measuring or saving or interrupt.number):
                continue
            tell(job, pending)
            pending = None
            loss, better = None, False
            if measuring and not interrupt.number:
                standing, better, loss = measure(job, state, number, standing)
                reason = job.end.reason(number, standing)
            if saving or better or reason or interrupt.number:
                save(job, state, number, standing, loss)
            if interrupt.number:
                job.checkpoints.wait()
                raise Interrupted(interrupt.number, number)
            if reason:
                break
    job.recorder.end(int(state.step), tokens=standing.tokens, seconds=standing.seconds, reason=str(reason))
    return state


def _compiled_step(job: TrainerContext, state: TrainState, batch: Batch, shapes: set) -> tuple[TrainState, Metrics]:
    shape = (*batch.source.shape, batch.target.shape[1])
    if shape in shapes:
        return job.step(state, job.put(batch))
    job.recorder.compiling(shape)
    state, metrics = job.step(state, job.put(batch))
    jax.block_until_ready(metrics.finite)
    job.recorder.compiled()
    shapes.add(shape)
    return state, metrics


def tell(job: TrainerContext, pending: tuple[int, Metrics, Batch] | None) -> None:
    """Tell of a finished step.

    Raises:
        NotFinite: it could not be taken.
    """
    if pending is None:
        return
    number, metrics, batch = pending
    values = jax.device_get(metrics)
    nats, tokens, norm = float(values.sums.nats), float(values.sums.tokens), float(values.norm)
    auxiliary = None if isinstance(values.sums.auxiliary, tuple) else float(values.sums.auxiliary)
    if not values.finite:
        kept = job.directory / f"not_finite_{number}.npz"
        np.savez(kept, **{name: rows for name, rows in batch._asdict().items() if len(rows)})
        added = "" if auxiliary is None else f"the terms on the alignment {auxiliary / max(tokens, 1):.3g}, "
        raise NotFinite(
            f"step {number}: the loss is {nats / max(tokens, 1):.3g} nats a token, {added}the gradient's norm "
            f"{norm:.3g}; the step was not taken. Its batch is {kept}, the newest checkpoint is step "
            f"{job.checkpoints.latest()}; lower optimizer.learning_rate or set optimizer.clip_norm in a new run."
        )
    job.recorder.step(ProgressBar(number, nats, tokens, float(values.sums.correct), norm, auxiliary))


def measure(
    job: TrainerContext, state: TrainState, number: int, standing: TrainProgress
) -> tuple[TrainProgress, bool, float]:
    """Validate: how the run stands then, whether this is its best, and the value, turned so that lower is better."""
    began = time.monotonic()
    found = job.validate(state.evaluation_params)
    job.recorder.validation(number, found.values, found.sample, seconds=time.monotonic() - began)
    metric = job.end.validation.metric
    value = found.values[metric] if LOWER_IS_BETTER[metric] else -found.values[metric]
    better = value < standing.best
    best, stale = (value, 0) if better else (standing.best, standing.stale + 1)
    return standing._replace(best=best, stale=stale, at=number), better, value


def save(job: TrainerContext, state: TrainState, number: int, standing: TrainProgress, loss: float | None) -> None:
    """Write a checkpoint."""
    about = standing._asdict() | {"best": None if math.isinf(standing.best) else standing.best}
    job.checkpoints.save(number, state, metrics=None if loss is None else {"loss": loss}, about=about)
