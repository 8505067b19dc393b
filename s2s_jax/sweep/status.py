"""The status of each trial of a sweep, read from its files alone, and each of them only when it has changed."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

from s2s_jax.run.run_dir import CONFIG_FILE, METRICS_FILE, read_json
from s2s_jax.sweep.fingerprint import TrialDir
from s2s_jax.sweep.heartbeat import sign_of_life
from s2s_jax.sweep.results import STATUSES, trial_status
from s2s_jax.sweep.trial_files import OUTCOME_FILE, SCORES_FILE, read_record
from s2s_jax.training.display import clock
from s2s_jax.training.metrics_writer import records_of

ERROR_WIDTH = 48  # characters of an error that the table shows; log.txt and the report have all of it
HEADS = ("trial", "status", "step", "loss", "validation", "", "note")  # of the table; the empty one is the metric
TEXTS = ("trial", "status", "note")
WORST_FIRST = ("failed", "diverged", "lost", "running", "waiting", "done")  # lost: waiting, after a machine died


class StatusRow(NamedTuple):
    """One trial."""

    name: str
    status: str
    step: int
    steps: int
    loss: float | None  # of training, nats per token
    validation: float | None  # validation loss
    score: float | None  # of the first metric of the sweep
    error: str
    host: str = ""  # that trains it now
    seconds: float | None = None  # that it took; of one that runs, that it will take by its last steps


class StatusReader:
    """Reads the status of trials again and again; what has not changed is not read a second time."""

    def __init__(self, trial_dirs: Sequence[TrialDir], metric: str):
        self._trials, self._metric = [_TrialReader(trial_dir) for trial_dir in trial_dirs], metric

    def rows(self) -> list[StatusRow]:
        """One row per trial, in the order of the sweep."""
        return [trial.row(self._metric) for trial in self._trials]


def status_rows(trial_dirs: Sequence[TrialDir], metric: str) -> list[StatusRow]:
    """One row per trial, in the order of the sweep, read once."""
    return StatusReader(trial_dirs, metric).rows()


class _TrialReader:
    def __init__(self, trial_dir: TrialDir):
        self._experiment, self._folder = trial_dir.trial.experiment, trial_dir.folder
        self._known: dict[Path, tuple[Any, Any]] = {}  # file -> its stamp, and what was read
        self._metrics = _MetricsReader(self._folder / "run" / METRICS_FILE)

    def row(self, metric: str) -> StatusRow:
        status, error = trial_status(self._folder)
        steps, last = self._steps(), self._metrics.read()
        scores = self._once(self._folder / SCORES_FILE, read_record) if status == "done" else None
        outcome = self._once(self._folder / OUTCOME_FILE, read_record) or {}
        sign, rate = sign_of_life(self._folder), self._metrics.seconds_per_step
        return StatusRow(
            self._folder.name,
            status,
            max((record["step"] for record in last.values()), default=0),
            steps,
            last.get("train", {}).get("loss"),
            last.get("validation", {}).get("loss"),
            (scores or {}).get("metrics", {}).get(metric),
            error,
            sign.host if sign is not None and status == "running" else "",
            outcome.get("seconds", None if rate is None else rate * steps),
        )

    def _once(self, path: Path, read: Callable[[Path], Any]) -> Any:
        """What a file holds, read again only if it has changed; None if there is none."""
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if self._known.get(path, (None, None))[0] != stamp:
            self._known[path] = stamp, read(path)
        return self._known[path][1]

    def _steps(self) -> int:
        """The steps that a trial is to train; those of its epochs are known once it has read its data."""
        recorded = self._once(self._folder / "run" / CONFIG_FILE, _readable) if self._experiment.epochs else None
        return (recorded or {}).get("steps", self._experiment.steps)


def _readable(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path)
    except (FileNotFoundError, ValueError):
        return None


class _MetricsReader:
    """Reads what is new in a metrics.jsonl."""

    def __init__(self, path: Path):
        self._path, self._file, self._read = path, 0, 0  # the file's id, and bytes that were read
        self._last: dict[str, dict[str, Any]] = {}
        self.seconds_per_step: float | None = None  # between the last two records of training

    def read(self) -> dict[str, dict[str, Any]]:
        """The last record of each kind."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return {}
        if stat.st_ino != self._file or stat.st_size < self._read:  # replaced, when the run was resumed
            self._file, self._read, self._last = stat.st_ino, 0, {}
        if stat.st_size > self._read:
            with self._path.open("rb") as file:
                file.seek(self._read)
                lines, _, _ = file.read().rpartition(b"\n")
            self._read += len(lines) + bool(lines)
            for record in records_of(lines):
                self._add(record)
        return self._last

    def _add(self, record: dict[str, Any]) -> None:
        before = self._last.get(record["kind"])
        if record["kind"] == "train" and before is not None and record["step"] > before["step"]:
            self.seconds_per_step = (record["time"] - before["time"]) / (record["step"] - before["step"])
        self._last[record["kind"]] = record


def seconds_left(rows: Sequence[StatusRow]) -> float | None:
    """The time until all trials have ended, as many at a time as now; None until one shows how long it takes."""
    left = [row for row in rows if row.status in ("running", "waiting")]
    known = [row.seconds for row in rows if row.seconds and row.status in ("done", "running")]
    if not left or not known:
        return None
    trials = sum(1 - row.step / row.steps for row in left)
    return trials * sum(known) / len(known) / max(1, sum(row.status == "running" for row in left))


def status_summary(rows: Sequence[StatusRow]) -> str:
    """The number of trials with each status and the time that is left, such as `3 done, 1 running; 2:10:00 left`."""
    seconds = seconds_left(rows)
    left = "" if seconds is None or not any(row.status == "running" for row in rows) else f"; {clock(seconds)} left"
    return f"{_counts(rows)}{left}"


def _counts(rows: Sequence[StatusRow]) -> str:
    counts = {status: sum(row.status == status for row in rows) for status in STATUSES}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def status_table(rows: Sequence[StatusRow], metric: str) -> Table:
    """The rows as a table for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in HEADS:
        table.add_column(name or metric, justify="left" if name in TEXTS else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, _texts(row)))
    return table


def status_screen(rows: Sequence[StatusRow], metric: str, *, height: int) -> Group:
    """The rows as a terminal of so many lines shows them: the worst first, and the number of those that do not fit."""
    ordered = sorted(rows, key=lambda row: WORST_FIRST.index("lost" if _is_lost(row) else row.status))
    room = max(1, height - 3)  # without the head, the line of those left out, and the summary
    shown = ordered if len(ordered) <= room + 1 else ordered[:room]
    table = status_table(shown, metric)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    hidden = ordered[len(shown) :]
    more = [Text(f"... and {len(hidden)} more: {_counts(hidden)}", style="dim")] if hidden else []
    return Group(table, *more, Text(status_summary(rows)))


def _is_lost(row: StatusRow) -> bool:
    return row.status == "waiting" and bool(row.error)


def _texts(row: StatusRow) -> list[str]:
    numbers = map(_number, (row.loss, row.validation, row.score))
    note = textwrap.shorten(row.error, ERROR_WIDTH, placeholder="...") or row.host
    return [row.name, row.status, f"{row.step:,} of {row.steps:,}", *numbers, note]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.1e}"
