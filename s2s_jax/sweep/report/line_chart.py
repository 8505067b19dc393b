"""Line charts: curves with bands over one pair of axes, named at their right ends."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from s2s_jax.sweep.report.svg import (
    LEADS,
    Axis,
    Figure,
    axis_of,
    shorten,
    svg_break,
    svg_dot,
    svg_line,
    svg_path,
    svg_text,
    svg_variant,
    tick_text,
    width_of,
)

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 540.0, 290.0, 66.0, 14.0, 12.0, 46.0
NAME_LINE = 13.0


class CurvePoint(NamedTuple):
    """A mean with the limits of its band."""

    x: float
    y: float
    low: float
    high: float


class Series(NamedTuple):
    """One curve; `variant` decides its color."""

    label: str
    variant: int
    row: int  # of the table
    points: Sequence[CurvePoint]


def line_chart(
    figure: str,
    title: str,
    caption: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    x_names: Sequence[str] | None = None,
) -> Figure:
    """Curves with bands over one pair of axes, each with its name at its right end; those in gray lie below.

    Args:
        x_names: labels of x = 0, 1, 2, ..., instead of numbers.
    """
    names = [shorten(one.label, 22) for one in series]
    right = WIDTH - RIGHT - max(map(width_of, names), default=0) - 6
    xs = [point.x for one in series for point in one.points]
    heights = [_heights(one, log_y=log_y) for one in series]
    spans = [(min(each), max(each)) for each in heights if each]
    ys = [end for span in spans for end in span]
    across = axis_of(xs, start=LEFT, end=right, is_log=log_x)
    up = axis_of(ys, start=HEIGHT - BOTTOM, end=TOP, is_log=log_y, spans=spans)
    names_at = _name_heights(series, up)
    parts = [_grid(across, up, x_names=x_names), _labels(x_label, y_label, right)]
    for one, name, y in sorted(zip(series, names, names_at, strict=True), key=lambda each: -each[0].variant):
        label = svg_text(right + 6, y + 4, name, "label end")
        parts.append(
            svg_variant(one.variant, one.row, one.label, _band(one, across, up) + _curve(one, across, up) + label)
        )
    return Figure(name=figure, title=title, caption=caption, width=WIDTH, height=HEIGHT, body="".join(parts))


def _heights(one: Series, *, log_y: bool) -> list[float]:
    """The values that the axis must hold; curves in gray have no band."""
    ends = [(point.low, point.high) if one.variant < LEADS else () for point in one.points]
    found = [*(point.y for point in one.points), *(end for pair in ends for end in pair)]
    return [y for y in found if y > 0 or not log_y]


def _name_heights(series: Sequence[Series], up: Axis) -> list[float]:
    """Where each name stands: at the end of its curve; those in color are moved apart."""
    ends = [up.place(max(one.points[-1].y, up.low) if up.is_log else one.points[-1].y) for one in series]
    order = sorted((index for index, one in enumerate(series) if one.variant < LEADS), key=lambda index: ends[index])
    for before, index in zip([None, *order], order, strict=False):
        ends[index] = ends[index] if before is None else max(ends[index], ends[before] + NAME_LINE)
    limit = HEIGHT - BOTTOM
    for index in reversed(order):
        ends[index] = min(ends[index], limit)
        limit = ends[index] - NAME_LINE
    return ends


def is_wide(values: Sequence[float], *, ratio: float) -> bool:
    """Whether the values are positive and span more than `ratio`, so that a logarithmic axis shows them better."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > ratio


def _grid(across: Axis, up: Axis, *, x_names: Sequence[str] | None) -> str:
    ticks = up.ticks(5)
    parts = []
    for tick in ticks:
        y = up.place(tick)
        parts.append(svg_line(LEFT, y, across.end, y, "grid"))
        parts.append(svg_text(LEFT - 7, y + 4, tick_text(tick, ticks), "tick", anchor="end"))
    parts.append(svg_line(LEFT, up.start, across.end, up.start, "axis"))
    parts.append(svg_break(up, across=LEFT, upright=True))
    marks = across.ticks(5) if x_names is None else list(range(len(x_names)))
    for place, tick in enumerate(marks):
        words = tick_text(tick, marks) if x_names is None else x_names[place]
        x = across.place(tick)
        parts.append(svg_line(x, up.start, x, up.start + 4, "axis"))
        parts.append(svg_text(x, up.start + 17, words, "tick", anchor="middle"))
    return "".join(parts)


def _labels(x_label: str, y_label: str, right: float) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    below = svg_text((LEFT + right) / 2, HEIGHT - 8, x_label, "label", anchor="middle")
    return below + svg_text(14, middle, y_label, "label", anchor="middle", turned=-90)


def _band(one: Series, across: Axis, up: Axis) -> str:
    points = [point for point in one.points if not up.is_log or point.low > 0]
    if len(points) < 2 or all(point.low == point.high for point in points):
        return ""
    upper = [(across.place(point.x), up.place(point.high)) for point in points]
    lower = [(across.place(point.x), up.place(point.low)) for point in reversed(points)]
    return svg_path([*upper, *lower], "band", closed=True)


def _curve(one: Series, across: Axis, up: Axis) -> str:
    points = [(across.place(point.x), up.place(point.y)) for point in one.points if not up.is_log or point.y > 0]
    dots = "".join(svg_dot(x, y, "dot", radius=2.2) for x, y in points) if len(points) < 25 else ""
    return svg_path(points, "near") + svg_path(points, "curve") + dots


def mean_and_band(x: float, values: Sequence[float]) -> CurvePoint:
    """The mean, and one standard deviation to each side as its band; the band of a single value has no height."""
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else 0.0
    return CurvePoint(x, mean, mean - sd, mean + sd)
