"""What did a sweep show? One page that opens offline, and the same for a terminal, a spreadsheet and a paper."""

from s2s_jax.sweep.report.write import write_report

__all__ = ["write_report"]
