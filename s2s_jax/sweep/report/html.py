"""The report as one HTML page without scripts or network access; every number links to its runs."""

from collections.abc import Iterable, Sequence
from typing import Any

from s2s_jax.sweep.report import findings
from s2s_jax.sweep.report.comparisons import Comparison, PointSummary
from s2s_jax.sweep.report.figures import Figures, GalleryExample, point_label
from s2s_jax.sweep.report.forest_plot import WIDTH as STRIP_WIDTH
from s2s_jax.sweep.report.runs import runs_section
from s2s_jax.sweep.report.style import PAGE_CSS
from s2s_jax.sweep.report.svg import SERIES, Figure, escape_text
from s2s_jax.sweep.report.tables import Column, table_columns


def to_html(comparison: Comparison, figures: Figures) -> str:
    """The page; the same results give the same bytes."""
    sections = [
        ("results", "Results", _results(comparison)),
        ("differences", "Differences", _differences(figures.differences)),
        ("learning", "Learning curves", _grid(figures.learning)),
        ("lengths", "Quality by source length", _grid(figures.lengths)),
        ("attention", "Attention", _grid(figures.attention, wide=True)),
        ("alignments", "Alignments", _gallery(figures.gallery)),
        ("choices", "All choices", _grid(figures.choices, wide=True)),
        ("settings", "Settings that differ", _settings(comparison)),
        ("methods", "Methods", _paragraphs([" ".join(findings.describe_methods(comparison))])),
        ("runs", "Runs", runs_section(comparison)),
    ]
    shown = [(name, title, body) for name, title, body in sections if body]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in shown)
    bodies = "".join(f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, title, body in shown)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape_text(comparison.results.name)}</title>'
        f"<style>{PAGE_CSS}</style></head><body>\n"
        f"{_header(comparison)}<nav>{links}</nav></header>\n<main>{bodies}</main>\n"
        "<footer></footer></body></html>\n"
    )


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


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{escape_text(text)}</p>" for text in texts)


def _head(column: Column) -> str:
    title = f'title="{escape_text(column.meaning)}"'
    return f'<th scope="col"{_kind(column.are_words)} {title}>{escape_text(column.head)}</th>'


def _results(comparison: Comparison) -> str:
    table = table_columns(comparison)
    heads = "".join(map(_head, table))
    first_of_groups = {rows[0].anchor for _, rows in comparison.groups()}
    body = []
    for index, row in enumerate(comparison.rows):
        cells = []
        for number, column in enumerate(table):
            tag = "th" if column.are_words else "td"
            key = _key(row) if column.head == comparison.results.compare and column.are_words else ""
            text = _number(column.texts[index], are_words=column.are_words)
            text = f"<strong>{text}</strong>" if index in column.strong else text
            scope = ' scope="row"' if number == 0 else ""
            link = f'<a href="#{row.anchor}">{key}{text}</a>' if column.texts[index] else ""
            cells.append(f"<{tag}{scope}{_kind(column.are_words)}>{link}</{tag}>")
        group = ' class="group"' if row.anchor in first_of_groups else ""
        body.append(f"<tr{group}>{''.join(cells)}</tr>")
    one = "" if comparison.other_axes else " one"
    meanings = "".join(f"<dt>{escape_text(c.head)}</dt><dd>{escape_text(c.meaning)}</dd>" for c in table if c.meaning)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Results">'
        f'<table class="main{one}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        f'<details class="note"><summary>What the columns mean</summary><dl>{meanings}</dl></details>'
    )


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


def _key(row: PointSummary) -> str:
    return f'<span class="key s{row.variant % SERIES}"></span>'


def _differences(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    rest = _grid(figures[1:], wide=True)
    more = f"<details><summary>The other metrics, not tested</summary>{rest}</details>" if rest else ""
    return _grid(figures[:1], wide=True) + more


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


def _gallery(gallery: Sequence[GalleryExample]) -> str:
    return "".join(map(_gallery_example, gallery))


def _gallery_example(example: GalleryExample) -> str:
    source = f'<h3><bdi dir="auto">{escape_text(example.example.source)}</bdi></h3>'
    references = " / ".join(f'<bdi dir="auto">{escape_text(line)}</bdi>' for line in example.example.references)
    maps = "".join(
        f'<figure id="{each.name}"><figcaption><b><bdi>{escape_text(each.title)}</bdi></b><br>'
        f'<bdi dir="auto">{escape_text(each.caption)}</bdi></figcaption><div class="scroll">{each.svg()}</div></figure>'
        for each in example.maps
    )
    return f'{source}<p class="note">reference: {references}</p><div class="maps">{maps}</div>'


def _settings(comparison: Comparison) -> str:
    """The settings, except the seed, in which trials differ."""
    trials = [trial for row in comparison.rows for trial in row.trials if trial.settings]
    names = sorted({name for trial in trials for name in trial.settings} - {"seed"})
    differing = [name for name in names if len({repr(trial.settings.get(name)) for trial in trials}) > 1]
    if not differing:
        return ""
    head = "".join(f'<th class="w" scope="col"><code>{escape_text(name)}</code></th>' for name in differing)
    body = "".join(
        f'<tr><th class="w" scope="row"><bdi>{escape_text(point_label(comparison, row))}</bdi></th>'
        + "".join(f'<td class="w"><code>{escape_text(_setting(row, name))}</code></td>' for name in differing)
        + "</tr>"
        for row in comparison.rows
    )
    return (
        f'<div class="scroll"><table><thead><tr><th class="w" scope="col">point</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        '<p class="note">All other settings except the seed are the same in every run.</p>'
    )


def _setting(row: PointSummary, name: str) -> str:
    values: list[Any] = []
    for trial in row.trials:
        if trial.settings and trial.settings.get(name) not in values:
            values.append(trial.settings.get(name))
    return " or ".join(map(str, values)) if values else "–"
