"""The comparison of a sweep's results: a summary of each point of the grid, and its difference from the baseline."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.results import SweepResults, TrialResult
from s2s_jax.sweep.significance import (
    NEW_SENTENCES,
    THIS_TEST_SET,
    describe_power,
    holds,
    holm_correction,
    max_t_test,
    sign_flip_test,
)
from s2s_jax.sweep.statistics import (
    Interval,
    Spread,
    Wins,
    confidence_interval,
    count_wins,
    interval_test,
    probability_of_improvement,
    resample,
    spread,
)
from s2s_jax.validation import one_of


class Difference(NamedTuple):
    """A point's difference from its baseline in one metric, over the seeds that both have."""

    seeds: dict[int, float]  # seed -> difference
    spread: Spread
    interval: Interval | None  # over seeds, and over sentences too where they can be paired
    seeds_interval: Interval | None  # over seeds alone: for this test set
    wins: Wins | None  # this and all below: None if the metric has no better direction, or there is no pair
    improvement: float | None
    p: float | None = None  # for this test set, not corrected; this and all below: of the tested metric only
    p_max_t: float | None = None  # for this test set, corrected for all comparisons
    p_holm: float | None = None  # the same by Holm's correction
    p_sentences: float | None = None  # for new sentences too, with Holm's correction

    @property
    def population(self) -> str | None:
        """The widest population for which the difference holds; None where it may be chance."""
        if not holds(self.p_max_t, self.seeds_interval):
            return None
        covers = self.interval is not None and self.interval.over == "seeds and sentences"
        return NEW_SENTENCES if covers and holds(self.p_sentences, self.interval) else THIS_TEST_SET


class PointSummary(NamedTuple):
    """One point of the grid over its seeds: planned, done and failed trials."""

    number: int  # its place in the table, from 1
    point: dict[str, str]
    variant: int  # index of its color: 0 is the baseline's, then from the best mean to the worst
    is_baseline: bool
    trials: tuple[TrialResult, ...]  # by seed
    done: tuple[TrialResult, ...]
    spreads: dict[str, Spread]
    intervals: dict[str, Interval | None]
    differences: dict[str, Difference]  # empty for a baseline


class Comparison(NamedTuple):
    """The results of a sweep and their statistics."""

    results: SweepResults
    rows: tuple[PointSummary, ...]
    comparisons: int  # planned: the family that the correction covers
    pairs: int  # largest number of paired seeds of a comparison
    power: str  # whether any difference could be significant

    @property
    def tested_metric(self) -> str:
        """The metric in which differences from the baseline are tested."""
        return self.results.metrics[0]

    @property
    def other_axes(self) -> tuple[str, ...]:
        """The axes that are not compared."""
        return tuple(axis for axis in self.results.axes if axis != self.results.compare)

    def label(self, row: PointSummary, *, without: Sequence[str] = ()) -> str:
        """The labels of a point: that of the compared axis first, then each other axis with its name."""
        compare = self.results.compare
        first = [] if compare in without else [row.point[compare]]
        rest = (f"{axis} {row.point[axis]}" for axis in self.other_axes if axis not in without)
        return ", ".join([*first, *rest]) or row.point[compare]

    def groups(self, by: Sequence[str] | None = None) -> list[tuple[str, list[PointSummary]]]:
        """The rows that share the labels of some axes (all but the compared one), with those labels as their name."""
        axes = self.other_axes if by is None else by
        found: dict[str, list[PointSummary]] = {}
        for row in self.rows:
            found.setdefault(", ".join(f"{axis} {row.point[axis]}" for axis in axes), []).append(row)
        return list(found.items())

    @property
    def groupings(self) -> list[tuple[str, ...]]:
        """The ways to group the rows: by all axes but the compared one, and by each axis alone."""
        singles = ((axis,) for axis in self.results.axes)
        return list(dict.fromkeys([self.other_axes, *(singles if self.other_axes else ())]))


def compare_to_baseline(results: SweepResults) -> Comparison:
    """Summarize each point, in the order of the axes, and compare it to the baseline of its group.

    Raises:
        ValueError: the compared axis or the baseline does not exist, or the tested metric has no better direction.
    """
    _check(results)
    other_axes = [axis for axis in results.axes if axis != results.compare]
    rows = []
    for values in itertools.product(*(results.axes[axis] for axis in other_axes)):
        shared = dict(zip(other_axes, values, strict=True))
        group = [_summarize(results, shared | {results.compare: label}) for label in results.axes[results.compare]]
        group = [row for row in group if row.trials or not results.trials]  # others were not kept in the grid
        base = next((row for row in group if row.is_baseline), None)
        rows += [
            row if row.is_baseline or not base else row._replace(differences=_differences(results, row, base))
            for row in group
        ]
    places = _places(results, rows)
    rows = [
        row._replace(number=number, variant=places[row.point[results.compare]]) for number, row in enumerate(rows, 1)
    ]
    compared = [row for row in rows if row.differences]
    _correct(compared, results.metrics[0])
    pairs = max((row.differences[results.metrics[0]].spread.n for row in compared), default=0)
    return Comparison(results, tuple(rows), len(compared), pairs, _power(compared=len(compared), pairs=pairs))


