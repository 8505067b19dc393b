"""Where does the report of a study stand? Its files, written anew from nothing but the study."""

from pathlib import Path

from s2s_jax.sweep.report.comparisons import compare
from s2s_jax.sweep.report.figures import figures
from s2s_jax.sweep.report.html import to_html
from s2s_jax.sweep.report.markdown_latex import to_latex, to_markdown
from s2s_jax.sweep.report.style import STANDALONE
from s2s_jax.sweep.report.tables import to_csv
from s2s_jax.sweep.result import SweepResults


def write_report(study: SweepResults, folder: Path) -> Path:
    """Writes report.html, report.md, table.csv, table.tex and figures/*.svg into the folder; returns the page.

    The same study gives the same bytes. Pictures of an earlier report are removed.

    Raises:
        ValueError: the study compares what it does not have, or tests a metric that has no better direction.
    """
    judged = compare(study)
    drawn = figures(judged)
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    for old in pictures.glob("*.svg"):
        old.unlink()
    for figure in drawn.all():
        _write(pictures / f"{figure.name}.svg", figure.svg(STANDALONE) + "\n")
    _write(folder / "report.md", to_markdown(judged, drawn))
    _write(folder / "table.csv", to_csv(judged))
    _write(folder / "table.tex", to_latex(judged))
    return _write(folder / "report.html", to_html(judged, drawn))


def _write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "backslashreplace"))  # a lone surrogate in a name must not stop the report
    return path
