"""The report as Markdown, and its main table as LaTeX."""

from collections.abc import Sequence

from s2s_jax.sweep.report import findings, numbers
from s2s_jax.sweep.report.comparisons import Comparison
from s2s_jax.sweep.report.figures import Figures
from s2s_jax.sweep.report.svg import Figure
from s2s_jax.sweep.report.tables import Column, table_columns, table_rows

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


def escape_latex(text: str) -> str:
    """The text with every character escaped that LaTeX would interpret."""
    return "".join(LATEX.get(letter, letter) for letter in text)


def to_latex(comparison: Comparison) -> str:
    """The main table as a tabular of the package booktabs."""
    table = table_columns(comparison)
    kinds = "".join("l" if column.are_words else "r" for column in table)
    lines = [
        f"% {findings.describe_status(comparison)}; {comparison.power}",
        f"\\begin{{tabular}}{{{kinds}}}",
        "\\toprule",
    ]
    lines += [_latex_line([column.head for column in table]), "\\midrule"]
    for place, texts in enumerate(table_rows(table)):
        strong = [place in column.strong for column in table]
        lines.append(_latex_line(texts, strong))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _latex_line(texts: Sequence[str], strong: Sequence[bool] = ()) -> str:
    trials = [escape_latex(text) for text in texts]
    marked = [
        f"\\textbf{{{trial}}}" if bold else trial
        for trial, bold in zip(trials, strong or [False] * len(trials), strict=True)
    ]
    return " & ".join(marked) + r" \\"


def escape_markdown(text: str) -> str:
    """The text on one line, with every character escaped that Markdown or HTML would interpret."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_[]|#~":
        escaped = escaped.replace(character, f"\\{character}")
    return " ".join(escaped.split())


def to_markdown(comparison: Comparison, figures: Figures, maps: Sequence[str] = ()) -> str:
    """The report without the example translations, with links to the figures.

    Args:
        maps: the sources of the alignments in figures/alignment-1.png and so on.
    """
    results = comparison.results
    parts = [
        f"# {escape_markdown(results.name)}",
        escape_markdown(results.claim),
        _code(results.command),
        f"**{findings.describe_status(comparison)}.**",
    ]
    parts += [
        " ".join(map(escape_markdown, findings.describe_findings(comparison))),
        "## Results",
        _table(table_columns(comparison)),
    ]
    for title, section in (
        ("Differences", figures.differences),
        ("Learning curves", figures.learning[0].figures if figures.learning else ()),
        ("Quality by source length", figures.lengths[0].figures if figures.lengths else ()),
        ("Attention", figures.attention),
        ("All choices", figures.choices),
    ):
        parts += [f"## {title}", *map(_picture, section)] if section else []
    for number, source in enumerate(maps, 1):
        parts += ["## Alignments"] if number == 1 else []
        parts.append(f"![{escape_markdown(source)}](figures/alignment-{number}.png)")
    parts += [
        "## Methods",
        " ".join(map(escape_markdown, findings.describe_methods(comparison))),
        "## Runs",
        _runs(comparison),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _code(command: str) -> str:
    return "\n".join(f"    {line}" for line in command.splitlines())


def _picture(figure: Figure) -> str:
    return f"![{escape_markdown(figure.title)}](figures/{figure.name}.svg)\n\n{escape_markdown(figure.caption)}"


def _table(table: Sequence[Column]) -> str:
    lines = [
        [escape_markdown(column.head) for column in table],
        ["---" if column.are_words else "---:" for column in table],
    ]
    for place, texts in enumerate(table_rows(table)):
        trials = zip(map(escape_markdown, texts), table, strict=True)
        lines.append([f"**{trial}**" if place in column.strong and trial else trial for trial, column in trials])
    return "\n".join(f"| {' | '.join(trials)} |" for trials in lines)


def _runs(comparison: Comparison) -> str:
    lines = ["| run | point | seed | status | error |", "| --- | --- | ---: | --- | --- |"]
    for row in comparison.rows:
        for trial in row.trials:
            texts = (trial.name, comparison.label(row), str(trial.seed), trial.status, trial.error)
            lines.append(f"| {' | '.join(map(escape_markdown, texts))} |")
    return "\n".join(lines)
