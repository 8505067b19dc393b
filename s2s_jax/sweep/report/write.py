"""Writes the files of a report, from the results of a sweep alone."""

from pathlib import Path

from s2s_jax.sweep.report.comparisons import compare_to_baseline
from s2s_jax.sweep.report.figures import draw_figures
from s2s_jax.sweep.report.gallery import draw_gallery
from s2s_jax.sweep.report.html import to_html
from s2s_jax.sweep.report.markdown_latex import to_latex, to_markdown
from s2s_jax.sweep.report.pdf import save_pdf
from s2s_jax.sweep.report.style import standalone_css
from s2s_jax.sweep.report.tables import to_csv
from s2s_jax.sweep.results import SweepResults


def write_report(results: SweepResults, folder: Path) -> Path:
    """Write report.html, report.md, table.csv, table.tex and figures/ into the folder; returns the page.

    The same results give the same bytes. Figures of an earlier report are removed.

    Raises:
        ValueError: the compared axis or the baseline does not exist, or the tested metric has no better direction.
    """
    comparison = compare_to_baseline(results)
    figures = draw_figures(comparison)
    figure_folder = folder / "figures"
    figure_folder.mkdir(parents=True, exist_ok=True)
    for old in (each for kind in ("svg", "pdf", "png") for each in figure_folder.glob(f"*.{kind}")):
        old.unlink()
    variants = len(results.axes[results.compare])
    style = standalone_css(variants)
    for figure in figures.all():
        _write(figure_folder / f"{figure.name}.svg", figure.svg(style) + "\n")
        save_pdf(figure, figure_folder / f"{figure.name}.pdf", variants=variants)
    maps = draw_gallery(comparison, figure_folder)
    _write(folder / "report.md", to_markdown(comparison, figures, maps))
    _write(folder / "table.csv", to_csv(comparison))
    _write(folder / "table.tex", to_latex(comparison))
    return _write(folder / "report.html", to_html(comparison, figures, folder))


def _write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "backslashreplace"))  # a lone surrogate in a name must not stop the report
    return path
