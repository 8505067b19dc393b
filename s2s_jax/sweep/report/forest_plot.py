"""Forest plots: one row per variant with its mean, interval and seeds over a common axis."""

from collections.abc import Sequence
from typing import NamedTuple

from s2s_jax.sweep.report.svg import (
    Axis,
    Figure,
    axis_of,
    shorten,
    svg_box,
    svg_break,
    svg_dot,
    svg_line,
    svg_text,
    svg_variant,
    tick_text,
    width_of,
)

WIDTH, ROW, TOP, BOTTOM = 660.0, 25.0, 14.0, 46.0
LABEL_ROOM = 200.0


class ForestRow(NamedTuple):
    """One row: circles for the seeds, a square for the mean, a line for the interval, and a number at the right."""

    label: str
    variant: int
    row: int  # of the table
    seeds: Sequence[float]
    mean: float
    low: float
    high: float
    number: str


def forest_plot(
    name: str, title: str, caption: str, rows: Sequence[ForestRow], *, x_label: str, zero: bool, width: float = WIDTH
) -> Figure:
    """The rows below each other; `zero` draws a line where there is no difference."""
    labels = [shorten(row.label, 30) for row in rows]
    left = min(LABEL_ROOM, max(map(width_of, labels), default=0)) + 16
    right = width - 28 - max((width_of(row.number) for row in rows), default=0)
    numbers = [(*row.seeds, row.mean, row.low, row.high) for row in rows]
    spans = [(min(each), max(each)) for each in numbers]
    across = axis_of([end for span in spans for end in span], start=left, end=right, at_zero=zero, spans=spans)
    bottom = TOP + ROW * len(rows)
    parts = [_grid(across, bottom, x_label, zero=zero)]
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        parts.append(_forest_row(row, label, across, TOP + ROW * (index + 0.5), width))
    return Figure(name, title, caption, width, bottom + BOTTOM, "".join(parts))


def _grid(across: Axis, bottom: float, x_label: str, *, zero: bool) -> str:
    ticks = across.ticks(5)
    parts = []
    for tick in ticks:
        x = across.place(tick)
        parts.append(svg_line(x, TOP, x, bottom, "grid"))
        parts.append(svg_text(x, bottom + 17, tick_text(tick, ticks), "tick", anchor="middle"))
    parts.append(svg_line(across.start, bottom, across.end, bottom, "axis"))
    parts.append(svg_break(across, across=bottom, upright=False))
    if zero:
        parts.append(svg_line(across.place(0), TOP - 6, across.place(0), bottom, "zero"))
    parts.append(svg_text((across.start + across.end) / 2, bottom + 37, x_label, "label", anchor="middle"))
    return "".join(parts)


def _forest_row(row: ForestRow, label: str, across: Axis, y: float, width: float) -> str:
    above = y - 4  # the mean and its interval; the seeds lie below
    seeds = "".join(svg_dot(across.place(seed), y + 6, "seed", radius=2.4) for seed in row.seeds)
    reach = svg_line(across.place(row.low), above, across.place(row.high), above, "reach")
    middle = svg_box(across.place(row.mean) - 3.5, above - 3.5, 7, 7, "mean")
    name = svg_text(across.start - 12, y + 4, label, "label", anchor="end")
    number = svg_text(width - 4, y + 4, row.number, "number", anchor="end")
    ground = svg_box(0, y - ROW / 2, width, ROW, "ground")
    return svg_variant(
        row.variant, row.row, f"{row.label}: {row.number}", ground + name + reach + seeds + middle + number
    )
