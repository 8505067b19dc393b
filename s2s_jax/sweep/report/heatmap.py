"""Heat maps of alignments, with the source and target tokens beside them."""

import numpy as np
from jaxtyping import Float

from s2s_jax.sweep.report.svg import Figure, pixels, svg_box, svg_text, token_text, width_of
from s2s_jax.sweep.results import ExamplePrediction

CELL_SIZE = 20.0  # pixels
MOST_TOKENS = 48  # of a side; tokens after these are not drawn
LABEL_SIZE = 11.0
LEAST_WEIGHT = 0.004  # smaller weights are invisible


def alignment_heatmap(name: str, title: str, example: ExamplePrediction) -> Figure:
    """The map with the target from top to bottom and the source from left to right; NaN has its own color."""
    rows, table_columns = (min(MOST_TOKENS, size, len(tokens)) for size, tokens in
                     zip(example.alignment.shape, (example.tokens, example.source_tokens), strict=True))  # fmt: skip
    source, target = (list(map(token_text, tokens)) for tokens in (example.source_tokens, example.tokens))
    source, target = source[:table_columns], target[:rows]
    left = max((width_of(token, LABEL_SIZE) for token in target), default=0) + 10
    top = max((width_of(token, LABEL_SIZE) for token in source), default=0) + 10
    weights = example.alignment[:rows, :table_columns]
    parts = [
        svg_box(left, top, table_columns * CELL_SIZE, rows * CELL_SIZE, "frame"),
        _cells(weights, left=left, top=top),
    ]
    for column, token in enumerate(source):
        x = left + (column + 0.5) * CELL_SIZE + 4
        parts.append(svg_text(x, top - 6, token, "token", turned=-90))
    for row, token in enumerate(target):
        parts.append(svg_text(left - 6, top + (row + 0.5) * CELL_SIZE + 4, token, "token", anchor="end"))
    caption = example.text
    if rows < len(example.tokens) or table_columns < len(example.source_tokens):
        caption += (
            f" (the first {rows} of {len(example.tokens)} and {table_columns} of {len(example.source_tokens)} tokens)"
        )
    return Figure(
        name, title, caption, left + table_columns * CELL_SIZE + 4, top + rows * CELL_SIZE + 4, "".join(parts)
    )


def has_alignment(example: ExamplePrediction) -> bool:
    """Whether the alignment has weights; without attention it is all zeros."""
    return bool(example.alignment.size and np.any(example.alignment != 0))


def _cells(weights: Float[np.ndarray, "T S"], *, left: float, top: float) -> str:
    parts = []
    for row, column in np.argwhere(~(weights < LEAST_WEIGHT)).tolist():
        weight = float(weights[row, column])
        x, y = pixels(left + column * CELL_SIZE), pixels(top + row * CELL_SIZE)
        place = f'x="{x}" y="{y}" width="{pixels(CELL_SIZE)}" height="{pixels(CELL_SIZE)}"'
        if np.isnan(weight):
            parts.append(f'<rect class="nan" {place}><title>NaN</title></rect>')
            continue
        strength = f'fill-opacity="{min(1.0, weight):.3f}"'
        parts.append(f'<rect class="weight" {strength} {place}><title>{weight:.3f}</title></rect>')
    return "".join(parts)
