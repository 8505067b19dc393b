"""The status of each trial of a sweep, read from its files alone."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from s2s_jax.run.run_dir import CONFIG_FILE, read_json
from s2s_jax.sweep.fingerprint import TrialDir
from s2s_jax.sweep.results import STATUSES, read_result
from s2s_jax.training.metrics_writer import read_metrics

ERROR_WIDTH = 48  # characters of an error that the table shows; log.txt and the report have all of it


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


def status_rows(trial_dirs: Sequence[TrialDir], metric: str) -> list[StatusRow]:
    """One row per trial, in the order of the sweep."""
    rows = []
    for trial_dir in trial_dirs:
        result, records = read_result(trial_dir), read_metrics(trial_dir.folder / "run" / "metrics.jsonl")
        last = {record["kind"]: record for record in records}
        rows.append(
            StatusRow(
                trial_dir.folder.name,
                result.status,
                max((record["step"] for record in records), default=0),
                _steps(trial_dir),
                last.get("train", {}).get("loss"),
                last.get("validation", {}).get("loss"),
                result.metrics.get(metric),
                result.error,
            )
        )
    return rows


def _steps(trial_dir: TrialDir) -> int:
    """The steps that a trial is to train; those of its epochs are known once it has read its data."""
    config = trial_dir.folder / "run" / CONFIG_FILE
    recorded = trial_dir.trial.experiment.epochs and config.exists()
    return read_json(config)["steps"] if recorded else trial_dir.trial.experiment.steps


def status_summary(rows: Sequence[StatusRow]) -> str:
    """The number of trials with each status, such as `3 done, 1 failed`."""
    counts = {status: sum(row.status == status for row in rows) for status in STATUSES}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def status_table(rows: Sequence[StatusRow], metric: str) -> Table:
    """The rows as a table for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", "status", "step", "loss", "validation", metric, ""):
        table.add_column(name, justify="left" if name in ("trial", "status", "") else "right", overflow="fold")
    for row in rows:
        numbers = (row.loss, row.validation, row.score)
        texts = (row.name, row.status, f"{row.step:,} of {row.steps:,}", *map(_number, numbers))
        error = textwrap.shorten(row.error, ERROR_WIDTH, placeholder="...")
        table.add_row(*map(Text, (*texts, error)))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.1e}"
