"""The report as one page: no script, no network, every number a link to its runs."""

from collections.abc import Iterable, Sequence
from typing import Any

from s2s_jax.sweep.report import findings
from s2s_jax.sweep.report.comparisons import Comparison, Row
from s2s_jax.sweep.report.figures import Figures, Sentence, label_of
from s2s_jax.sweep.report.forest_plot import WIDTH as STRIP_WIDTH
from s2s_jax.sweep.report.runs import runs
from s2s_jax.sweep.report.style import PAGE
from s2s_jax.sweep.report.svg import SERIES, Figure, literal
from s2s_jax.sweep.report.tables import columns


def to_html(judged: Comparison, figures: Figures) -> str:
    """The page; the same bytes for the same study."""
    sections = [
        ("results", "Results", _results(judged)),
        ("differences", "Differences", _differences(figures.differences)),
        ("learning", "Learning curves", _grid(figures.learning)),
        ("lengths", "Quality by source length", _grid(figures.lengths)),
        ("attention", "Attention", _grid(figures.attention, wide=True)),
        ("alignments", "Alignments", _gallery(figures.gallery)),
        ("choices", "All choices", _grid(figures.choices, wide=True)),
        ("settings", "Settings that differ", _settings(judged)),
        ("methods", "Methods", _paragraphs([" ".join(findings.methods(judged))])),
        ("runs", "Runs", runs(judged)),
    ]
    shown = [(name, title, body) for name, title, body in sections if body]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in shown)
    bodies = "".join(f'<section id="{name}"><h2>{title}</h2>{body}</section>' for name, title, body in shown)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{literal(judged.study.name)}</title>'
        f"<style>{PAGE}</style></head><body>\n"
        f"{_header(judged)}<nav>{links}</nav></header>\n<main>{bodies}</main>\n"
        "<footer></footer></body></html>\n"
    )


def _header(judged: Comparison) -> str:
    study = judged.study
    found = "".join(f'<p class="finding">{literal(each)}</p>' for each in findings.finding(judged))
    command = f"<pre><code>{literal(study.command)}</code></pre>" if study.command else ""
    return (
        f'<header><h1>{literal(study.name)}</h1><p class="claim">{literal(study.claim)}</p>{command}'
        f"<p>{literal(findings.standing(judged))}.</p>{found}"
    )


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{literal(text)}</p>" for text in texts)


def _results(judged: Comparison) -> str:
    table = columns(judged)
    heads = "".join(
        f'<th scope="col"{_kind(column.are_words)} title="{literal(column.meaning)}">{literal(column.head)}</th>'
        for column in table
    )
    first_of_groups = {rows[0].anchor for _, rows in judged.groups()}
    body = []
    for place, row in enumerate(judged.rows):
        cells = []
        for number, column in enumerate(table):
            tag = "th" if column.are_words else "td"
            key = _key(row) if column.head == judged.study.compare and column.are_words else ""
            text = _number(column.texts[place], are_words=column.are_words)
            text = f"<strong>{text}</strong>" if place in column.strong else text
            scope = ' scope="row"' if number == 0 else ""
            link = f'<a href="#{row.anchor}">{key}{text}</a>' if column.texts[place] else ""
            cells.append(f"<{tag}{scope}{_kind(column.are_words)}>{link}</{tag}>")
        group = ' class="group"' if row.anchor in first_of_groups else ""
        body.append(f"<tr{group}>{''.join(cells)}</tr>")
    one = "" if judged.others else " one"
    meanings = "".join(f"<dt>{literal(c.head)}</dt><dd>{literal(c.meaning)}</dd>" for c in table if c.meaning)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Results">'
        f'<table class="main{one}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        f'<details class="note"><summary>What the columns say</summary><dl>{meanings}</dl></details>'
    )


def _number(text: str, *, are_words: bool) -> str:
    """A number, and below it in small what it comes with: a deviation, an interval, failed runs, ties."""
    if are_words:
        return f"<bdi>{literal(text)}</bdi>"
    at = min(
        (place for place in (text.find(" ±"), text.find(" ["), text.find(", "), text.find(" (")) if place > 0),
        default=len(text),
    )
    small = text[at:].removeprefix(",").strip()
    return literal(text[:at]) + (f"<small>{literal(small)}</small>" if small else "")


def _kind(are_words: bool) -> str:
    return ' class="w"' if are_words else ""


def _key(row: Row) -> str:
    return f'<span class="key s{row.variant % SERIES}"></span>'


def _differences(shown: Sequence[Figure]) -> str:
    if not shown:
        return ""
    rest = _grid(shown[1:], wide=True)
    more = f"<details><summary>The other metrics, not tested</summary>{rest}</details>" if rest else ""
    return _grid(shown[:1], wide=True) + more


def _grid(shown: Sequence[Figure], *, wide: bool = False) -> str:
    if not shown:
        return ""
    return f'<div class="figures{" wide" if wide else ""}">{"".join(map(_figure, shown))}</div>'


def _figure(figure: Figure) -> str:
    kind = "strip" if figure.width == STRIP_WIDTH else "chart"
    return (
        f'<figure class="{kind}" id="{figure.name}"><div class="scroll">{figure.svg()}</div>'
        f"<figcaption><b>{literal(figure.title)}.</b> {literal(figure.caption)}</figcaption></figure>"
    )


def _gallery(gallery: Sequence[Sentence]) -> str:
    return "".join(_sentence(sentence) for sentence in gallery)


def _sentence(sentence: Sentence) -> str:
    source = f'<h3><bdi dir="auto">{literal(sentence.shown.source)}</bdi></h3>'
    references = " / ".join(f'<bdi dir="auto">{literal(line)}</bdi>' for line in sentence.shown.references)
    maps = "".join(
        f'<figure id="{each.name}"><figcaption><b><bdi>{literal(each.title)}</bdi></b><br>'
        f'<bdi dir="auto">{literal(each.caption)}</bdi></figcaption><div class="scroll">{each.svg()}</div></figure>'
        for each in sentence.maps
    )
    return f'{source}<p class="note">wanted: {references}</p><div class="maps">{maps}</div>'


def _settings(judged: Comparison) -> str:
    """The settings in which finished or planned cells differ, the seed left out."""
    cells = [cell for row in judged.rows for cell in row.cells if cell.settings]
    names = sorted({name for cell in cells for name in cell.settings} - {"seed"})
    differing = [name for name in names if len({repr(cell.settings.get(name)) for cell in cells}) > 1]
    if not differing:
        return ""
    head = "".join(f'<th class="w" scope="col"><code>{literal(name)}</code></th>' for name in differing)
    body = "".join(
        f'<tr><th class="w" scope="row"><bdi>{literal(label_of(judged, row))}</bdi></th>'
        + "".join(f'<td class="w"><code>{literal(_setting(row, name))}</code></td>' for name in differing)
        + "</tr>"
        for row in judged.rows
    )
    return (
        f'<div class="scroll"><table><thead><tr><th class="w" scope="col">point</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        '<p class="note">All other settings are the same in every run, but the seed.</p>'
    )


def _setting(row: Row, name: str) -> str:
    values: list[Any] = []
    for cell in row.cells:
        if cell.settings and cell.settings.get(name) not in values:
            values.append(cell.settings.get(name))
    return " or ".join(map(str, values)) if values else "–"
