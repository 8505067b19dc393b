"""Progress of a training run: metrics.jsonl, trackers, and what `display` shows of it."""

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.training import distributed
from s2s_jax.training.checkpoint.disk import replace_file
from s2s_jax.training.display import Display, clock
from s2s_jax.training.memory import MemoryNeed, Shape
from s2s_jax.training.run_log import RunLog
from s2s_jax.training.trackers import TRACKERS, Pixels, Trackers
from s2s_jax.validation import at_least, check_fields, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """What is logged, and how often."""

    log_every: int = 50
    """Steps between two records of the training loss."""
    trackers: tuple[str, ...] = ()
    """Also report settings, metrics and alignments to any of tensorboard (files in the run's directory), wandb, mlflow,
    or an entry of your own in TRACKERS."""

    def __post_init__(self):
        check_fields(self, "record")
        at_least("record.log_every", self.log_every, 1)
        for name in self.trackers:
            one_of("record.trackers", name, TRACKERS)


class StepSums(NamedTuple):
    """Sums over one step, or over the steps since the last record."""

    step: int
    nats: float
    tokens: float
    correct: float
    norm: float
    auxiliary: float | None = None  # alignment terms times their weights; None where none has a weight
    skipped: int | None = None  # steps that were skipped as spikes; None where none can be
    reward: float | None = None  # of the candidates of each sentence the mean; None without a sequence-level loss
    sentences: float = 0.0


