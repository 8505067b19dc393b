"""Reports of sweeps: one page that opens offline, and the same as Markdown, CSV, LaTeX and SVG."""

from s2s_jax.sweep.report.write import write_report

__all__ = ["write_report"]
