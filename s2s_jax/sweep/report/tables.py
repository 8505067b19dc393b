"""The columns of the main table, for the page, Markdown and LaTeX; and every number in full precision as CSV."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison, PointSummary
from s2s_jax.sweep.significance import NEW_SENTENCES


class Column(NamedTuple):
    """A heading, its meaning, and the text of each row; words are aligned left, numbers right."""

    head: str
    meaning: str
    texts: list[str]
    are_words: bool = False
    strong: frozenset[int] = frozenset()  # rows in bold
    keys: Sequence[float | None] = ()  # what numbers are sorted by, one per row


def table_columns(comparison: Comparison) -> list[Column]:
    """The columns of the main table."""
    results, rows = comparison.results, comparison.rows
    names = [*comparison.other_axes, results.compare]
    points = [Column(name, "", [row.point[name] for row in rows], are_words=True) for name in names]
    return [
        *points,
        Column(
            "seeds",
            "runs done of runs planned, and the status of all others",
            [seeds_text(row) for row in rows],
            keys=[len(row.done) for row in rows],
        ),
        *(_metric(comparison, metric) for metric in results.metrics),
        *_comparison(comparison),
        *_budget(comparison),
    ]


def seeds_text(row: PointSummary) -> str:
    """The numbers of runs by status, such as `3 of 5, 1 failed, 1 waiting`."""
    counts = Counter(trial.status for trial in row.trials)
    rest = [f"{counts[status]} {status}" for status in ("failed", "diverged", "running", "waiting") if counts[status]]
    return ", ".join([f"{counts['done']} of {len(row.trials)}", *rest])


def _metric(comparison: Comparison, metric: str) -> Column:
    rows = comparison.rows
    decimals = numbers.decimals_for(row.spreads[metric].sd for row in rows)
    texts = []
    for row in rows:
        mean, sd, n = row.spreads[metric]
        fewer = f" ({n} of {len(row.done)})" if 0 < n < len(row.done) else ""
        texts.append(numbers.with_spread(mean, sd, decimals) + fewer)
    direction = {True: "higher is better", False: "lower is better", None: "no direction is better"}
    meaning = f"mean ± standard deviation over seeds; {direction[METRICS[metric].higher_is_better]}"
    return Column(METRICS[metric].title, meaning, texts, keys=[row.spreads[metric].mean for row in rows])


def _comparison(comparison: Comparison) -> list[Column]:
    if not comparison.comparisons:
        return []
    gaps = [row.differences.get(comparison.tested_metric) for row in comparison.rows]
    decimals = numbers.decimals_for(gap.spread.sd for gap in gaps if gap)
    label, base = METRICS[comparison.tested_metric].title, comparison.results.baseline
    texts: list[tuple[str, ...]] = []
    for gap in gaps:
        if gap is None or gap.spread.mean is None:
            texts.append(("baseline", "", "", "", "") if gap is None else (numbers.MISSING,) * 5)
            continue
        ends = f" {numbers.range_of(gap.interval.low, gap.interval.high, decimals)}" if gap.interval else ""
        tied = f", {gap.wins.tied} tied" if gap.wins and gap.wins.tied else ""
        texts.append(
            (
                numbers.signed(gap.spread.mean, decimals) + numbers.STARS[gap.population] + ends,
                numbers.p_value(gap.p_max_t),
                numbers.p_value(gap.p_sentences),
                f"{gap.wins.won} of {gap.wins.pairs}{tied}" if gap.wins else numbers.MISSING,
                numbers.plain(gap.improvement, 2),
            )
        )
    differences, here, beyond, wins, better = map(list, zip(*texts, strict=True))
    significant = frozenset(index for index, gap in enumerate(gaps) if gap and gap.population)
    widest = frozenset(index for index, gap in enumerate(gaps) if gap and gap.population == NEW_SENTENCES)
    return [
        Column(
            f"Δ {label} [95{numbers.THIN}%]",
            f"mean paired difference from {base} and its 95 % interval over seeds and sentences; * holds on this test "
            "set, ** on new sentences too",
            differences,
            strong=significant,
            keys=[0.0 if gap is None else gap.spread.mean for gap in gaps],
        ),
        Column(
            "p, this test set",
            "other seeds, on these sentences: sign flips of whole seeds, max-T; bold where it holds",
            here,
            strong=significant,
            keys=[gap and gap.p_max_t for gap in gaps],
        ),
        Column(
            "p, new sentences too",
            "other seeds and other sentences like these: the interval's p, Holm's correction; bold where it holds",
            beyond,
            strong=widest,
            keys=[gap and gap.p_sentences for gap in gaps],
        ),
        Column(
            "wins",
            "paired seeds that are strictly better",
            wins,
            keys=[gap and gap.wins and gap.wins.won for gap in gaps],
        ),
        Column(
            "P(better)",
            "probability of improvement over all pairs of seeds",
            better,
            keys=[gap and gap.improvement for gap in gaps],
        ),
    ]


def _budget(comparison: Comparison) -> list[Column]:
    means = [mean_budget(row) for row in comparison.rows]
    return [
        Column(head, meaning, [show(each[place]) for each in means], keys=[each[place] for each in means])
        for place, (head, meaning, show) in enumerate(
            (
                ("parameters", "", numbers.compact),
                ("tokens", "target tokens trained on, mean over runs", numbers.compact),
                ("tokens/s", "target tokens per second of training", numbers.compact),
                ("seconds", "of training, mean over runs", numbers.whole),
            )
        )
    ]


def mean_budget(row: PointSummary) -> tuple[float | None, float | None, float | None, float | None]:
    """Parameters, target tokens, target tokens per second and seconds: means over the finished runs."""
    parameters, tokens, seconds = (
        numbers.mean_of(getattr(trial, name) for trial in row.done) for name in ("parameters", "tokens", "seconds")
    )
    speed = tokens / seconds if tokens is not None and seconds else None
    return parameters, tokens, speed, seconds


def to_csv(comparison: Comparison) -> str:
    """Every number of every row in full precision; a missing number is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_head(comparison))
    for row in comparison.rows:
        writer.writerow([_full(value) for value in _record(comparison, row)])
    return out.getvalue()


