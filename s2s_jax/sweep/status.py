"""Where does each cell of a sweep stand, by what its files say alone?"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from s2s_jax.sweep.fingerprint import TrialDir
from s2s_jax.sweep.result import STATUSES
from s2s_jax.sweep.results import metrics_of, result

ERROR = 48  # characters of an error that the table shows; log.txt and the report have all of it


class Row(NamedTuple):
    """One cell."""

    name: str
    status: str
    step: int
    steps: int
    loss: float | None  # of training, nats a token
    validation: float | None  # loss of validation
    score: float | None  # of the first metric of the sweep
    error: str


def rows(placed: Sequence[TrialDir], metric: str) -> list[Row]:
    """A row a cell, in the order of the sweep."""
    found = []
    for one in placed:
        cell, records = result(one), metrics_of(one.folder)
        last = {record["kind"]: record for record in records}
        found.append(
            Row(
                one.folder.name,
                cell.status,
                max((record["step"] for record in records), default=0),
                one.cell.experiment.steps,
                last.get("train", {}).get("loss"),
                last.get("validation", {}).get("loss"),
                cell.metrics.get(metric),
                cell.error,
            )
        )
    return found


def summary(found: Sequence[Row]) -> str:
    """How many cells stand how."""
    counts = {status: sum(row.status == status for row in found) for status in STATUSES}
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def table(found: Sequence[Row], metric: str) -> Table:
    """The rows for a terminal."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("cell", "status", "step", "loss", "validation", metric, ""):
        made.add_column(name, justify="left" if name in ("cell", "status", "") else "right", overflow="fold")
    for row in found:
        numbers = (row.loss, row.validation, row.score)
        cells = (row.name, row.status, f"{row.step:,} of {row.steps:,}", *map(_number, numbers))
        error = textwrap.shorten(row.error, ERROR, placeholder="...")
        made.add_row(*map(Text, (*cells, error)))
    return made


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.1e}"
