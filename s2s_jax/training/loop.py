"""The training loop, for one run or for replicas that go in step: steps, validations, checkpoints, and when to stop."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from s2s_jax.model.interface import Params
from s2s_jax.shapes import PAD, Batch
from s2s_jax.training import distributed
from s2s_jax.training.checkpoint.checkpoints import CheckpointConfig, Checkpoints
from s2s_jax.training.devices import memory_limit, put_like
from s2s_jax.training.memory import MemoryNeed, Shape, explained, memory_need, memory_warning
from s2s_jax.training.metrics_writer import MetricsWriter, StepSums
from s2s_jax.training.profile import Profile
from s2s_jax.training.signals import Interrupted, SignalGuard, SignalReceived
from s2s_jax.training.step import Metrics, TrainState, TrainStep
from s2s_jax.training.stop_policy import StopPolicy, TrainProgress
from s2s_jax.training.trackers import Pixels


class NotFinite(ArithmeticError):  # noqa: N818
    """The loss or the gradient of a step is NaN or infinite; the step was not taken."""


class ValidationResult(NamedTuple):
    """The outcome of a validation."""

    values: dict[str, float | None]  # by metric
    sample: list[str]  # lines that show a translation
    cost: float  # the value of validation.metric, negated where higher is better
    pictures: Callable[[], Mapping[str, Pixels]] | None = None  # draws those for trackers, by name


class TrainerContext(NamedTuple):
    """What one run brings to the loop."""

    batches: Callable[[int, int], Iterable[Batch]]  # (first step, one past the last) -> their global batches
    validate: Callable[[Params], ValidationResult]
    checkpoints: Checkpoints
    checkpoint: CheckpointConfig
    writer: MetricsWriter
    directory: Path
    policy: StopPolicy
    progress: TrainProgress
    buckets: int = 0  # shapes of batches that there should be
    largest: Batch | None = None  # a batch of the largest shape, which is compiled first
    # (decays on a plateau) -> factor of the learning rate; None where the schedule is another
    rate_factor: Callable[[int], float] | None = None


class StepProgram(NamedTuple):
    """How a step of the runs is computed: that of one run, or those of several in one compiled program."""

    step: TrainStep
    lower: Callable[[TrainState, Batch], Any]  # the step for given shapes, ready to be compiled
    join_states: Callable[[Sequence[TrainState]], TrainState]
    join_batches: Callable[[Sequence[Batch]], Batch]
    put: Callable[[Batch], Batch]  # onto the devices
    of_run: Callable[[Any, int], Any]  # (tree of all runs, index of a run) -> the run's tree


def single_program(step: TrainStep, put: Callable[[Batch], Batch]) -> StepProgram:
    """The program of one run."""
    lower = step.lower  # type: ignore[attr-defined]
    return StepProgram(step, lower, lambda states: states[0], lambda batches: batches[0], put, lambda tree, index: tree)


class _Pending(NamedTuple):
    """A step that was sent to the devices."""

    step: int
    metrics: Metrics
    batches: Sequence[Batch]
    shape: Shape


class TrainingLoop:
    """Trains one run, or replicas: runs that take the same number of steps in one compiled program.

    Metrics of a step are read only after the next step was sent to the device, so that neither waits for the other.
    A run whose step cannot be taken ends there, its last checkpoint untouched; the remaining ones continue.
    """

    def __init__(
        self,
        runs: Sequence[TrainerContext],
        program: StepProgram,
        states: Sequence[TrainState],
        *,
        profile: Path | None = None,
    ):
        """The states must be of one step; `profile` is a directory for a trace of some steps."""
        self.runs, self.program, self.profile = runs, program, profile
        self.policy = runs[0].policy  # replicas have the same
        self.state = program.join_states(states)
        self.step = self.first = int(states[0].step)
        self.progress = [run.progress for run in runs]
        self.failures: list[NotFinite | None] = [None for _ in runs]
        self._costs: list[float | None] = [None for _ in runs]  # of the validation after the last step
        self._guard = SignalGuard(pass_on=distributed.pass_on if distributed.is_shared() else None)
        self._memory: dict[Shape, MemoryNeed | None] = {}  # of the shapes that are compiled
        self._limit = memory_limit()
        self._saved_at = time.monotonic()
        self._pending: _Pending | None = None
        self._set_rate_factors()

    def run(self) -> list[NotFinite | None]:
        """Train to the last step, or to the validation that stops the runs early.

        Returns:
            per run None, or the step that could not be taken.

        Raises:
            Interrupted: a signal stopped the training; all states are saved.
        """
        with self._guard, Profile(self.profile, self.runs[0].writer.print) as profile:
            try:
                reason = self._train(profile)
            except SignalReceived:
                self._save_interrupted()
                raise Interrupted(self._guard.number or signal.SIGTERM, self.step) from None
        for index in self._alive():
            progress = self.progress[index]
            numbers = {"tokens": progress.tokens, "seconds": progress.seconds}
            self.runs[index].writer.end(self.step, reason=str(reason), **numbers)
        return self.failures

    def _train(self, profile: Profile) -> str | None:
        """Take the steps; why the runs stop, None where none could be taken."""
        reason = self._after_step(saving=False) if self._is_overdue() else None
        reason = reason or self.policy.reason(self.first, self.progress[0])
        last = self.first if reason else self.policy.steps
        largest = [run.largest for run in self.runs if run.largest is not None]
        if last > self.first and largest:
            self._compile_once(largest)
        for per_run in zip(*(run.batches(self.first, last) for run in self.runs), strict=True):
            profile.before_step()
            self._take_step(per_run)
            if distributed.stops_after(self.step) if distributed.is_shared() else self._guard.number:
                raise SignalReceived
            saving = self._is_save_due()
            if saving or self.policy.is_validated(self.step, self.progress[0]):
                reason = self._after_step(saving=saving)
            if reason or all(self.failures):
                break
        return reason

    def _is_save_due(self) -> bool:
        config, seconds = self.runs[0].checkpoint, time.monotonic() - self._saved_at
        if self.step % config.every == 0 or not config.every_minutes:
            return self.step % config.every == 0
        return bool(distributed.of_first_now_and_then(self.step, config.every_minutes * 60 <= seconds, otherwise=False))

    def _save(self, index: int, state: TrainState) -> None:
        self._saved_at = time.monotonic()
        save(self.runs[index], state, self.step, self.progress[index], self._costs[index])

    def _save_interrupted(self) -> None:
        """Save every run where it stands; a validation that the signal cut short is made up for by the resumed run."""
        self._read_pending()
        for index in self._alive():
            self._save(index, self.program.of_run(self.state, index))
        for run in self.runs:
            run.checkpoints.wait()

    def _alive(self) -> Iterator[int]:
        return (index for index, failure in enumerate(self.failures) if failure is None)

    def _is_overdue(self) -> bool:
        """Whether the runs were stopped between a step and its validation."""
        progress = self.progress[0]
        return progress.at < self.first and self.policy.is_validated(self.first, progress)

    def _take_step(self, batches: Sequence[Batch]) -> None:
        """Send a step to the devices, and read the one before."""
        shape, batch = self._compile_once(batches)
        with explained(shape, self._memory[shape], self._limit):
            self.state, metrics = self.program.step(self.state, batch)
        self.step += 1
        self._costs = [None for _ in self.runs]
        self._read_pending()
        self._pending = _Pending(self.step, metrics, batches, shape)
        for index, (run, own) in enumerate(zip(self.runs, batches, strict=True)):
            tokens = self.progress[index].tokens + int((own.target != PAD).sum())
            seconds = run.progress.seconds + run.writer.seconds / len(self.runs)  # replicas share the time
            if self.policy.budget.seconds:
                before = self.progress[index].seconds
                seconds = distributed.of_first_now_and_then(self.step, seconds, otherwise=before)
            self.progress[index] = self.progress[index]._replace(tokens=tokens, seconds=seconds)

    def _compile_once(self, batches: Sequence[Batch]) -> tuple[Shape, Batch]:
        """Compile the step for the shape of a batch, unless it is; calls of the step find the compiled program.

        Returns:
            the shape, and the batch on the devices.
        """
        batch = self.program.join_batches(batches)
        rows, source = batch.source.shape[-2:]  # replicas have an axis before these
        shape = Shape(rows, source, batch.target.shape[-1])
        with explained(shape, None, self._limit):
            batch = self.program.put(batch)
            if shape not in self._memory:
                self._compile(shape, batch)
        return shape, batch

    def _compile(self, shape: Shape, batch: Batch) -> None:
        writers = [run.writer for run in self.runs]
        for writer in writers:
            writer.compiling(shape)
        compiled = self._guard.run(lambda: self.program.lower(self.state, batch).compile())
        need = self._memory[shape] = memory_need(compiled, self.state)
        for writer in writers:
            writer.compiled(self.step, shape, need, count=len(self._memory))
        for warning in (memory_warning(need, self._limit), self._shapes_warning()):
            if warning:
                writers[0].print(f"warning: {warning}")

    def _shapes_warning(self) -> str | None:
        """A warning where batches have more shapes than there are buckets, each of which costs a compilation."""
        buckets, count = self.runs[0].buckets, len(self._memory)
        # a batch of replicas is as large as the largest bucket in rows, source and target, which may be three
        expected = buckets if len(self.runs) == 1 else buckets**3
        if not 0 < expected < count:
            return None
        return f"the step was compiled {count} times, once per shape of batches, and there are {buckets} buckets."

    def _read_pending(self) -> None:
        """Write the metrics of the step that was sent last, and end the runs that could not take it."""
        if self._pending is None:
            return
        step, metrics, batches, shape = self._pending
        self._pending = None
        with explained(shape, self._memory[shape], self._limit):
            values = jax.device_get(metrics)
        for index in list(self._alive()):
            try:
                write_step(self.runs[index], step, self.program.of_run(values, index), batches[index])
            except NotFinite as failure:
                self.failures[index] = failure

    def _after_step(self, *, saving: bool) -> str | None:
        """Validate and save where it is due; why the runs stop here, or None."""
        self._read_pending()
        step, reason, better = self.step, None, set()
        for index in self._alive():
            run, before = self.runs[index], self.progress[index]
            if before.at < step and self.policy.is_validated(step, before):
                result = self._validate(run, self.program.of_run(self.state, index))
                self.progress[index], is_best = self.policy.after_validation(before, step, result.cost)
                better |= {index} if is_best else set()
                self._costs[index] = result.cost
                reason = self.policy.reason(step, self.progress[index])
        self._set_rate_factors()
        for index in self._alive():
            if saving or index in better or reason or step == self.first:
                self._save(index, self.program.of_run(self.state, index))
        return reason

    def _set_rate_factors(self) -> None:
        """Put the factor of each run's learning rate into the state, where the schedule is a plateau."""
        pairs = zip(self.runs, self.progress, strict=True)
        factors = np.array([run.rate_factor(own.decays) for run, own in pairs if run.rate_factor], np.float32)
        if not len(factors):
            return
        for run, factor in zip(self.runs, factors.tolist(), strict=True):
            if factor != run.writer.rate_factor and self.step > self.first:
                run.writer.print(f"step {self.step}: no improvement; the learning rate is now times {factor:.3g}")
            run.writer.rate_factor = factor
        shape = self.state.rate_factor.shape  # none, or the axis of replicas or of the devices of pmap
        value = np.broadcast_to(factors if shape else factors[0], shape)
        self.state = self.state._replace(rate_factor=put_like(value, self.state.rate_factor))

    def _validate(self, run: TrainerContext, state: TrainState) -> ValidationResult:
        run.writer.validating(self.step)
        result = self._guard.run(run.validate, state.evaluation_params)
        result = result._replace(cost=distributed.of_first(result.cost))  # so that all choose the same
        run.writer.validation(self.step, result.values, result.sample, result.pictures)
        return result