class MetricsWriter:
    """Writes metrics.jsonl, and shows a live table on a terminal or plain lines elsewhere.

    Of the processes that share a training, the first one alone writes.
    """

    def __init__(
        self,
        directory: Path,
        config: RecordConfig,
        *,
        steps: int,
        log: RunLog,
        resumed_at: int = 0,
        validated_every: int = 0,
        values_at: Callable[[int], Mapping[str, float]] = lambda step: {},
        settings: Mapping[str, Any] | None = None,
    ):
        """`values_at` gives the numbers that depend on the step alone, such as its learning rate.

        `settings` are what trackers are told of the run.
        """
        self.config, self.steps, self.values_at = config, steps, values_at
        self.path = directory / "metrics.jsonl"
        writes = distributed.is_first()
        self._trackers = Trackers(config.trackers if writes else (), directory, settings or {})
        damaged = _drop_after(self.path, resumed_at) if writes else 0
        self._file = (self.path if writes else Path(os.devnull)).open("a", encoding="utf-8")
        self._since = time.monotonic()
        self._first, self._started, self._paused = resumed_at, self._since, self._since
        self._sums = StepSums(resumed_at, 0.0, 0.0, 0.0, 0.0)
        self._validated_every = validated_every
        self._validations: list[float] = []  # seconds of each
        self._display = Display(log)
        self.rate_factor = 1.0  # of the learning rate, after decays on a plateau
        if damaged:
            self.print(f"warning: {self.path} had {damaged} damaged lines, which are dropped")

    def __enter__(self) -> "MetricsWriter":
        self._display.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._report(self._trackers.close())
        self._display.__exit__()
        self._file.close()

    def print(self, line: str) -> None:
        """Print a line, above the live table where there is one."""
        self._display.print(line)

    def compiling(self, shape: Shape) -> None:
        """Announce that the step is compiled for batches of a shape."""
        self._paused = time.monotonic()
        self._display.now(f"compiling for batches of {shape}")

    def compiled(self, step: int, shape: Shape, need: MemoryNeed | None, *, count: int) -> None:
        """Record that the step was compiled, as the `count`-th shape, and what memory it needs."""
        seconds = self._resume()
        memory = {} if need is None else {"megabytes": need.total}
        self.write("compile", step, seconds=seconds, count=count, **shape._asdict(), **memory)
        self.print(f"compiled in {seconds:.1f} s" + ("" if need is None else f"; memory: {need}"))

    def validating(self, step: int) -> None:
        """Announce a validation; the first one compiles its programs."""
        self._paused = time.monotonic()
        if not self._validations:
            self._display.now(f"validating at step {step:,}; this first time, its programs are compiled")

    def _resume(self) -> float:
        """The seconds since the training was paused, which do not count as training."""
        self._display.now("")
        seconds = time.monotonic() - self._paused
        self._since += seconds
        self._started += seconds
        return seconds

    @property
    def seconds(self) -> float:
        """Seconds of training since the start, without compiling and validating."""
        return time.monotonic() - self._started

    def end(self, step: int, *, tokens: float, seconds: float, reason: str) -> None:
        """Record the end of the run."""
        self.write("end", step, tokens=tokens, seconds=seconds, reason=reason)
        if step < self.steps:
            self.print(f"stopped at step {step}: {reason}")

    def step(self, new: StepSums) -> None:
        """Add a step, and record the sums every record.log_every steps."""
        sums = self._sums
        self._sums = StepSums(
            new.step,
            sums.nats + new.nats,
            sums.tokens + new.tokens,
            sums.correct + new.correct,
            new.norm,
            None if new.auxiliary is None else (sums.auxiliary or 0.0) + new.auxiliary,
            None if new.skipped is None else (sums.skipped or 0) + new.skipped,
            None if new.reward is None else (sums.reward or 0.0) + new.reward,
            sums.sentences + new.sentences,
        )
        if new.step % self.config.log_every == 0 or new.step == self.steps:
            self._record()

    def _record(self) -> None:
        sums, now = self._sums, time.monotonic()
        loss, rate = sums.nats / max(sums.tokens, 1), sums.tokens / max(now - self._since, 1e-9)
        added = {} if sums.auxiliary is None else {"auxiliary": sums.auxiliary / max(sums.tokens, 1)}
        reward = {} if sums.reward is None else {"reward": sums.reward / max(sums.sentences, 1)}
        skipped = {} if sums.skipped is None else {"skipped_steps": sums.skipped}
        factors = {"learning_rate": self.rate_factor}
        at_step = {name: value * factors.get(name, 1) for name, value in self.values_at(sums.step).items()}
        self.write(
            "train",
            sums.step,
            loss=loss,
            **added,
            **reward,
            **skipped,
            token_accuracy=sums.correct / max(sums.tokens, 1),
            gradient_norm=sums.norm,
            **at_step,
            tokens_per_second=rate,
        )
        epoch = f" (epoch {at_step['epoch']:.2f})" if "epoch" in at_step else ""
        self._display.show(
            step=f"{sums.step:,} of {self.steps:,}{epoch}",
            loss=f"{loss:.4f} nats per token",
            **{name: f"{value:.4f} per token" for name, value in added.items()},
            **{name: f"{value:.4f}" for name, value in reward.items()},
            speed=f"{rate:,.0f} target tokens/s, {self._time_left(sums.step)} left",
        )
        self._since, self._sums = now, StepSums(sums.step, 0.0, 0.0, 0.0, 0.0)

    def _time_left(self, step: int) -> str:
        """The time that the remaining steps and validations take, by those of this process so far."""
        seconds = (self.steps - step) * self.seconds / max(step - self._first, 1)
        every = self._validated_every
        validations = (
            -(-self.steps // every) - (step - 1) // every if every else 0
        )  # that of this step is still to come
        if validations and not self._validations:
            return f"{clock(seconds)} and {validations:,} validation{'s' * (validations > 1)}"
        if validations:
            measured = self._validations[1:] or self._validations  # the first one compiles
            seconds += validations * sum(measured) / len(measured)
        return clock(seconds)

    def validation(
        self,
        step: int,
        values: Mapping[str, float | None],
        sample: Sequence[str],
        pictures: Callable[[], Mapping[str, Pixels]] | None = None,
    ) -> None:
        """Record a validation; `sample` is lines that show a translation, `pictures` draws those for trackers."""
        seconds = self._resume()
        self._validations.append(seconds)
        self.write("validation", step, seconds=seconds, **values)
        if pictures is not None:
            self._report(self._trackers.pictures(step, pictures))
        numbers = (
            (name.replace("_", " "), "undefined" if value is None else f"{value:.4f}") for name, value in values.items()
        )
        text = ", ".join(f"{name} {number}" for name, number in numbers)
        self._display.show(validation=f"at step {step:,}: {text}", sample="\n".join(sample))

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Write one line of metrics.jsonl; a number that is not finite becomes null."""
        clean = {name: _finite(value) for name, value in values.items()}
        self._file.write(_record_line(kind, step, clean))
        self._file.flush()
        self._report(self._trackers.numbers(kind, step, clean))

    def _report(self, failures: Sequence[str]) -> None:
        for line in failures:
            self.print(line)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, without damaged lines and one that is still being written."""
    return [record for _, record in _readable_lines(path)]


def records_of(lines: bytes) -> list[dict[str, Any]]:
    """The records of some lines of a metrics.jsonl, without damaged ones."""
    return [record for _, record in _readable(lines)]


def _readable_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line that holds a record, with the record."""
    return _readable(path.read_bytes() if path.exists() else b"")


def _readable(lines: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line that holds a record, with the record; one that was cut by a kill, or has a flipped bit, holds none."""
    for line in lines.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("kind"), str) and type(record.get("step")) is int:
                yield line, record


def append_record(path: Path, kind: str, step: int, **values: Any) -> None:
    """Add one record to a metrics.jsonl that another handle may be writing."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_record_line(kind, step, values))


def _record_line(kind: str, step: int, values: Mapping[str, Any]) -> str:
    return json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **values}) + "\n"


def _drop_after(path: Path, step: int) -> int:
    """Drop damaged lines, and the records after `step`, of a run that was killed before its next checkpoint.

    Returns:
        the number of damaged lines, without a last one that a kill has cut.
    """
    damaged = damaged_lines(path)
    if path.exists():
        kept = [line + b"\n" for line, record in _readable_lines(path) if record["step"] <= step]
        replace_file(path, b"".join(kept))
    return damaged


def damaged_lines(path: Path) -> int:
    """The number of lines of a metrics.jsonl that cannot be read, without a last one that a kill has cut."""
    ended = path.read_bytes().count(b"\n") if path.exists() else 0
    return max(0, ended - sum(1 for _ in _readable_lines(path)))
