"""Which pictures does a study have? Those for which it has numbers, each drawn from the judged rows."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from s2s_jax.evaluate.metrics import METRICS, value
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison, Row, score
from s2s_jax.sweep.report.forest_plot import Strip, strips
from s2s_jax.sweep.report.heatmap import attends, heat_map
from s2s_jax.sweep.report.line_chart import Point, Series, curves, is_wide, middle_and_band
from s2s_jax.sweep.report.parallel import parallel
from s2s_jax.sweep.report.svg import Figure
from s2s_jax.sweep.result import ExamplePrediction

BUCKETS = 6  # of source length, of about as many sources each
SENTENCES = 4  # in the gallery
ATTENTION = ("attention_entropy", "aer")


class Sentence(NamedTuple):
    """One sentence of the gallery and a map of each variant that attends."""

    shown: ExamplePrediction
    maps: tuple[Figure, ...]


class Figures(NamedTuple):
    """All pictures of a report, by the section they stand in; a section without any is empty."""

    differences: tuple[Figure, ...]
    learning: tuple[Figure, ...]
    lengths: tuple[Figure, ...]
    attention: tuple[Figure, ...]
    choices: tuple[Figure, ...]
    gallery: tuple[Sentence, ...]

    def all(self) -> list[Figure]:
        """Every picture, in the order of the page."""
        maps = [each for sentence in self.gallery for each in sentence.maps]
        return [*self.differences, *self.learning, *self.lengths, *self.attention, *self.choices, *maps]


def figures(judged: Comparison) -> Figures:
    """Every picture that the study has numbers for."""
    choices = parallel(judged)
    return Figures(
        tuple(_differences(judged)),
        tuple(_learning(judged)),
        tuple(_lengths(judged)),
        tuple(_attention(judged)),
        (choices,) if choices else (),
        tuple(_gallery(judged)),
    )


def label_of(judged: Comparison, row: Row) -> str:
    """The row by its compared value first, then the others."""
    return ", ".join([row.point[judged.study.compare], *(f"{axis} {row.point[axis]}" for axis in judged.others)])


def _differences(judged: Comparison) -> Iterator[Figure]:
    for metric in judged.study.metrics:
        known = [(row, row.differences[metric]) for row in judged.rows if metric in row.differences]
        known = [(row, gap) for row, gap in known if gap.spread.mean is not None]
        if not known:
            continue
        decimals = numbers.decimals_for(gap.spread.sd for _, gap in known)
        rows = []
        for row, gap in known:
            mean = gap.spread.mean or 0.0
            low, high = gap.interval[:2] if gap.interval else (mean, mean)
            words = f"{numbers.signed(mean, decimals)} {numbers.range_of(low, high, decimals) if gap.interval else ''}"
            rows.append(Strip(label_of(judged, row), row.variant, gap.seeds, mean, low, high, words.strip()))
        metric_label, better = METRICS[metric].label, METRICS[metric].higher_is_better
        way = {True: ", right of 0 is better", False: ", left of 0 is better", None: ""}[better]
        x_label = f"{metric_label}: difference to {judged.study.baseline}{way}"
        tested = "The tested metric" if metric == judged.tested else "Not tested"
        caption = f"{tested}. Square: mean paired difference; line: its 95 % interval; circles: seeds."
        yield strips(f"difference-{metric}", metric_label, caption, rows, x_label=x_label, zero=True)


def _learning(judged: Comparison) -> Iterator[Figure]:
    names = sorted({name for row in judged.rows for cell in row.done for name in cell.curves})
    for name in names:
        for place, (group, rows) in enumerate(judged.groups(), 1):
            series = [Series(row.point[judged.study.compare], row.variant, _curve(row, name)) for row in rows]
            series = [one for one in series if one.points]
            if not series:
                continue
            xs = [point.x for one in series for point in one.points]
            ys = [point.y for one in series for point in one.points]
            title = f"{name}{f' – {group}' if group else ''}"
            caption = "Mean over seeds and one standard deviation, at the steps that all seeds of a variant reached."
            log_x, log_y = is_wide(xs, ratio=100), is_wide(ys, ratio=50)
            yield curves(
                f"learning-{_file(name)}-{place}",
                title,
                caption,
                series,
                x_label="step",
                y_label=f"validation {name}",
                log_x=log_x,
                log_y=log_y,
            )


def _curve(row: Row, name: str) -> list[Point]:
    seeds = [dict(cell.curves[name]) for cell in row.done if cell.curves.get(name)]
    if not seeds:
        return []
    shared = sorted(set.intersection(*(set(seed) for seed in seeds)))
    values = [(step, [seed[step] for seed in seeds]) for step in shared]
    return [middle_and_band(step, found) for step, found in values if all(map(math.isfinite, found))]


def _lengths(judged: Comparison) -> Iterator[Figure]:
    metric = judged.tested
    for place, (group, rows) in enumerate(judged.groups(), 1):
        cells = [cell for row in rows for cell in row.done if _has_lengths(cell, metric)]
        edges = _edges(np.concatenate([cell.lengths for cell in cells])) if cells else []
        if len(edges) < 2:
            continue
        series = [Series(row.point[judged.study.compare], row.variant, _by_length(row, metric, edges)) for row in rows]
        series = [one for one in series if one.points]
        lows = [1 + edge for edge in [min(int(cell.lengths.min()) for cell in cells) - 1, *edges]]
        names = [str(low) if low == high else f"{low}–{high}" for low, high in zip(lows, edges, strict=False)]
        label = METRICS[metric].label
        caption = "Test sources of each length, in buckets of about as many; band: one standard deviation over seeds."
        yield curves(
            f"length-{place}",
            f"{label}{f' – {group}' if group else ''}",
            caption,
            series,
            x_label="source tokens",
            y_label=label,
            x_names=names,
        )


def _has_lengths(cell, metric: str) -> bool:
    return metric in cell.counts and 0 < len(cell.lengths) == len(cell.counts[metric])


def _edges(lengths: np.ndarray) -> list[int]:
    """The longest length of each bucket."""
    shares = np.arange(1, BUCKETS + 1) / BUCKETS
    return sorted(set(np.quantile(lengths, shares, method="inverted_cdf").astype(int).tolist()))


def _by_length(row: Row, metric: str, edges: Sequence[int]) -> list[Point]:
    points = []
    for place in range(len(edges)):
        found = []
        for cell in row.done:
            if _has_lengths(cell, metric):
                inside = np.searchsorted(edges, cell.lengths) == place
                found.append(value(metric, cell.counts[metric][inside].sum(0)) if inside.any() else None)
        known = [each for each in found if each is not None and math.isfinite(each)]
        if known:
            points.append(middle_and_band(place, known))
    return points


def _attention(judged: Comparison) -> Iterator[Figure]:
    for metric in ATTENTION:
        rows = []
        decimals = numbers.decimals_for(_sd(row, metric) for row in judged.rows)
        for row in judged.rows:
            seeds = [each for each in (score(cell, metric) for cell in row.done) if each is not None]
            if seeds:
                mean, sd = float(np.mean(seeds)), _sd(row, metric)
                words = numbers.with_spread(mean, sd, decimals)
                rows.append(Strip(label_of(judged, row), row.variant, seeds, mean, mean, mean, words))
        if rows:
            label = METRICS[metric].label
            caption = "Circles: seeds; square: their mean."
            yield strips(f"attention-{metric}", label, caption, rows, x_label=label, zero=False)


def _sd(row: Row, metric: str) -> float | None:
    seeds = [each for each in (score(cell, metric) for cell in row.done) if each is not None]
    return float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None


def _gallery(judged: Comparison) -> Iterator[Sentence]:
    """The first sentences, of the smallest finished seed of each variant."""
    cells = [(row, row.done[0]) for row in judged.rows if row.done]
    for number in range(min(SENTENCES, max((len(cell.gallery) for _, cell in cells), default=0))):
        maps = []
        for place, (row, cell) in enumerate(cells, 1):
            if number < len(cell.gallery) and attends(cell.gallery[number]):
                title = f"{label_of(judged, row)}, seed {cell.seed}"
                maps.append(heat_map(f"alignment-{number + 1}-{place}", title, cell.gallery[number]))
        if maps:
            shown = next(cell.gallery[number] for _, cell in cells if number < len(cell.gallery))
            yield Sentence(shown, tuple(maps))


def _file(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
