"""How do all choices together lead to the score? Each cell a line through its value on every axis."""

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report.comparisons import Comparison, score
from s2s_jax.sweep.report.line_chart import color
from s2s_jax.sweep.report.svg import Figure, axis_of, dot, line, path, shorten, text, tick_text

HEIGHT, TOP, BOTTOM, COLUMN = 320.0, 40.0, 24.0, 170.0


def parallel(judged: Comparison) -> Figure | None:
    """None where there is one axis only, or no score."""
    study, tested = judged.study, judged.tested
    scored = [(row, score(cell, tested)) for row in judged.rows for cell in row.done]
    known = [(row, value) for row, value in scored if value is not None]
    if len(study.axes) < 2 or not known:
        return None
    names = [*judged.others, study.compare]
    up = axis_of([value for _, value in known], start=HEIGHT - BOTTOM, end=TOP)
    places = [70 + COLUMN * place for place in range(len(names) + 1)]
    parts = []
    for row, value in known:
        points = [(x, _height(study.axes[name], row.point[name])) for x, name in zip(places, names, strict=False)]
        parts.append(path([*points, (places[-1], up.place(value))], f"thread {color(row.variant)}"))
    for x, name in zip(places, names, strict=False):
        parts += [
            line(x, TOP, x, HEIGHT - BOTTOM, "axis"),
            text(x, TOP - 18, shorten(name, 26), "head", anchor="middle"),
        ]
        for label in study.axes[name]:
            y = _height(study.axes[name], label)
            parts += [dot(x, y, "knot"), text(x + 8, y - 6, shorten(label, 20), "label over")]
    ticks = up.ticks(6)
    parts.append(line(places[-1], TOP, places[-1], HEIGHT - BOTTOM, "axis"))
    parts.append(text(places[-1], TOP - 18, METRICS[tested].label, "head", anchor="middle"))
    parts += [text(places[-1] + 8, up.place(tick) + 4, tick_text(tick, ticks), "tick over") for tick in ticks]
    caption = f"One line a finished cell ({len(known)} of them), in the color of its {study.compare}."
    return Figure("parallel", "All choices and the score", caption, places[-1] + 90, HEIGHT, "".join(parts))


def _height(labels: tuple[str, ...], label: str) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (labels.index(label) + 0.5) / len(labels)
