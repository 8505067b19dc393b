"""Progress of a training run: metrics.jsonl, a live table on a terminal or plain lines elsewhere, TensorBoard."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from s2s_jax.extras import needs_extra
from s2s_jax.training.checkpoint.disk import replace_file
from s2s_jax.validation import at_least, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """What is logged, and how often."""

    log_every: int = 50
    """Steps between two records of the training loss."""
    tensorboard: bool = False
    """Also write TensorBoard files into the run's directory (needs the extra `tensorboard`)."""

    def __post_init__(self):
        check_fields(self, "record")
        at_least("record.log_every", self.log_every, 1)


class StepSums(NamedTuple):
    """Sums over one step, or over the steps since the last record."""

    step: int
    nats: float
    tokens: float
    correct: float
    norm: float
    auxiliary: float | None = None  # alignment terms times their weights; None where none has a weight


class MetricsWriter:
    """Writes metrics.jsonl, and shows a live table on a terminal or plain lines elsewhere."""

    def __init__(self, directory: Path, config: RecordConfig, *, steps: int, console: Console, resumed_at: int = 0):
        self.config, self.steps, self.console = config, steps, console
        self.path = directory / "metrics.jsonl"
        damaged = _drop_after(self.path, resumed_at)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _board(directory) if config.tensorboard else None
        self._since = time.monotonic()
        self._first, self._started, self._compiling = resumed_at, self._since, self._since
        self._sums = StepSums(resumed_at, 0.0, 0.0, 0.0, 0.0)
        self._rows: dict[str, str] = {}
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        if damaged:
            self.print(f"warning: {self.path} had {damaged} damaged lines, which are dropped")

    def __enter__(self) -> "MetricsWriter":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        if self._board:
            self._board.close()
        self._file.close()

    def print(self, line: str) -> None:
        """Print a line above the live table."""
        self.console.print(Text(line), soft_wrap=True)

    def compiling(self, shape: tuple[int, ...]) -> None:
        """Announce that the next step is compiled for a shape: rows, source tokens, target tokens."""
        self._compiling = time.monotonic()
        self.print(f"compiling for sources of {shape[1]} and targets of {shape[2]} tokens, {shape[0]} pairs per batch")

    def compiled(self) -> None:
        """Subtract the time since `compiling` from the training time."""
        seconds = time.monotonic() - self._compiling
        self._since += seconds
        self._started += seconds

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
        )
        if new.step % self.config.log_every == 0 or new.step == self.steps:
            self._record()

    def _record(self) -> None:
        sums, now = self._sums, time.monotonic()
        seconds = max(now - self._since, 1e-9)
        loss, rate = sums.nats / max(sums.tokens, 1), sums.tokens / seconds
        done = (sums.step - self._first) / max(now - self._started, 1e-9)
        left = (self.steps - sums.step) / max(done, 1e-9)
        added = {} if sums.auxiliary is None else {"auxiliary": sums.auxiliary / max(sums.tokens, 1)}
        self.write(
            "train",
            sums.step,
            loss=loss,
            **added,
            token_accuracy=sums.correct / max(sums.tokens, 1),
            gradient_norm=sums.norm,
            tokens_per_second=rate,
        )
        self._show(
            step=f"{sums.step:,} of {self.steps:,}",
            loss=f"{loss:.4f} nats per token",
            **{name: f"{value:.4f} per token" for name, value in added.items()},
            speed=f"{rate:,.0f} target tokens/s, {_clock(left)} left",
        )
        self._since, self._sums = now, StepSums(sums.step, 0.0, 0.0, 0.0, 0.0)

    def validation(
        self, step: int, values: Mapping[str, float | None], sample: Sequence[str], *, seconds: float
    ) -> None:
        """Record a validation; `sample` is lines that show a translation."""
        self.write("validation", step, seconds=seconds, **values)
        numbers = (
            (name.replace("_", " "), "undefined" if value is None else f"{value:.4f}") for name, value in values.items()
        )
        text = ", ".join(f"{name} {number}" for name, number in numbers)
        self._show(validation=f"at step {step:,}: {text}", sample="\n".join(sample))
        self._since += seconds
        self._started += seconds

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Write one line of metrics.jsonl; a number that is not finite becomes null."""
        clean = {name: _finite(value) for name, value in values.items()}
        self._file.write(_record_line(kind, step, clean))
        self._file.flush()
        if self._board:
            for name, value in clean.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def _show(self, **rows: str) -> None:
        if self._live is None:
            sample = rows.pop("sample", "")
            self.print("; ".join(f"{name} {text}" for name, text in rows.items()) + ("\n" + sample if sample else ""))
            return
        self._rows.update(rows)
        table = Table.grid(padding=(0, 2))
        for name, text in self._rows.items():
            table.add_row(Text(name, style="bold"), Text(text))
        self._live.update(table)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, without damaged lines and one that is still being written."""
    return [record for _, record in _readable_lines(path)]


def _readable_lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line that holds a record, with the record; one that was cut by a kill, or has a flipped bit, holds none."""
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
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


def _board(directory: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ValueError(needs_extra("record.tensorboard", "tensorboard")) from None
    return SummaryWriter(str(directory / "tensorboard"))
