"""Line charts: curves with bands over one pair of axes, with a legend."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from s2s_jax.sweep.report.svg import (
    SERIES,
    Axis,
    Figure,
    axis_of,
    shorten,
    svg_dot,
    svg_line,
    svg_path,
    svg_text,
    tick_text,
    width_of,
)

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 500.0, 270.0, 66.0, 14.0, 12.0, 46.0
LEGEND_LINE = 20.0


class CurvePoint(NamedTuple):
    """A mean with the limits of its band."""

    x: float
    y: float
    low: float
    high: float


class Series(NamedTuple):
    """One curve; `variant` decides its color and dash."""

    label: str
    variant: int
    points: Sequence[CurvePoint]


def color_class(variant: int) -> str:
    """The CSS classes of a variant's color and dash."""
    return f"s{variant % SERIES} d{variant // SERIES % 3}"


def line_chart(
    name: str,
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
    """Curves with bands over one pair of axes, and the legend below.

    Args:
        x_names: labels of x = 0, 1, 2, ..., instead of numbers.
    """
    entries = [(one.label, one.variant) for one in series]
    legend, legend_height = _legend(entries, top=HEIGHT + 4)
    xs = [point.x for one in series for point in one.points]
    ys = [edge for one in series for point in one.points for edge in (point.low, point.y, point.high)]
    if log_y:
        ys = [y for y in ys if y > 0]
    across = axis_of(xs, start=LEFT, end=WIDTH - RIGHT, is_log=log_x)
    up = axis_of(ys, start=HEIGHT - BOTTOM, end=TOP, is_log=log_y)
    parts = [_grid(across, up, x_names=x_names), _labels(x_label, y_label)]
    parts += [_band(one, across, up) for one in series]
    parts += [_curve(one, across, up) for one in series]
    return Figure(name, title, caption, WIDTH, HEIGHT + legend_height, "".join([*parts, legend]))


def is_wide(values: Sequence[float], *, ratio: float) -> bool:
    """Whether the values are positive and span more than `ratio`, so that a logarithmic axis shows them better."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > ratio


def _grid(across: Axis, up: Axis, *, x_names: Sequence[str] | None) -> str:
    ticks = up.ticks(5)
    parts = []
    for tick in ticks:
        y = up.place(tick)
        parts.append(svg_line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        parts.append(svg_text(LEFT - 7, y + 4, tick_text(tick, ticks), "tick", anchor="end"))
    parts.append(svg_line(LEFT, up.start, WIDTH - RIGHT, up.start, "axis"))
    marks = across.ticks(5) if x_names is None else list(range(len(x_names)))
    for place, tick in enumerate(marks):
        words = tick_text(tick, marks) if x_names is None else x_names[place]
        x = across.place(tick)
        parts.append(svg_line(x, up.start, x, up.start + 4, "axis"))
        parts.append(svg_text(x, up.start + 17, words, "tick", anchor="middle"))
    return "".join(parts)


def _labels(x_label: str, y_label: str) -> str:
    middle = (TOP + HEIGHT - BOTTOM) / 2
    below = svg_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, "label", anchor="middle")
    return below + svg_text(14, middle, y_label, "label", anchor="middle", turned=-90)


def _band(one: Series, across: Axis, up: Axis) -> str:
    points = [point for point in one.points if not up.is_log or point.low > 0]
    if len(points) < 2 or all(point.low == point.high for point in points):
        return ""
    upper = [(across.place(point.x), up.place(point.high)) for point in points]
    lower = [(across.place(point.x), up.place(point.low)) for point in reversed(points)]
    return svg_path([*upper, *lower], f"band s{one.variant % SERIES}", closed=True)


def _curve(one: Series, across: Axis, up: Axis) -> str:
    points = [(across.place(point.x), up.place(point.y)) for point in one.points if not up.is_log or point.y > 0]
    dots = (
        "".join(svg_dot(x, y, f"dot {color_class(one.variant)}", radius=2.2) for x, y in points)
        if len(points) < 25
        else ""
    )
    return svg_path(points, f"curve {color_class(one.variant)}") + dots


def _legend(entries: Sequence[tuple[str, int]], *, top: float) -> tuple[str, float]:
    """The legend in as many lines as it needs, and its height."""
    parts, x, y = [], LEFT, top + 10
    for label, variant in entries:
        name = shorten(label, 32)
        width = 30 + width_of(name) + 18
        if x + width > WIDTH and x > LEFT:
            x, y = LEFT, y + LEGEND_LINE
        parts.append(svg_line(x, y - 4, x + 22, y - 4, f"curve {color_class(variant)}"))
        parts.append(svg_text(x + 28, y, name, "label"))
        x += width
    return "".join(parts), y - top + 10 if entries else 0.0


def mean_and_band(x: float, values: Sequence[float]) -> CurvePoint:
    """The mean, and one standard deviation to each side as its band; the band of a single value has no height."""
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else 0.0
    return CurvePoint(x, mean, mean - sd, mean + sd)
