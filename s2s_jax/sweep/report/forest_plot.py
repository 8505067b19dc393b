"""Where do the differences lie, and the seeds behind a mean? Rows of dots over one axis of numbers."""

from collections.abc import Sequence
from typing import NamedTuple

from s2s_jax.sweep.report.line_chart import color
from s2s_jax.sweep.report.svg import (
    Axis,
    Figure,
    axis_of,
    box,
    dot,
    line,
    shorten,
    text,
    tick_text,
    width_of,
)

WIDTH, ROW, TOP, BOTTOM = 660.0, 28.0, 14.0, 46.0
LABEL_ROOM = 200.0


class Strip(NamedTuple):
    """A row: seeds as small dots, a mean as a large one or a bar, an interval as a line, a text at the right."""

    label: str
    variant: int
    seeds: Sequence[float]
    mean: float
    low: float
    high: float
    words: str


def strips(
    name: str, title: str, caption: str, rows: Sequence[Strip], *, x_label: str, zero: bool, width: float = WIDTH
) -> Figure:
    """Strips below each other; with `zero` a line stands where there is no difference."""
    labels = [shorten(row.label, 30) for row in rows]
    left = min(LABEL_ROOM, max(map(width_of, labels), default=0)) + 16
    right = width - 28 - max((width_of(row.words) for row in rows), default=0)
    ends = [end for row in rows for end in (*row.seeds, row.mean, row.low, row.high)]
    across = axis_of(ends, start=left, end=right, at_zero=zero)
    bottom = TOP + ROW * len(rows)
    parts = [_grid(across, bottom, x_label, zero=zero)]
    for place, (row, label) in enumerate(zip(rows, labels, strict=True)):
        parts.append(_strip(row, label, across, TOP + ROW * (place + 0.5), width))
    return Figure(name, title, caption, width, bottom + BOTTOM, "".join(parts))


def _grid(across: Axis, bottom: float, x_label: str, *, zero: bool) -> str:
    ticks = across.ticks(5)
    parts = []
    for tick in ticks:
        x = across.place(tick)
        parts.append(line(x, TOP, x, bottom, "grid"))
        parts.append(text(x, bottom + 17, tick_text(tick, ticks), "tick", anchor="middle"))
    parts.append(line(across.start, bottom, across.end, bottom, "axis"))
    if zero:
        parts.append(line(across.place(0), TOP - 6, across.place(0), bottom, "zero"))
    parts.append(text((across.start + across.end) / 2, bottom + 37, x_label, "label", anchor="middle"))
    return "".join(parts)


def _strip(row: Strip, label: str, across: Axis, y: float, width: float) -> str:
    kind = color(row.variant)
    above = y - 4  # the mean and its interval; the seeds lie below them
    seeds = "".join(dot(across.place(seed), y + 6, f"seed {kind}", radius=2.4) for seed in row.seeds)
    reach = line(across.place(row.low), above, across.place(row.high), above, f"reach {kind}")
    middle = box(across.place(row.mean) - 3.5, above - 3.5, 7, 7, f"mean {kind}")
    name = text(across.start - 12, y + 4, label, "label", anchor="end")
    return name + reach + seeds + middle + text(width - 4, y + 4, row.words, "number", anchor="end")
