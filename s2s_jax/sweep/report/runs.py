"""The runs behind each number: seed, status, scores, error, and links to the folder, settings and log of each trial."""

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison, PointSummary
from s2s_jax.sweep.report.svg import escape_text
from s2s_jax.sweep.results import TrialResult
from s2s_jax.sweep.trial_files import LOG_FILE

WORDS = {"point", "run", "status", "trained", "files", "error"}


def runs_section(comparison: Comparison, folder: Path | None = None) -> str:
    """All trials in one table, those of a point together.

    Args:
        folder: of the page, which links are relative to; None for a page without links.
    """
    metrics = comparison.results.metrics
    decimals = {metric: numbers.decimals_for(row.spreads[metric].sd for row in comparison.rows) for metric in metrics}
    trials = [trial for row in comparison.rows for trial in row.trials]
    has_errors = any(trial.error for trial in trials)
    heads = ["point", "run", "seed", "status", *(METRICS[metric].title for metric in metrics)]
    heads += ["best step", "steps", "tokens", "seconds", "trained", "files", *["error"] * has_errors]
    head = "".join(f'<th scope="col"{_left(name)}>{escape_text(name)}</th>' for name in heads)
    body = []
    for row in comparison.rows:
        label = f"<bdi>{escape_text(comparison.label(row))}</bdi>"
        for place, trial in enumerate(row.trials):
            anchor = f' id="runs-{row.number}"' if place == 0 else ""
            cells = _cells(trial, metrics, decimals, folder)
            error = f'<td class="err">{escape_text(trial.error)}</td>' if has_errors else ""
            body.append(f'<tr data-r="{row.number}"{anchor}><td class="w">{label}</td>{cells}{error}</tr>')
        if not row.trials:
            body.append(_unplanned(row, label, len(heads)))
    return (
        f"<details><summary>{len(trials)} runs</summary>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></details>"
    )


def _unplanned(row: PointSummary, label: str, columns: int) -> str:
    none = f'<td class="w" colspan="{columns - 1}">No run of this point is planned yet.</td>'
    return f'<tr data-r="{row.number}" id="runs-{row.number}"><td class="w">{label}</td>{none}</tr>'


def _left(name: str) -> str:
    return ' class="w"' if name in WORDS else ""


def _cells(trial: TrialResult, metrics: Sequence[str], decimals: dict[str, int], folder: Path | None) -> str:
    scores = "".join(f"<td>{numbers.plain(trial.metrics.get(each), decimals[each])}</td>" for each in metrics)
    is_done = trial.status == "done"
    work = [trial.best_step, trial.steps, trial.tokens, trial.seconds]
    amounts = "".join(f"<td>{numbers.whole(each) if is_done or each else numbers.MISSING}</td>" for each in work)
    mode = "together" if trial.launch_mode == "replicas" else "alone"
    return (
        f'<td class="w"><bdi>{escape_text(trial.name)}</bdi></td><td>{trial.seed}</td>'
        f'<td class="w {trial.status}">{trial.status}</td>{scores}{amounts}<td class="w">{mode}</td>'
        f'<td class="w">{_links(trial, folder)}</td>'
    )


def _links(trial: TrialResult, folder: Path | None) -> str:
    """The trial's folder, its settings and its log, where the page can reach them."""
    if folder is None or trial.folder == Path():
        return ""
    base = Path(os.path.relpath(trial.folder, folder)).as_posix()
    files = {"folder": "", "config": "run/config.json", "log": LOG_FILE}
    return " ".join(f'<a href="{quote(f"{base}/{path}")}">{name}</a>' for name, path in files.items())
