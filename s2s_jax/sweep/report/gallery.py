"""The alignments of a report: as data for the page, which draws those that are chosen, and as pictures for a paper."""

import base64
from pathlib import Path
from typing import Any

import numpy as np

from s2s_jax.sweep.report.comparisons import Comparison
from s2s_jax.sweep.report.svg import token_text, visible_text
from s2s_jax.sweep.results import ExamplePrediction

MOST_TOKENS = 60  # of a side; tokens after these are not shown
PICTURES, PICTURE_MAPS = 3, 4  # sentences, and variants of each, that are drawn for a paper
NAN = 255  # the byte of a weight that is not a number; weights from 0 to 1 are 0 to 254


def gallery_data(comparison: Comparison) -> dict[str, Any]:
    """The maps of all finished trials as JSON values, and the sentences that they are of."""
    sentences: list[ExamplePrediction] = []
    maps = []
    for row in comparison.rows:
        for trial in row.done:
            for index, example in enumerate(trial.gallery):
                sentences += [example] if index == len(sentences) else []
                if has_alignment(example):
                    maps.append({"row": row.number, "seed": trial.seed, "sentence": index, **_map(example)})
    return {
        "maps": maps,
        "sentences": [
            {"source": visible_text(each.source), "references": list(map(visible_text, each.references))}
            for each in sentences
        ],
    }


def has_alignment(example: ExamplePrediction) -> bool:
    """Whether the alignment has weights; without attention it is all zeros."""
    return bool(example.alignment.size and np.any(example.alignment != 0))


def _map(example: ExamplePrediction) -> dict[str, Any]:
    tokens, source = example.tokens[:MOST_TOKENS], example.source_tokens[:MOST_TOKENS]
    return {
        "text": visible_text(example.text),
        "tokens": list(map(token_text, tokens)),
        "source": list(map(token_text, source)),
        "weights": [_bytes(weights[: len(tokens), : len(source)]) for weights in (example.alignment, *example.heads)],
    }


def _bytes(weights: np.ndarray) -> str:
    scaled = np.rint(np.clip(np.nan_to_num(weights), 0, 1) * 254).astype(np.uint8)
    return base64.b64encode(np.where(np.isnan(weights), NAN, scaled).astype(np.uint8).tobytes()).decode("ascii")


def draw_gallery(comparison: Comparison, folder: Path) -> list[str]:
    """Write alignment-1.png and so on, one per sentence: the baseline and the best variants; returns their sources."""
    rows = sorted((row for row in comparison.rows if row.done), key=lambda row: (row.variant, row.number))
    sources = []
    for index in range(PICTURES):
        examples = [(row, row.done[0].gallery[index]) for row in rows if index < len(row.done[0].gallery)]
        drawn = [(row, each) for row, each in examples if has_alignment(each)][:PICTURE_MAPS]
        if not drawn:
            continue
        from s2s_jax.evaluate.plots import Picture, save_grid  # matplotlib is slow to import

        sources.append(drawn[0][1].source)
        pictures = [
            Picture(each.source_tokens, each.tokens, each.alignment, comparison.label(row)) for row, each in drawn
        ]
        save_grid(folder / f"alignment-{len(sources)}.png", pictures, columns=2)
    return sources
