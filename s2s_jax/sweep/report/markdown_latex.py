"""The report where there is no browser: Markdown, and the table for a paper in LaTeX."""

from collections.abc import Sequence

from s2s_jax.sweep.report import findings, numbers
from s2s_jax.sweep.report.comparisons import Comparison
from s2s_jax.sweep.report.figures import Figures, label_of
from s2s_jax.sweep.report.svg import Figure
from s2s_jax.sweep.report.tables import Column, columns, texts_by_row

LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    numbers.MINUS: "$-$",
    numbers.THIN: r"\,",
    numbers.MISSING: "--",
    "∞": r"$\infty$",
}


def latex(text: str) -> str:
    """The text with every sign that LaTeX would act on spelled out."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def to_latex(judged: Comparison) -> str:
    """The main table, for the package booktabs."""
    table = columns(judged)
    kinds = "".join("l" if column.are_words else "r" for column in table)
    lines = [f"% {findings.standing(judged)}; {judged.allows}", f"\\begin{{tabular}}{{{kinds}}}", "\\toprule"]
    lines += [_latex_line([column.head for column in table]), "\\midrule"]
    for place, texts in enumerate(texts_by_row(table)):
        strong = [place in column.strong for column in table]
        lines.append(_latex_line(texts, strong))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _latex_line(texts: Sequence[str], strong: Sequence[bool] = ()) -> str:
    cells = [latex(text) for text in texts]
    marked = [
        f"\\textbf{{{cell}}}" if bold else cell
        for cell, bold in zip(cells, strong or [False] * len(cells), strict=True)
    ]
    return " & ".join(marked) + r" \\"


def markdown(text: str) -> str:
    """The text with every sign that Markdown or HTML would act on made literal, on one line."""
    spelled = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|#~":
        spelled = spelled.replace(sign, f"\\{sign}")
    return " ".join(spelled.split())


def to_markdown(judged: Comparison, figures: Figures) -> str:
    """The whole report but its examples, with links to the pictures."""
    study = judged.study
    parts = [
        f"# {markdown(study.name)}",
        markdown(study.claim),
        _code(study.command),
        f"**{findings.standing(judged)}.**",
    ]
    parts += [" ".join(map(markdown, findings.finding(judged))), "## Results", _table(columns(judged))]
    for title, section in (
        ("Differences", figures.differences),
        ("Learning curves", figures.learning),
        ("Quality by source length", figures.lengths),
        ("Attention", figures.attention),
        ("All choices", figures.choices),
    ):
        parts += [f"## {title}", *map(_picture, section)] if section else []
    for number, sentence in enumerate(figures.gallery, 1):
        parts += ["## Alignments"] if number == 1 else []
        parts += [f"### {markdown(sentence.shown.source)}", *map(_picture, sentence.maps)]
    parts += ["## Methods", " ".join(map(markdown, findings.methods(judged))), "## Runs", _runs(judged)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _code(command: str) -> str:
    return "\n".join(f"    {line}" for line in command.splitlines())


def _picture(figure: Figure) -> str:
    return f"![{markdown(figure.title)}](figures/{figure.name}.svg)\n\n{markdown(figure.caption)}"


def _table(table: Sequence[Column]) -> str:
    lines = [[markdown(column.head) for column in table], ["---" if column.are_words else "---:" for column in table]]
    for place, texts in enumerate(texts_by_row(table)):
        cells = zip(map(markdown, texts), table, strict=True)
        lines.append([f"**{cell}**" if place in column.strong and cell else cell for cell, column in cells])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _runs(judged: Comparison) -> str:
    lines = ["| run | point | seed | status | error |", "| --- | --- | ---: | --- | --- |"]
    for row in judged.rows:
        for cell in row.cells:
            texts = (cell.name, label_of(judged, row), str(cell.seed), cell.status, cell.error)
            lines.append(f"| {' | '.join(map(markdown, texts))} |")
    return "\n".join(lines)