def _head(comparison: Comparison) -> list[str]:
    results = comparison.results
    parts = ("mean", "sd", "n", "low", "high", "difference", "difference_low", "difference_high")
    head = [*comparison.other_axes, results.compare, "runs", "done", "failed", "diverged"]
    head += [f"{metric}_{part}" for metric in results.metrics for part in parts]
    head += ["this_test_set_low", "this_test_set_high", "pairs", "p", "p_max_t", "p_holm", "p_new_sentences"]
    head += ["holds", "won", "tied", "improvement"]
    return [*head, "parameters", "tokens", "tokens_per_second", "seconds"]


def _record(comparison: Comparison, row: PointSummary) -> list:
    names = [*comparison.other_axes, comparison.results.compare]
    statuses = Counter(trial.status for trial in row.trials)
    counts = [len(row.trials), *(statuses[status] for status in ("done", "failed", "diverged"))]
    values: list = [*(row.point[name] for name in names), *counts]
    for metric in comparison.results.metrics:
        ends, gap = row.intervals[metric], row.differences.get(metric)
        gap_ends = gap.interval if gap else None
        values += [*row.spreads[metric], *(ends[:2] if ends else (None, None)), gap.spread.mean if gap else None]
        values += gap_ends[:2] if gap_ends else (None, None)
    gap = row.differences.get(comparison.tested_metric)
    if gap is None:
        return [*values, *[None] * 11, *mean_budget(row)]
    won, tied, pairs = gap.wins or (None, None, 0)
    values += [*(gap.seeds_interval or (None, None))[:2], pairs, gap.p, gap.p_max_t, gap.p_holm, gap.p_sentences]
    values += [gap.population, won, tied, gap.improvement]
    return [*values, *mean_budget(row)]


def _full(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def table_rows(table: Sequence[Column]) -> list[list[str]]:
    """The texts of the table, row by row."""
    return [list(texts) for texts in zip(*(column.texts for column in table), strict=True)]
