"""The figures of a report: each one that the results have numbers for, drawn from the compared rows."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from s2s_jax.evaluate.metrics import METRICS, value
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison, PointSummary, finite_metric
from s2s_jax.sweep.report.forest_plot import ForestRow, forest_plot
from s2s_jax.sweep.report.heatmap import alignment_heatmap, has_alignment
from s2s_jax.sweep.report.line_chart import CurvePoint, Series, is_wide, line_chart, mean_and_band
from s2s_jax.sweep.report.parallel import parallel_coordinates
from s2s_jax.sweep.report.svg import Figure
from s2s_jax.sweep.results import ExamplePrediction, TrialResult

LENGTH_BUCKETS = 6  # of source length, with similar numbers of sources
GALLERY_SENTENCES = 4
ATTENTION_INPUTS = {"alignments", "link_counts"}  # inputs of metrics that describe the attention


class GalleryExample(NamedTuple):
    """One sentence of the gallery, with one heat map per variant that has an alignment."""

    example: ExamplePrediction
    maps: tuple[Figure, ...]


class Figures(NamedTuple):
    """All figures of a report by section; a section without figures is empty."""

    differences: tuple[Figure, ...]
    learning: tuple[Figure, ...]
    lengths: tuple[Figure, ...]
    attention: tuple[Figure, ...]
    choices: tuple[Figure, ...]
    gallery: tuple[GalleryExample, ...]

    def all(self) -> list[Figure]:
        """Every figure, in the order of the page."""
        maps = [figure for example in self.gallery for figure in example.maps]
        return [*self.differences, *self.learning, *self.lengths, *self.attention, *self.choices, *maps]


def draw_figures(comparison: Comparison) -> Figures:
    """Every figure that the results have numbers for."""
    choices = parallel_coordinates(comparison)
    return Figures(
        tuple(_differences(comparison)),
        tuple(_learning_curves(comparison)),
        tuple(_lengths(comparison)),
        tuple(_attention(comparison)),
        (choices,) if choices else (),
        tuple(_gallery(comparison)),
    )


def point_label(comparison: Comparison, row: PointSummary) -> str:
    """The labels of a point: that of the compared axis first, then each other axis with its name."""
    rest = (f"{axis} {row.point[axis]}" for axis in comparison.other_axes)
    return ", ".join([row.point[comparison.results.compare], *rest])


def _differences(comparison: Comparison) -> Iterator[Figure]:
    for metric in comparison.results.metrics:
        known = [(row, row.differences[metric]) for row in comparison.rows if metric in row.differences]
        known = [(row, gap) for row, gap in known if gap.spread.mean is not None]
        if not known:
            continue
        decimals = numbers.decimals_for(gap.spread.sd for _, gap in known)
        rows = []
        for row, gap in known:
            mean = gap.spread.mean or 0.0
            low, high = gap.interval[:2] if gap.interval else (mean, mean)
            ends = numbers.range_of(low, high, decimals) if gap.interval else ""
            label, number = point_label(comparison, row), f"{numbers.signed(mean, decimals)} {ends}".strip()
            rows.append(ForestRow(label, row.variant, list(gap.seeds.values()), mean, low, high, number))
        label, higher_is_better = METRICS[metric].title, METRICS[metric].higher_is_better
        direction = {True: ", right of 0 is better", False: ", left of 0 is better", None: ""}[higher_is_better]
        x_label = f"{label}: difference from {comparison.results.baseline}{direction}"
        tested = "The tested metric" if metric == comparison.tested_metric else "Not tested"
        caption = f"{tested}. Square: mean paired difference; line: its 95 % interval; circles: seeds."
        yield forest_plot(f"difference-{metric}", label, caption, rows, x_label=x_label, zero=True)


def _learning_curves(comparison: Comparison) -> Iterator[Figure]:
    names = sorted({name for row in comparison.rows for trial in row.done for name in trial.curves})
    for name in names:
        for number, (group, rows) in enumerate(comparison.groups(), 1):
            series = [Series(row.point[comparison.results.compare], row.variant, _curve(row, name)) for row in rows]
            series = [each for each in series if each.points]
            if not series:
                continue
            xs = [point.x for each in series for point in each.points]
            ys = [point.y for each in series for point in each.points]
            yield line_chart(
                f"learning-{_file_name(name)}-{number}",
                f"{name}{f' – {group}' if group else ''}",
                "Mean over seeds and one standard deviation, at the steps that all seeds of a variant reached.",
                series,
                x_label="step",
                y_label=f"validation {name}",
                log_x=is_wide(xs, ratio=100),
                log_y=is_wide(ys, ratio=50),
            )


def _curve(row: PointSummary, name: str) -> list[CurvePoint]:
    seeds = [dict(trial.curves[name]) for trial in row.done if trial.curves.get(name)]
    if not seeds:
        return []
    shared = sorted(set.intersection(*(set(seed) for seed in seeds)))
    by_step = [(step, [seed[step] for seed in seeds]) for step in shared]
    return [mean_and_band(step, values) for step, values in by_step if all(map(math.isfinite, values))]


def _lengths(comparison: Comparison) -> Iterator[Figure]:
    metric = comparison.tested_metric
    label = METRICS[metric].title
    for number, (group, rows) in enumerate(comparison.groups(), 1):
        trials = [trial for row in rows for trial in row.done if _has_lengths(trial, metric)]
        edges = _edges(np.concatenate([trial.lengths for trial in trials])) if trials else []
        if len(edges) < 2:
            continue
        compare = comparison.results.compare
        series = [Series(row.point[compare], row.variant, _by_length(row, metric, edges)) for row in rows]
        lows = [1 + edge for edge in [min(int(trial.lengths.min()) for trial in trials) - 1, *edges]]
        names = [str(low) if low == high else f"{low}–{high}" for low, high in zip(lows, edges, strict=False)]
        yield line_chart(
            f"length-{number}",
            f"{label}{f' – {group}' if group else ''}",
            "By source length, in buckets of similar numbers of sources; band: one standard deviation over seeds.",
            [each for each in series if each.points],
            x_label="source tokens",
            y_label=label,
            x_names=names,
        )


def _has_lengths(trial: TrialResult, metric: str) -> bool:
    return metric in trial.counts and 0 < len(trial.lengths) == len(trial.counts[metric])


def _edges(lengths: np.ndarray) -> list[int]:
    """The longest length of each bucket."""
    fractions = np.arange(1, LENGTH_BUCKETS + 1) / LENGTH_BUCKETS
    return sorted(set(np.quantile(lengths, fractions, method="inverted_cdf").astype(int).tolist()))


def _by_length(row: PointSummary, metric: str, edges: Sequence[int]) -> list[CurvePoint]:
    points = []
    for bucket in range(len(edges)):
        values = []
        for trial in row.done:
            if _has_lengths(trial, metric):
                members = np.searchsorted(edges, trial.lengths) == bucket
                values.append(value(metric, trial.counts[metric][members].sum(0)) if members.any() else None)
        known = [each for each in values if each is not None and math.isfinite(each)]
        if known:
            points.append(mean_and_band(bucket, known))
    return points


def _attention(comparison: Comparison) -> Iterator[Figure]:
    for metric in (name for name, metric in METRICS.items() if ATTENTION_INPUTS.intersection(metric.needs)):
        values = [(row, _finite_values(row, metric)) for row in comparison.rows]
        decimals = numbers.decimals_for(_sd(seeds) for _, seeds in values)
        rows = []
        for row, seeds in values:
            if seeds:
                mean = float(np.mean(seeds))
                number = numbers.with_spread(mean, _sd(seeds), decimals)
                rows.append(ForestRow(point_label(comparison, row), row.variant, seeds, mean, mean, mean, number))
        if rows:
            label = METRICS[metric].title
            caption = "Circles: seeds; square: their mean."
            yield forest_plot(f"attention-{metric}", label, caption, rows, x_label=label, zero=False)


def _finite_values(row: PointSummary, metric: str) -> list[float]:
    values = (finite_metric(trial, metric) for trial in row.done)
    return [value for value in values if value is not None]


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _gallery(comparison: Comparison) -> Iterator[GalleryExample]:
    """The first sentences, as translated with the smallest finished seed of each variant."""
    trials = [(row, row.done[0]) for row in comparison.rows if row.done]
    for index in range(min(GALLERY_SENTENCES, max((len(trial.gallery) for _, trial in trials), default=0))):
        maps = []
        for number, (row, trial) in enumerate(trials, 1):
            if index < len(trial.gallery) and has_alignment(trial.gallery[index]):
                title = f"{point_label(comparison, row)}, seed {trial.seed}"
                maps.append(alignment_heatmap(f"alignment-{index + 1}-{number}", title, trial.gallery[index]))
        if maps:
            example = next(trial.gallery[index] for _, trial in trials if index < len(trial.gallery))
            yield GalleryExample(example, tuple(maps))


def _file_name(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
