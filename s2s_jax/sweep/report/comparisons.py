"""What is said of each point of the grid, and how does it differ from its baseline? A study, judged."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.result import SweepResults, TrialResult
from s2s_jax.sweep.statistics import (
    Interval,
    Spread,
    Wins,
    holm,
    interval,
    probability_of_improvement,
    redrawn,
    sign_flip,
    spread,
    what_seeds_allow,
    wins,
)
from s2s_jax.validation import one_of


class Difference(NamedTuple):
    """A row against its baseline in one metric, over the seeds that both have."""

    seeds: tuple[float, ...]  # the difference of each
    spread: Spread
    interval: Interval | None
    wins: Wins | None  # as all below, None where the metric has no better direction, or no pair
    improvement: float | None
    p: float | None = None  # of the tested metric only
    p_holm: float | None = None


class Row(NamedTuple):
    """One point of the grid: all its seeds, planned, done and failed."""

    anchor: str  # of its runs in the page
    point: dict[str, str]
    variant: int  # of its color: the baseline's is 0
    is_baseline: bool
    cells: tuple[TrialResult, ...]  # by seed
    done: tuple[TrialResult, ...]
    spreads: dict[str, Spread]
    intervals: dict[str, Interval | None]
    differences: dict[str, Difference]  # none in a baseline's row


class Comparison(NamedTuple):
    """A study and what its statistics say."""

    study: SweepResults
    rows: tuple[Row, ...]
    comparisons: int  # planned: the family that Holm corrects for
    pairs: int  # of the comparison that has most
    allows: str  # whether anything could be significant

    @property
    def tested(self) -> str:
        """The metric that the baseline is tested in."""
        return self.study.metrics[0]

    @property
    def others(self) -> tuple[str, ...]:
        """The axes that are not compared."""
        return tuple(axis for axis in self.study.axes if axis != self.study.compare)

    def groups(self) -> list[tuple[str, list[Row]]]:
        """The rows that share the values of all other axes, under the names of those; nameless without any."""

        def name(row: Row) -> str:
            return ", ".join(f"{axis} {row.point[axis]}" for axis in self.others)

        return [(key, list(rows)) for key, rows in itertools.groupby(self.rows, key=name)]


def compare(study: SweepResults) -> Comparison:
    """The rows of the table, in the order of the axes, and their differences to the baseline of their group.

    Raises:
        ValueError: the study compares what it does not have, or tests a metric that has no better direction.
    """
    _check(study)
    others = [axis for axis in study.axes if axis != study.compare]
    rows = []
    for values in itertools.product(*(study.axes[axis] for axis in others)):
        shared = dict(zip(others, values, strict=True))
        group = [_row(study, shared | {study.compare: label}) for label in study.axes[study.compare]]
        base = next(row for row in group if row.is_baseline)
        rows += [row if row.is_baseline else row._replace(differences=_differences(study, row, base)) for row in group]
    rows = [row._replace(anchor=f"runs-{place}") for place, row in enumerate(rows, 1)]
    compared = [row for row in rows if not row.is_baseline]
    tested = study.metrics[0]
    corrected = holm([row.differences[tested].p for row in compared])
    for row, p in zip(compared, corrected, strict=True):
        row.differences[tested] = row.differences[tested]._replace(p_holm=p)
    pairs = max((row.differences[tested].spread.n for row in compared), default=0)
    return Comparison(study, tuple(rows), len(compared), pairs, _allows(compared=len(compared), pairs=pairs))


def score(cell: TrialResult, metric: str) -> float | None:
    """The cell's number, where it has one that can be averaged."""
    found = cell.metrics.get(metric)
    return found if found is not None and math.isfinite(found) else None


def _check(study: SweepResults) -> None:
    one_of("compare", study.compare, study.axes)
    one_of("baseline", study.baseline, study.axes[study.compare])
    if not study.metrics:
        raise ValueError("metrics must name at least one, the tested one first, got none")
    for metric in study.metrics:
        one_of("metrics", metric, METRICS)
    if METRICS[study.metrics[0]].higher_is_better is None:
        raise ValueError(f"metrics must begin with one that has a better direction, got {study.metrics[0]!r}")


def _allows(*, compared: int, pairs: int) -> str:
    if not compared:
        return "There is nothing to compare: the axis has one value."
    return what_seeds_allow(compared, seeds=pairs)


def _row(study: SweepResults, point: dict[str, str]) -> Row:
    cells = sorted((cell for cell in study.results if cell.point == point), key=lambda cell: (cell.seed, cell.name))
    done = tuple(cell for cell in cells if cell.status == "done")
    spreads, intervals = {}, {}
    for metric in study.metrics:
        scored = [cell for cell in done if score(cell, metric) is not None]
        values = _values(scored, metric)
        spreads[metric] = spread(values)
        intervals[metric] = interval(values, _drawn(scored, metric))
    order = sorted(study.axes[study.compare], key=lambda label: label != study.baseline)
    variant = order.index(point[study.compare])
    base = point[study.compare] == study.baseline
    return Row("", point, variant, base, tuple(cells), done, spreads, intervals, {})


def _values(cells: Sequence[TrialResult], metric: str) -> np.ndarray:
    return np.array([cell.metrics[metric] for cell in cells], np.float64)


def _drawn(cells: Sequence[TrialResult], metric: str) -> np.ndarray | None:
    """The scores on draws of the sentences; None where a cell has no counts, or other sentences than the rest."""
    counts = [cell.counts[metric] for cell in cells if metric in cell.counts]
    sentences = {len(each) for each in counts}
    if not counts or len(counts) < len(cells) or len(sentences) > 1 or 0 in sentences:
        return None
    return redrawn(metric, counts)


def _differences(study: SweepResults, row: Row, base: Row) -> dict[str, Difference]:
    return {metric: _difference(row, base, metric, tested=metric == study.metrics[0]) for metric in study.metrics}


def _difference(row: Row, base: Row, metric: str, *, tested: bool) -> Difference:
    ours, theirs = ({cell.seed: cell for cell in side.done if score(cell, metric) is not None} for side in (row, base))
    both = sorted(ours.keys() & theirs.keys())
    mine, other = [ours[seed] for seed in both], [theirs[seed] for seed in both]
    gaps = _values(mine, metric) - _values(other, metric)
    all_drawn = _drawn([*mine, *other], metric)  # together, so that unlike test sets are seen
    drawn = None if all_drawn is None else all_drawn[:, : len(both)] - all_drawn[:, len(both) :]
    better = METRICS[metric].higher_is_better
    if better is None or not both:
        return Difference(tuple(gaps.tolist()), spread(gaps), interval(gaps, drawn), None, None)
    improvement = probability_of_improvement(
        _values(list(ours.values()), metric), _values(list(theirs.values()), metric), higher_is_better=better
    )
    found = wins(gaps, higher_is_better=better)
    p = sign_flip(gaps) if tested else None
    return Difference(tuple(gaps.tolist()), spread(gaps), interval(gaps, drawn), found, improvement, p)
