"""Parallel coordinates: each trial is a line through its label on every axis, and ends at its score."""

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report.comparisons import Comparison, finite_metric
from s2s_jax.sweep.report.svg import (
    Figure,
    axis_of,
    shorten,
    svg_dot,
    svg_line,
    svg_path,
    svg_text,
    svg_variant,
    tick_text,
)

HEIGHT, TOP, BOTTOM, COLUMN = 320.0, 40.0, 24.0, 170.0


def parallel_coordinates(comparison: Comparison) -> Figure | None:
    """The figure, or None if the sweep has one axis only, or no trial has a score."""
    results, metric = comparison.results, comparison.tested_metric
    scored = [(row, finite_metric(trial, metric)) for row in comparison.rows for trial in row.done]
    known = [(row, value) for row, value in scored if value is not None]
    if len(results.axes) < 2 or not known:
        return None
    names = [*comparison.other_axes, results.compare]
    up = axis_of([value for _, value in known], start=HEIGHT - BOTTOM, end=TOP)
    columns = [70 + COLUMN * index for index in range(len(names) + 1)]
    parts = []
    for row, value in sorted(known, key=lambda each: -each[0].variant):
        points = [(x, _height(results.axes[name], row.point[name])) for x, name in zip(columns, names, strict=False)]
        thread = svg_path([*points, (columns[-1], up.place(value))], "thread")
        parts.append(svg_variant(row.variant, row.number, row.point[results.compare], thread))
    for x, name in zip(columns, names, strict=False):
        parts += [
            svg_line(x, TOP, x, HEIGHT - BOTTOM, "axis"),
            svg_text(x, TOP - 18, shorten(name, 26), "head", anchor="middle"),
        ]
        for label in results.axes[name]:
            y = _height(results.axes[name], label)
            parts += [svg_dot(x, y, "knot"), svg_text(x + 8, y - 6, shorten(label, 20), "label over")]
    ticks = up.ticks(6)
    parts.append(svg_line(columns[-1], TOP, columns[-1], HEIGHT - BOTTOM, "axis"))
    parts.append(svg_text(columns[-1], TOP - 18, METRICS[metric].title, "head", anchor="middle"))
    parts += [svg_text(columns[-1] + 8, up.place(tick) + 4, tick_text(tick, ticks), "tick over") for tick in ticks]
    caption = f"One line per finished trial ({len(known)} trials), in the color of its {results.compare}."
    return Figure("parallel", "All choices and the score", caption, columns[-1] + 90, HEIGHT, "".join(parts))


def _height(labels: tuple[str, ...], label: str) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (labels.index(label) + 0.5) / len(labels)
