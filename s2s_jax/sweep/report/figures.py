"""The figures of a report: each one that the results have numbers for, drawn from the compared rows."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from s2s_jax.evaluate.metrics import METRICS, value
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison, PointSummary, finite_metric
from s2s_jax.sweep.report.forest_plot import ForestRow, forest_plot
from s2s_jax.sweep.report.line_chart import CurvePoint, Series, is_wide, line_chart, mean_and_band
from s2s_jax.sweep.report.parallel import parallel_coordinates
from s2s_jax.sweep.report.svg import Figure
from s2s_jax.sweep.results import TrialResult

LENGTH_BUCKETS = 6  # of source length, with similar numbers of sources
MOST_FACETS = 24  # groups of a grouping; with more of them it is not offered
ATTENTION_INPUTS = {"alignments", "link_counts"}  # inputs of metrics that describe the attention


class Facets(NamedTuple):
    """The same charts, one per group of rows, for one way to group them."""

    by: tuple[str, ...]  # axes
    figures: tuple[Figure, ...]


class Figures(NamedTuple):
    """The charts of a report by section; a section without charts is empty."""

    differences: tuple[Figure, ...]
    learning: tuple[Facets, ...]
    lengths: tuple[Facets, ...]
    attention: tuple[Figure, ...]
    choices: tuple[Figure, ...]

    def all(self) -> list[Figure]:
        """Every chart of the first grouping, in the order of the page: those of the paper."""
        first = [figure for facets in (self.learning, self.lengths) for figure in (facets[0].figures if facets else ())]
        return [*self.differences, *first, *self.attention, *self.choices]


def draw_figures(comparison: Comparison) -> Figures:
    """Every chart that the results have numbers for."""
    choices = parallel_coordinates(comparison)
    return Figures(
        tuple(_differences(comparison)),
        _facets(comparison, _learning_curves),
        _facets(comparison, _lengths),
        tuple(_attention(comparison)),
        (choices,) if choices else (),
    )


def _facets(
    comparison: Comparison, draw: Callable[[Comparison, tuple[str, ...], str], Iterator[Figure]]
) -> tuple[Facets, ...]:
    groupings = [by for by in comparison.groupings if len(comparison.groups(by)) <= MOST_FACETS]
    names = ["", *(f"by-{number}-" for number in range(1, len(groupings)))]  # of the files and the parts of the page
    drawn = [Facets(by, tuple(draw(comparison, by, name))) for by, name in zip(groupings, names, strict=True)]
    return tuple(facets for facets in drawn if facets.figures)


def _differences(comparison: Comparison) -> Iterator[Figure]:
    for metric in comparison.results.metrics:
        known = [(row, row.differences[metric]) for row in comparison.rows if metric in row.differences]
        known = [(row, gap) for row, gap in known if gap.spread.mean is not None]
        if not known:
            continue
        decimals = numbers.decimals_for(gap.spread.sd for _, gap in known)
        rows = []
        sign = -1 if METRICS[metric].higher_is_better else 1
        for row, gap in sorted(known, key=lambda each: sign * (each[1].spread.mean or 0.0)):
            mean = gap.spread.mean or 0.0
            low, high = gap.interval[:2] if gap.interval else (mean, mean)
            ends = numbers.range_of(low, high, decimals) if gap.interval else ""
            number = f"{numbers.signed(mean, decimals)}{numbers.STARS[gap.population]} {ends}".strip()
            seeds = list(gap.seeds.values())
            rows.append(ForestRow(comparison.label(row), row.variant, row.number, seeds, mean, low, high, number))
        label, higher_is_better = METRICS[metric].title, METRICS[metric].higher_is_better
        direction = {True: ", right of 0 is better", False: ", left of 0 is better", None: ""}[higher_is_better]
        x_label = f"{label}: difference from {comparison.results.baseline}{direction}"
        tested = "The tested metric" if metric == comparison.tested_metric else "Not tested"
        caption = f"{tested}. Square: mean paired difference; line: its 95 % interval; circles: seeds."
        if metric == comparison.tested_metric:
            caption += " * holds on this test set, ** on new sentences too."
        yield forest_plot(f"difference-{metric}", label, caption, rows, x_label=x_label, zero=True)


def _learning_curves(comparison: Comparison, by: tuple[str, ...], prefix: str) -> Iterator[Figure]:
    names = sorted({name for row in comparison.rows for trial in row.done for name in trial.curves})
    for name in names:
        for number, (group, rows) in enumerate(comparison.groups(by), 1):
            series = [
                Series(comparison.label(row, without=by), row.variant, row.number, _curve(row, name)) for row in rows
            ]
            series = [each for each in series if each.points]
            if not series:
                continue
            xs = [point.x for each in series for point in each.points]
            ys = [point.y for each in series for point in each.points]
            yield line_chart(
                f"learning-{_file_name(name)}-{prefix}{number}",
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


def _lengths(comparison: Comparison, by: tuple[str, ...], prefix: str) -> Iterator[Figure]:
    metric = comparison.tested_metric
    label = METRICS[metric].title
    edges = length_edges(comparison)
    if len(edges) < 3:
        return
    for number, (group, rows) in enumerate(comparison.groups(by), 1):
        series = [
            Series(comparison.label(row, without=by), row.variant, row.number, _by_length(row, metric, edges[1:]))
            for row in rows
        ]
        if not any(each.points for each in series):
            continue
        yield line_chart(
            f"length-{prefix}{number}",
            f"{label}{f' – {group}' if group else ''}",
            "By source length, in buckets of similar numbers of sources; band: one standard deviation over seeds.",
            [each for each in series if each.points],
            x_label="source tokens",
            y_label=label,
            x_names=bucket_names(edges),
        )


def _has_lengths(trial: TrialResult, metric: str) -> bool:
    return metric in trial.counts and 0 < len(trial.lengths) == len(trial.counts[metric])


def length_edges(comparison: Comparison) -> list[int]:
    """The length before the shortest source, then the longest of each bucket; empty where no length is known."""
    trials = [trial for row in comparison.rows for trial in row.done if _has_lengths(trial, comparison.tested_metric)]
    if not trials:
        return []
    lengths = np.concatenate([trial.lengths for trial in trials])
    fractions = np.arange(1, LENGTH_BUCKETS + 1) / LENGTH_BUCKETS
    edges = sorted(set(np.quantile(lengths, fractions, method="inverted_cdf").astype(int).tolist()))
    return [int(lengths.min()) - 1, *edges]


def bucket_names(edges: Sequence[int]) -> list[str]:
    """The range of each bucket, such as `4–7`."""
    ranges = [(low + 1, high) for low, high in itertools.pairwise(edges)]
    return [str(low) if low == high else f"{low}–{high}" for low, high in ranges]


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
        for row, seeds in sorted(values, key=lambda each: float(np.mean(each[1])) if each[1] else 0.0):
            if seeds:
                mean = float(np.mean(seeds))
                number = numbers.with_spread(mean, _sd(seeds), decimals)
                rows.append(ForestRow(comparison.label(row), row.variant, row.number, seeds, mean, mean, mean, number))
        if rows:
            label = METRICS[metric].title
            caption = "Circles: seeds; square: their mean."
            yield forest_plot(f"attention-{metric}", label, caption, rows, x_label=label, zero=False)


def _finite_values(row: PointSummary, metric: str) -> list[float]:
    values = (finite_metric(trial, metric) for trial in row.done)
    return [value for value in values if value is not None]


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _file_name(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