def write_step(run: TrainerContext, step: int, metrics: Metrics, batch: Batch) -> None:
    """Write the metrics of a step that was computed.

    Raises:
        NotFinite: it could not be taken; the batch is kept in the run's directory.
    """
    sums = metrics.sums
    nats, tokens, norm = float(sums.nats), float(sums.tokens), float(metrics.norm)
    auxiliary = None if isinstance(sums.auxiliary, tuple) else float(sums.auxiliary)
    if not metrics.finite:
        kept = run.directory / f"not_finite_{step}{distributed.suffix()}.npz"
        arrays = {name: rows for name, rows in batch._asdict().items() if len(rows) and name != "features"}
        np.savez(kept, **arrays, **{f"feature{number}": rows for number, rows in enumerate(batch.features, 1)})
        added = "" if auxiliary is None else f"the alignment terms {auxiliary / max(tokens, 1):.3g}, "
        raise NotFinite(
            f"step {step}: the loss is {nats / max(tokens, 1):.3g} nats per token, {added}the gradient's norm "
            f"{norm:.3g}; the step was not taken. Its batch is {kept}, {_newest_checkpoint(run)}; lower "
            "optimizer.learning_rate or set optimizer.clip_norm, to 1 for example, in a new run."
        )
    skipped = None if isinstance(metrics.spike, tuple) else int(metrics.spike)
    if skipped:
        run.writer.print(f"step {step}: the gradient's norm {norm:.3g} is a spike; the step was skipped")
    rewards = () if isinstance(sums.reward, tuple) else (float(sums.reward), float(sums.sentences))
    run.writer.step(StepSums(step, nats, tokens, float(sums.correct), norm, auxiliary, skipped, *rewards))


def _newest_checkpoint(run: TrainerContext) -> str:
    """Which checkpoint is the newest; one that is being written is waited for."""
    run.checkpoints.wait()
    newest = run.checkpoints.latest()
    return "no checkpoint was written yet" if newest is None else f"the newest checkpoint is that of step {newest}"


def save(run: TrainerContext, state: TrainState, step: int, progress: TrainProgress, cost: float | None) -> None:
    """Write a checkpoint."""
    metrics = None if cost is None else {"loss": cost}
    run.checkpoints.save(step, state, metrics=metrics, about=progress.to_json())