def _places(results: SweepResults, rows: Sequence[PointSummary]) -> dict[str, int]:
    """The place of each compared label: the baseline, then by the mean of the tested metric, the best first."""
    tested = results.metrics[0]
    means: dict[str, list[float]] = {}
    for row in rows:
        if (mean := row.spreads[tested].mean) is not None:
            means.setdefault(row.point[results.compare], []).append(mean)
    sign = -1 if METRICS[tested].higher_is_better else 1

    def key(label: str) -> tuple[bool, bool, float]:
        known = means.get(label, [])
        return label != results.baseline, not known, sign * math.fsum(known) / max(1, len(known))

    return {label: place for place, label in enumerate(sorted(results.axes[results.compare], key=key))}


def _correct(compared: Sequence[PointSummary], tested: str) -> None:
    """Add the p values of all comparisons, one family, to their differences."""
    gaps = [row.differences[tested] for row in compared]
    seeds = sorted({seed for gap in gaps for seed in gap.seeds})
    matrix = np.array([[gap.seeds.get(seed, math.nan) for seed in seeds] for gap in gaps]).reshape(
        len(gaps), len(seeds)
    )
    by_max_t = max_t_test(matrix)
    by_holm = holm_correction([gap.p for gap in gaps])
    of_sentences = holm_correction([gap.p_sentences for gap in gaps])
    for row, gap, max_t, holm, sentences in zip(compared, gaps, by_max_t, by_holm, of_sentences, strict=True):
        row.differences[tested] = gap._replace(p_max_t=max_t, p_holm=holm, p_sentences=sentences)


def finite_metric(trial: TrialResult, metric: str) -> float | None:
    """The trial's value of a metric, if it is a finite number."""
    value = trial.metrics.get(metric)
    return value if value is not None and math.isfinite(value) else None


def _check(results: SweepResults) -> None:
    one_of("compare", results.compare, results.axes)
    one_of("baseline", results.baseline, results.axes[results.compare])
    if not results.metrics:
        raise ValueError("metrics must name at least one, the tested one first, got none")
    for metric in results.metrics:
        one_of("metrics", metric, METRICS)
    if METRICS[results.metrics[0]].higher_is_better is None:
        raise ValueError(f"metrics must begin with one that has a better direction, got {results.metrics[0]!r}")


def _power(*, compared: int, pairs: int) -> str:
    if not compared:
        return "There is nothing to compare: the axis has one value."
    return describe_power(compared, seeds=pairs)


def _summarize(results: SweepResults, point: dict[str, str]) -> PointSummary:
    trials = sorted(
        (trial for trial in results.trials if trial.point == point), key=lambda trial: (trial.seed, trial.name)
    )
    done = tuple(trial for trial in trials if trial.status == "done")
    spreads, intervals = {}, {}
    for metric in results.metrics:
        scored = [trial for trial in done if finite_metric(trial, metric) is not None]
        values = _values(scored, metric)
        spreads[metric] = spread(values)
        intervals[metric] = confidence_interval(values, _resampled(scored, metric))
    is_baseline = point[results.compare] == results.baseline
    return PointSummary(0, point, 0, is_baseline, tuple(trials), done, spreads, intervals, {})


def _values(trials: Sequence[TrialResult], metric: str) -> np.ndarray:
    return np.array([trial.metrics[metric] for trial in trials], np.float64)


def _resampled(trials: Sequence[TrialResult], metric: str) -> np.ndarray | None:
    """The metric on resamples of the sentences; None if a trial has no counts, or was scored on other sentences."""
    counts = [trial.counts[metric] for trial in trials if metric in trial.counts]
    sentences, test_sets = {len(each) for each in counts}, {trial.test_set for trial in trials}
    if not counts or len(counts) < len(trials) or len(sentences) > 1 or len(test_sets) > 1 or 0 in sentences:
        return None
    return resample(metric, counts)


def _differences(results: SweepResults, row: PointSummary, base: PointSummary) -> dict[str, Difference]:
    tested = results.metrics[0]
    return {metric: _difference(row, base, metric, is_tested=metric == tested) for metric in results.metrics}


def _difference(row: PointSummary, base: PointSummary, metric: str, *, is_tested: bool) -> Difference:
    by_seed, base_by_seed = (
        {trial.seed: trial for trial in side.done if finite_metric(trial, metric) is not None} for side in (row, base)
    )
    shared = sorted(by_seed.keys() & base_by_seed.keys())
    trials, base_trials = [by_seed[seed] for seed in shared], [base_by_seed[seed] for seed in shared]
    gaps = _values(trials, metric) - _values(base_trials, metric)
    both = _resampled([*trials, *base_trials], metric)  # together, so that different test sets are noticed
    resampled = None if both is None else both[:, : len(shared)] - both[:, len(shared) :]
    found = Difference(
        seeds=dict(zip(shared, gaps.tolist(), strict=True)),
        spread=spread(gaps),
        interval=confidence_interval(gaps, resampled),
        seeds_interval=confidence_interval(gaps),
        wins=None,
        improvement=None,
    )
    higher_is_better = METRICS[metric].higher_is_better
    if higher_is_better is None or not shared:
        return found
    return found._replace(
        wins=count_wins(gaps, higher_is_better=higher_is_better),
        improvement=probability_of_improvement(
            _values(list(by_seed.values()), metric),
            _values(list(base_by_seed.values()), metric),
            higher_is_better=higher_is_better,
        ),
        p=sign_flip_test(gaps) if is_tested else None,
        p_sentences=interval_test(gaps, resampled) if is_tested and resampled is not None else None,
    )
