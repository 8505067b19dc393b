"""Translations behind each bucket of source length: some sentences, and what each variant made of them."""

from collections.abc import Iterator

import numpy as np

from s2s_jax.evaluate.metrics import value
from s2s_jax.sweep.report.comparisons import Comparison, PointSummary
from s2s_jax.sweep.report.figures import bucket_names, length_edges
from s2s_jax.sweep.report.svg import escape_text
from s2s_jax.sweep.results import SampleTranslation

MOST_PER_BUCKET = 4


def examples_section(comparison: Comparison) -> str:
    """One foldable part per bucket of the charts of source length; empty where no sentence is known."""
    edges = length_edges(comparison)
    first = next((trial for row in comparison.rows for trial in row.done if trial.samples), None)
    if first is None or len(edges) < 2:
        return ""
    buckets = np.searchsorted(edges[1:], first.lengths)
    parts = []
    for bucket, name in enumerate(bucket_names(edges)):
        indices = [index for index in first.samples if buckets[index] == bucket][:MOST_PER_BUCKET]
        shown = "".join(_example(comparison, index, first.samples[index]) for index in indices)
        if shown:
            parts.append(f"<details><summary>{name} source tokens</summary>{shown}</details>")
    return f'<div class="examples">{"".join(parts)}</div>' if parts else ""


def _example(comparison: Comparison, index: int, sample: SampleTranslation) -> str:
    """One sentence; variants whose first seed wrote the same stand together."""
    lines = [("source", sample.source), *(("reference", line) for line in sample.references)]
    entries = [f"<dt>{name}</dt><dd><bdi dir=auto>{escape_text(text)}</bdi></dd>" for name, text in lines]
    by_text: dict[str, list[PointSummary]] = {}
    for row in comparison.rows:
        found = next((trial.samples[index] for trial in row.done if index in trial.samples), None)
        if found is not None and found.source == sample.source:
            by_text.setdefault(found.text, []).append(row)
    for text, rows in by_text.items():
        names = ", ".join(f"<bdi>{escape_text(comparison.label(row))}</bdi>{_right(row, index)}" for row in rows)
        mark = "<b>=</b> " if text in sample.references else ""
        entries.append(f"<dt>{mark}{names}</dt><dd><bdi dir=auto>{escape_text(text) or '∅'}</bdi></dd>")
    return f"<dl>{''.join(entries)}</dl>"


def _right(row: PointSummary, index: int) -> str:
    """How many seeds wrote a reference, such as ` 7/10`."""
    found = list(_matches(row, index))
    return f"&#8239;{sum(found)}/{len(found)}" if len(found) > 1 else ""


def _matches(row: PointSummary, index: int) -> Iterator[bool]:
    for trial in row.done:
        if "exact_match" in trial.counts and index < len(trial.counts["exact_match"]):
            yield value("exact_match", trial.counts["exact_match"][index]) == 1.0
