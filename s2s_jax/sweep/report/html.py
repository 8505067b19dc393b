"""The report as one HTML page without network access; every number links to its runs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from s2s_jax.sweep.report import findings
from s2s_jax.sweep.report.comparisons import Comparison, PointSummary
from s2s_jax.sweep.report.examples import examples_section
from s2s_jax.sweep.report.figures import Facets, Figures
from s2s_jax.sweep.report.forest_plot import WIDTH as STRIP_WIDTH
from s2s_jax.sweep.report.gallery import gallery_data
from s2s_jax.sweep.report.runs import runs_section
from s2s_jax.sweep.report.style import MOST_BANDS, page_css
from s2s_jax.sweep.report.svg import LEADS, Figure, escape_text, variant_class, visible_text
from s2s_jax.sweep.report.tables import Column, table_columns

HALF = ("learning", "lengths")  # sections that stand side by side if each has one chart


def to_html(comparison: Comparison, figures: Figures, folder: Path | None = None) -> str:
    """The page; the same results give the same bytes.

    Args:
        folder: where the page will be, for its links to trials.
    """
    data = {"rows": [_row_data(comparison, row) for row in comparison.rows], **gallery_data(comparison)}
    sections = [
        ("results", "Results", _results(comparison)),
        ("differences", "Differences", _differences(figures.differences)),
        ("learning", "Learning curves", _facets(figures.learning)),
        ("lengths", "Quality by source length", _facets(figures.lengths) + examples_section(comparison)),
        ("attention", "Attention", _grid(figures.attention, wide=True)),
        ("alignments", "Alignments", _gallery(data)),
        ("choices", "All choices", _grid(figures.choices, wide=True)),
        ("settings", "Settings that differ", _settings(comparison)),
        ("methods", "Methods", _paragraphs([" ".join(findings.describe_methods(comparison))])),
        ("runs", "Runs", runs_section(comparison, folder)),
    ]
    shown = [(name, title, body) for name, title, body in sections if body]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in shown)
    half = _half(figures)
    bodies = "".join(
        f'<section id="{name}"{half if name in HALF else ""}><h2>{title}</h2>{body}</section>'
        for name, title, body in shown
    )
    variants = len(comparison.results.axes[comparison.results.compare])
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape_text(comparison.results.name)}</title>'
        f"<style>{page_css(variants)}</style></head><body{' class=many' * (variants > MOST_BANDS)}>\n"
        f"{_header(comparison)}<nav>{links}</nav></header>\n{_bar(comparison)}<main>{bodies}</main>\n"
        f'<script type="application/json" id="data">{_json(data)}</script>\n<script>{script}</script></body></html>\n'
    )


def _half(figures: Figures) -> str:
    both = [facets.figures for facets in (*figures.learning, *figures.lengths)]
    return ' class="half"' if len(both) == 2 and all(len(each) == 1 for each in both) else ""


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _row_data(comparison: Comparison, row: PointSummary) -> dict[str, Any]:
    gap = row.differences.get(comparison.tested_metric)
    words = [comparison.label(row), f"differs {gap.population}" if gap and gap.population else ""]
    known = {"number": row.number, "variant": row.variant, "label": visible_text(words[0]), "point": row.point}
    return {**known, "text": " ".join(words)}


def _header(comparison: Comparison) -> str:
    results = comparison.results
    sentences = "".join(
        f'<p class="finding">{escape_text(each)}</p>' for each in findings.describe_findings(comparison)
    )
    command = f"<pre><code>{escape_text(results.command)}</code></pre>" if results.command else ""
    return (
        f'<header><h1>{escape_text(results.name)}</h1><p class="claim">{escape_text(results.claim)}</p>{command}'
        f"<p>{escape_text(findings.describe_status(comparison))}.</p>{sentences}"
    )


def _bar(comparison: Comparison) -> str:
    """The legend, which names the color of each variant in all figures, and what can be chosen."""
    results = comparison.results
    variants = dict(sorted({row.variant: row.point[results.compare] for row in comparison.rows}.items()))
    chips = "".join(
        f'<button class="{variant_class(variant)}" data-v="{variant}" aria-pressed="false">'
        f'<span class="key"></span><bdi>{escape_text(label)}</bdi></button>'
        for variant, label in variants.items()
    )
    counts = [count for count in (3, 5, LEADS - 1, 15) if count < len(variants) - 1] + [len(variants)]
    best = "".join(
        f'<option value="{count}"{" selected" * (count == LEADS - 1)}>{_best(count, len(variants))}</option>'
        for count in counts
    )
    axes = "".join(
        f"<label>{escape_text(axis)} {_select(axis, results.axes[axis])}</label>" for axis in comparison.other_axes
    )
    ways = "".join(
        f'<option value="{escape_text(chr(10).join(by))}">{escape_text(" and ".join(by))}</option>'
        for by in comparison.groupings
    )
    by = f'<label>group by <select id="by">{ways}</select></label>' if comparison.other_axes else ""
    return (
        '<div id="bar"><div class="controls"><input id="filter" type="search" placeholder="filter" aria-label="filter">'
        f'<span id="count"></span><label>color <select id="best">{best}</select></label>{axes}{by}'
        f'<button id="reset">reset</button></div><div id="legend" aria-label="legend">{chips}</div></div>'
    )


def _best(count: int, variants: int) -> str:
    return "all" if count >= variants else f"the best {count}"


def _select(axis: str, labels: Sequence[str]) -> str:
    options = "".join(f'<option value="{escape_text(label)}">{escape_text(label)}</option>' for label in labels)
    return f'<select data-axis="{escape_text(axis)}"><option value="">all</option>{options}</select>'


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{escape_text(text)}</p>" for text in texts)


def _head(column: Column) -> str:
    """A heading that sorts: the first click gives what is best read first, words from a, numbers from the largest."""
    first = "ascending" if column.are_words or column.head.startswith("p, ") else "descending"
    title = f'title="{escape_text(column.meaning)}" aria-sort="none" data-first="{first}"'
    return f'<th scope="col"{_kind(column.are_words)} {title}><button>{escape_text(column.head)}</button></th>'


def _results(comparison: Comparison) -> str:
    table = table_columns(comparison)
    body = []
    for index, row in enumerate(comparison.rows):
        cells = [_cell(comparison, row, column, index, first=number == 0) for number, column in enumerate(table)]
        place = f'data-r="{row.number}" data-v="{row.variant}"'
        body.append(f'<tr class="{variant_class(row.variant)}" {place}>{"".join(cells)}</tr>')
    meanings = "".join(f"<dt>{escape_text(c.head)}</dt><dd>{escape_text(c.meaning)}</dd>" for c in table if c.meaning)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Results">'
        f'<table class="main"><thead><tr>{"".join(map(_head, table))}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        f'<details class="note"><summary>What the columns mean</summary><dl>{meanings}</dl></details>'
    )


def _cell(comparison: Comparison, row: PointSummary, column: Column, index: int, *, first: bool) -> str:
    tag = "th" if column.are_words else "td"
    key = '<span class="key"></span>' if column.head == comparison.results.compare and column.are_words else ""
    text = _number(column.texts[index], are_words=column.are_words)
    text = f"<strong>{text}</strong>" if index in column.strong else text
    scope = ' scope="row"' if first else ""
    number = column.keys[index] if column.keys else None
    sort = "" if column.are_words else f' data-k="{"" if number is None else repr(float(number))}"'
    link = f'<a href="#runs-{row.number}">{key}{text}</a>' if column.texts[index] else ""
    return f"<{tag}{scope}{_kind(column.are_words)}{sort}>{link}</{tag}>"


def _number(text: str, *, are_words: bool) -> str:
    """A number, and below it in small type its deviation, interval, failed runs or ties."""
    if are_words:
        return f"<bdi>{escape_text(text)}</bdi>"
    split = min(
        (start for start in (text.find(" ±"), text.find(" ["), text.find(", "), text.find(" (")) if start > 0),
        default=len(text),
    )
    small = text[split:].removeprefix(",").strip()
    return escape_text(text[:split]) + (f"<small>{escape_text(small)}</small>" if small else "")


def _kind(are_words: bool) -> str:
    return ' class="w"' if are_words else ""


def _differences(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    rest = _grid(figures[1:], wide=True)
    more = f"<details><summary>The other metrics, not tested</summary>{rest}</details>" if rest else ""
    return _grid(figures[:1], wide=True) + more


def _facets(ways: Sequence[Facets]) -> str:
    """The charts for each way to group the rows; the page shows one of them."""
    return "".join(
        f'<div class="facets" data-by="{escape_text(chr(10).join(facets.by))}"{" hidden" * (number > 0)}>'
        f"{_grid(facets.figures)}</div>"
        for number, facets in enumerate(ways)
    )


def _grid(figures: Sequence[Figure], *, wide: bool = False) -> str:
    if not figures:
        return ""
    return f'<div class="figures{" wide" if wide else ""}">{"".join(map(_figure, figures))}</div>'


def _figure(figure: Figure) -> str:
    kind = "strip" if figure.width == STRIP_WIDTH else "chart"
    return (
        f'<figure class="{kind}" id="{figure.name}"><div class="scroll">{figure.svg()}</div>'
        f"<figcaption><b>{escape_text(figure.title)}.</b> {escape_text(figure.caption)}</figcaption></figure>"
    )


def _gallery(data: dict[str, Any]) -> str:
    """What can be chosen; the page draws the maps."""
    if not data["maps"]:
        return ""
    sources = [escape_text(each["source"]) for each in data["sentences"]]
    sentences = "".join(f'<option value="{index}">{source}</option>' for index, source in enumerate(sources))
    seeds = sorted({each["seed"] for each in data["maps"]})
    options = "".join(f'<option value="{seed}">{seed}</option>' for seed in seeds)
    heads = max(len(each["weights"]) for each in data["maps"])
    names = ["mean", *map(str, range(1, heads))]
    head = "".join(f'<option value="{index}">{name}</option>' for index, name in enumerate(names))
    return (
        f'<div class="picks"><label>sentence <select id="sentence">{sentences}</select></label>'
        f'<label>seed <select id="seed"><option value="">first</option>{options}<option>all</option></select></label>'
        + (f'<label>head <select id="head">{head}</select></label>' if heads > 1 else "")
        + "<span>of the colored variants, or of those chosen in the legend</span></div>"
        '<p class="note">reference: <bdi dir="auto" id="reference"></bdi></p><div id="maps"></div>'
        '<p class="note" id="nomaps" hidden>None of these variants has an alignment of this sentence.</p>'
    )


def _settings(comparison: Comparison) -> str:
    """The settings, except the seed, in which trials differ."""
    trials = [trial for row in comparison.rows for trial in row.trials if trial.settings]
    names = sorted({name for trial in trials for name in trial.settings} - {"seed"})
    differing = [name for name in names if len({repr(trial.settings.get(name)) for trial in trials}) > 1]
    if not differing:
        return ""
    head = "".join(f'<th class="w" scope="col"><code>{escape_text(name)}</code></th>' for name in differing)
    body = "".join(
        f'<tr data-r="{row.number}"><th class="w" scope="row"><bdi>{escape_text(comparison.label(row))}</bdi></th>'
        + "".join(f'<td class="w"><code>{escape_text(_setting(row, name))}</code></td>' for name in differing)
        + "</tr>"
        for row in comparison.rows
    )
    return (
        "<details><summary>By point</summary>"
        f'<div class="scroll"><table><thead><tr><th class="w" scope="col">point</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details>"
        f'<p class="note">{escape_text(", ".join(differing))}. '
        "All others, except the seed, are the same in every run.</p>"
    )


def _setting(row: PointSummary, name: str) -> str:
    values: list[Any] = []
    for trial in row.trials:
        if trial.settings and trial.settings.get(name) not in values:
            values.append(trial.settings.get(name))
    return " or ".join(map(str, values)) if values else "–"
