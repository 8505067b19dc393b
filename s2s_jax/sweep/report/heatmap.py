"""Where did each variant look while it wrote the same sentence? Alignments as maps with their tokens beside them."""

import numpy as np
from jaxtyping import Float

from s2s_jax.sweep.report.svg import Figure, box, n, text, token_text, width_of
from s2s_jax.sweep.result import ExamplePrediction

CELL = 20.0
TOKENS = 48  # of a side; what lies behind them is not drawn
LABEL = 11.0
LEAST = 0.004  # a weight below it is as good as white


def heat_map(name: str, title: str, shown: ExamplePrediction) -> Figure:
    """Target down, source across; a cell is as dark as its weight. NaN is struck out."""
    rows, columns = (min(TOKENS, size, len(tokens)) for size, tokens in
                     zip(shown.alignment.shape, (shown.tokens, shown.source_tokens), strict=True))  # fmt: skip
    source, target = (list(map(token_text, tokens)) for tokens in (shown.source_tokens, shown.tokens))
    source, target = source[:columns], target[:rows]
    left = max((width_of(token, LABEL) for token in target), default=0) + 10
    top = max((width_of(token, LABEL) for token in source), default=0) + 10
    weights = shown.alignment[:rows, :columns]
    parts = [box(left, top, columns * CELL, rows * CELL, "frame"), _cells(weights, left=left, top=top)]
    for column, token in enumerate(source):
        x = left + (column + 0.5) * CELL + 4
        parts.append(text(x, top - 6, token, "token", turned=-90))
    for row, token in enumerate(target):
        parts.append(text(left - 6, top + (row + 0.5) * CELL + 4, token, "token", anchor="end"))
    caption = shown.text
    if rows < len(shown.tokens) or columns < len(shown.source_tokens):
        caption += f" (the first {rows} of {len(shown.tokens)} and {columns} of {len(shown.source_tokens)} tokens)"
    return Figure(name, title, caption, left + columns * CELL + 4, top + rows * CELL + 4, "".join(parts))


def attends(shown: ExamplePrediction) -> bool:
    """Whether there is anything to draw: a variant without attention has zeros."""
    return bool(shown.alignment.size and np.any(shown.alignment != 0))


def _cells(weights: Float[np.ndarray, "T S"], *, left: float, top: float) -> str:
    parts = []
    for row, column in np.argwhere(~(weights < LEAST)).tolist():
        weight = float(weights[row, column])
        place = f'x="{n(left + column * CELL)}" y="{n(top + row * CELL)}" width="{n(CELL)}" height="{n(CELL)}"'
        if np.isnan(weight):
            parts.append(f'<rect class="nan" {place}><title>NaN</title></rect>')
            continue
        strength = f'fill-opacity="{min(1.0, weight):.3f}"'
        parts.append(f'<rect class="weight" {strength} {place}><title>{weight:.3f}</title></rect>')
    return "".join(parts)
