"""Which runs stand behind a number? Each cell with its seed, status, scores, error, and what it said."""

from collections.abc import Sequence

from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.sweep.report import numbers
from s2s_jax.sweep.report.comparisons import Comparison, Row
from s2s_jax.sweep.report.figures import label_of
from s2s_jax.sweep.report.svg import literal
from s2s_jax.sweep.result import ExamplePrediction, TrialResult

EXAMPLES = 5  # sentences of each row


def runs(judged: Comparison) -> str:
    """All cells, in a part of the page for each row of the table."""
    decimals = {
        metric: numbers.decimals_for(row.spreads[metric].sd for row in judged.rows) for metric in judged.study.metrics
    }
    return "".join(_part(judged, row, decimals) for row in judged.rows)


def _part(judged: Comparison, row: Row, decimals: dict[str, int]) -> str:
    metrics = judged.study.metrics
    heads = ["run", "seed", "status", *(METRICS[metric].label for metric in metrics)]
    has_errors = any(cell.error for cell in row.cells)
    heads += ["best step", "steps", "tokens", "seconds", "trained", *["error"] * has_errors]
    words = {"run", "status", "trained", "error"}
    head = "".join(f'<th scope="col"{_left(name in words)}>{literal(name)}</th>' for name in heads)
    body = "".join(_cell(cell, metrics, decimals, has_errors=has_errors) for cell in row.cells)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    shown = f'<div class="scroll">{table}</div>' if row.cells else "<p>No run of this point is planned yet.</p>"
    title = f"<h3><bdi>{literal(label_of(judged, row))}</bdi></h3>"
    return f'<div class="runs" id="{row.anchor}">{title}{shown}{_examples(row.done)}</div>'


def _left(is_word: bool) -> str:
    return ' class="w"' if is_word else ""


def _cell(cell: TrialResult, metrics: Sequence[str], decimals: dict[str, int], *, has_errors: bool) -> str:
    scores = "".join(f"<td>{numbers.plain(cell.metrics.get(each), decimals[each])}</td>" for each in metrics)
    is_done = cell.status == "done"
    work = [cell.best_step, cell.steps, cell.tokens, cell.seconds]
    amounts = "".join(f"<td>{numbers.whole(each) if is_done or each else numbers.MISSING}</td>" for each in work)
    how = "together" if cell.how == "replicas" else "alone"
    error = f'<td class="err">{literal(cell.error)}</td>' if has_errors else ""
    return (
        f'<tr><td class="w"><bdi>{literal(cell.name)}</bdi></td><td>{cell.seed}</td>'
        f'<td class="w {cell.status}">{cell.status}</td>{scores}{amounts}<td class="w">{how}</td>{error}</tr>'
    )


def _examples(cells: Sequence[TrialResult]) -> str:
    """The same sentences under every seed."""
    most = min(EXAMPLES, max((len(cell.gallery) for cell in cells), default=0))
    sentences = [[(cell.seed, cell.gallery[at]) for cell in cells if at < len(cell.gallery)] for at in range(most)]
    if not most:
        return ""
    return f"<details><summary>What it said</summary>{''.join(map(_example, sentences))}</details>"


def _example(said: Sequence[tuple[int, ExamplePrediction]]) -> str:
    first = said[0][1]
    lines = [("source", first.source), *(("wanted", line) for line in first.references)]
    lines += [(f"seed {seed}", shown.text) for seed, shown in said]
    return f"<dl>{''.join(f'<dt>{name}</dt><dd><bdi dir=auto>{literal(text)}</bdi></dd>' for name, text in lines)}</dl>"
