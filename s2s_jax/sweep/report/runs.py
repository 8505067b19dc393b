"""The runs behind each number: seed, status, scores, error and example translations of each trial."""

from collections.abc import Sequence

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison, PointSummary
from s2s_jax.sweep.report.figures import point_label
from s2s_jax.sweep.report.svg import escape_text
from s2s_jax.sweep.results import ExamplePrediction, TrialResult

MOST_EXAMPLES = 5  # sentences per row


def runs_section(comparison: Comparison) -> str:
    """All trials, in one part of the page per row of the table."""
    decimals = {
        metric: numbers.decimals_for(row.spreads[metric].sd for row in comparison.rows)
        for metric in comparison.results.metrics
    }
    return "".join(_part(comparison, row, decimals) for row in comparison.rows)


def _part(comparison: Comparison, row: PointSummary, decimals: dict[str, int]) -> str:
    metrics = comparison.results.metrics
    heads = ["run", "seed", "status", *(METRICS[metric].title for metric in metrics)]
    has_errors = any(trial.error for trial in row.trials)
    heads += ["best step", "steps", "tokens", "seconds", "trained", *["error"] * has_errors]
    words = {"run", "status", "trained", "error"}
    head = "".join(f'<th scope="col"{_left(name in words)}>{escape_text(name)}</th>' for name in heads)
    body = "".join(_cell(trial, metrics, decimals, has_errors=has_errors) for trial in row.trials)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    shown = f'<div class="scroll">{table}</div>' if row.trials else "<p>No run of this point is planned yet.</p>"
    title = f"<h3><bdi>{escape_text(point_label(comparison, row))}</bdi></h3>"
    return f'<div class="runs" id="{row.anchor}">{title}{shown}{_examples(row.done)}</div>'


def _left(is_word: bool) -> str:
    return ' class="w"' if is_word else ""


def _cell(trial: TrialResult, metrics: Sequence[str], decimals: dict[str, int], *, has_errors: bool) -> str:
    scores = "".join(f"<td>{numbers.plain(trial.metrics.get(each), decimals[each])}</td>" for each in metrics)
    is_done = trial.status == "done"
    work = [trial.best_step, trial.steps, trial.tokens, trial.seconds]
    amounts = "".join(f"<td>{numbers.whole(each) if is_done or each else numbers.MISSING}</td>" for each in work)
    mode = "together" if trial.launch_mode == "replicas" else "alone"
    error = f'<td class="err">{escape_text(trial.error)}</td>' if has_errors else ""
    return (
        f'<tr><td class="w"><bdi>{escape_text(trial.name)}</bdi></td><td>{trial.seed}</td>'
        f'<td class="w {trial.status}">{trial.status}</td>{scores}{amounts}<td class="w">{mode}</td>{error}</tr>'
    )


def _examples(trials: Sequence[TrialResult]) -> str:
    """The same sentences under every seed."""
    most = min(MOST_EXAMPLES, max((len(trial.gallery) for trial in trials), default=0))
    sentences = [
        [(trial.seed, trial.gallery[index]) for trial in trials if index < len(trial.gallery)] for index in range(most)
    ]
    if not most:
        return ""
    return f"<details><summary>Translations</summary>{''.join(map(_example, sentences))}</details>"


def _example(by_seed: Sequence[tuple[int, ExamplePrediction]]) -> str:
    first = by_seed[0][1]
    lines = [("source", first.source), *(("reference", line) for line in first.references)]
    lines += [(f"seed {seed}", example.text) for seed, example in by_seed]
    entries = (f"<dt>{name}</dt><dd><bdi dir=auto>{escape_text(text)}</bdi></dd>" for name, text in lines)
    return f"<dl>{''.join(entries)}</dl>"
