"""What stands in the main table? Its columns once, for the page, Markdown, LaTeX; and every number in full as CSV."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison, Row
from s2s_jax.sweep.statistics import LEVEL


class Column(NamedTuple):
    """A heading, what it means, and the text of each row; words stand left, numbers right."""

    head: str
    meaning: str
    texts: list[str]
    are_words: bool = False
    strong: frozenset[int] = frozenset()  # rows to point out


def columns(judged: Comparison) -> list[Column]:
    """The main table."""
    study, rows = judged.study, judged.rows
    names = [*judged.others, study.compare]
    points = [Column(name, "", [row.point[name] for row in rows], are_words=True) for name in names]
    return [
        *points,
        Column("seeds", "runs done of runs planned, and what became of the others", [seeds_text(row) for row in rows]),
        *(_metric(judged, metric) for metric in study.metrics),
        *_comparison(judged),
        *_budget(judged),
    ]


def seeds_text(row: Row) -> str:
    """3 of 5, 1 failed, 1 waiting."""
    counts = Counter(cell.status for cell in row.cells)
    rest = [f"{counts[status]} {status}" for status in ("failed", "diverged", "running", "waiting") if counts[status]]
    return ", ".join([f"{counts['done']} of {len(row.cells)}", *rest])


def _metric(judged: Comparison, metric: str) -> Column:
    decimals = numbers.decimals_for(row.spreads[metric].sd for row in judged.rows)
    texts = []
    for row in judged.rows:
        mean, sd, n = row.spreads[metric]
        fewer = f" ({n} of {len(row.done)})" if 0 < n < len(row.done) else ""
        texts.append(numbers.with_spread(mean, sd, decimals) + fewer)
    way = {True: "higher is better", False: "lower is better", None: "neither way is better"}
    meaning = f"mean ± standard deviation over seeds; {way[METRICS[metric].higher_is_better]}"
    return Column(METRICS[metric].label, meaning, texts)


def _comparison(judged: Comparison) -> list[Column]:
    if not judged.comparisons:
        return []
    gaps = [row.differences.get(judged.tested) for row in judged.rows]
    decimals = numbers.decimals_for(gap.spread.sd for gap in gaps if gap)
    label, base = METRICS[judged.tested].label, judged.study.baseline
    differences, ps, wins, better = [], [], [], []
    for gap in gaps:
        if gap is None or gap.spread.mean is None:
            differences.append("baseline" if gap is None else numbers.MISSING)
            for texts in (ps, wins, better):
                texts.append("" if gap is None else numbers.MISSING)
            continue
        ends = f" {numbers.range_of(gap.interval.low, gap.interval.high, decimals)}" if gap.interval else ""
        differences.append(numbers.signed(gap.spread.mean, decimals) + ends)
        ps.append(numbers.p_value(gap.p_holm))
        tied = f", {gap.wins.tied} tied" if gap.wins and gap.wins.tied else ""
        wins.append(f"{gap.wins.won} of {gap.wins.pairs}{tied}" if gap.wins else numbers.MISSING)
        better.append(numbers.plain(gap.improvement, 2))
    sure = frozenset(i for i, gap in enumerate(gaps) if gap and gap.p_holm is not None and gap.p_holm <= LEVEL)
    return [
        Column(
            f"Δ {label} [95{numbers.THIN}%]",
            f"mean paired difference to {base} and its 95 % interval",
            differences,
            strong=sure,
        ),
        Column("p (Holm)", "exact sign-flip test over seeds, corrected; bold at 0.05", ps, strong=sure),
        Column("wins", "paired seeds that are strictly better", wins),
        Column("P(better)", "probability of improvement over all pairs of seeds", better),
    ]


def _budget(judged: Comparison) -> list[Column]:
    means = [budget(row) for row in judged.rows]
    return [
        Column("parameters", "", [numbers.compact(each[0]) for each in means]),
        Column("tokens", "target tokens trained on, mean of a run", [numbers.compact(each[1]) for each in means]),
        Column("tokens/s", "target tokens a second of training", [numbers.compact(each[2]) for each in means]),
        Column("seconds", "of training, mean of a run", [numbers.whole(each[3]) for each in means]),
    ]


def budget(row: Row) -> tuple[float | None, float | None, float | None, float | None]:
    """Parameters, target tokens, target tokens a second and seconds: means over the finished runs."""
    parameters, tokens, seconds = (
        numbers.mean_of(getattr(cell, name) for cell in row.done) for name in ("parameters", "tokens", "seconds")
    )
    speed = tokens / seconds if tokens is not None and seconds else None
    return parameters, tokens, speed, seconds


def to_csv(judged: Comparison) -> str:
    """Every number of every row in full; an empty field is a number that there is not."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_head(judged))
    for row in judged.rows:
        writer.writerow([_full(value) for value in _record(judged, row)])
    return out.getvalue()


def _head(judged: Comparison) -> list[str]:
    study = judged.study
    parts = ("mean", "sd", "n", "low", "high", "difference", "difference_low", "difference_high")
    head = [*judged.others, study.compare, "runs", "done", "failed", "diverged"]
    head += [f"{metric}_{part}" for metric in study.metrics for part in parts]
    head += ["pairs", "p", "p_holm", "won", "tied", "improvement"]
    return [*head, "parameters", "tokens", "tokens_per_second", "seconds"]


def _record(judged: Comparison, row: Row) -> list:
    names = [*judged.others, judged.study.compare]
    statuses = Counter(cell.status for cell in row.cells)
    counts = [len(row.cells), *(statuses[status] for status in ("done", "failed", "diverged"))]
    values: list = [*(row.point[name] for name in names), *counts]
    for metric in judged.study.metrics:
        ends, gap = row.intervals[metric], row.differences.get(metric)
        gap_ends = gap.interval if gap else None
        values += [*row.spreads[metric], *(ends[:2] if ends else (None, None)), gap.spread.mean if gap else None]
        values += gap_ends[:2] if gap_ends else (None, None)
    gap = row.differences.get(judged.tested)
    won, tied, pairs = gap.wins if gap and gap.wins else (None, None, 0 if gap else None)
    values += [pairs, gap.p, gap.p_holm, won, tied, gap.improvement] if gap else [None] * 6
    return [*values, *budget(row)]


def _full(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def texts_by_row(table: Sequence[Column]) -> list[list[str]]:
    """The table, row by row."""
    return [list(texts) for texts in zip(*(column.texts for column in table), strict=True)]
