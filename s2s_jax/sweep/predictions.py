"""The predictions of a trained trial for one split, and the metrics, source by source, that follow from them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from s2s_jax import run
from s2s_jax.decode.translate import Translation
from s2s_jax.evaluate.config import EvaluationConfig
from s2s_jax.evaluate.evaluation import (
    FORCED_COLUMNS,
    forced_sums,
    gold_links,
    group_by_source,
    predictions_of,
    source_lines,
)
from s2s_jax.evaluate.exposure_bias import free_running_losses
from s2s_jax.evaluate.metrics import METRICS, Predictions, by_item, counts_of, link_counts, value
from s2s_jax.evaluate.states import PairStates
from s2s_jax.run.batches import encode
from s2s_jax.sweep.results import ExamplePrediction
from s2s_jax.text.example import Example
from s2s_jax.text.sources import read_split


def predict_split(trained: run.Run, split: str, *, sentences: int, gallery: int) -> dict[str, Any]:
    """Everything that scoring needs from the model, as JSON values.

    These are the translations, their alignments, and the sums of forced decoding, by source.

    Args:
        sentences: maximum number of pairs, from the start of the split; 0 takes all.
        gallery: number of sources whose translation and alignment are kept in full.
    """
    examples = read_split(trained.experiment.data, split)[0][: sentences or None]
    evaluation = trained.experiment.evaluation
    items = group_by_source(examples, merge=evaluation.merge_sources)
    translations = trained.translate(items.inputs)
    pairs = list(trained.score(examples))
    forced = forced_sums(pairs)
    exposed = _free_running_nats(trained, examples) - forced[:, :1]
    forced = by_item(np.concatenate([forced, exposed], axis=1), items.items)
    predictions: dict[str, Any] = {
        "sources": source_lines(items.inputs),
        "references": items.references,
        "texts": [translation.text for translation in translations],
        "lengths": [max(0, len(translation.source_tokens) - 1) for translation in translations],
        "forced": forced.tolist(),
    }
    first = list(zip(translations, items.references, strict=True))[:gallery]
    predictions["gallery"] = [_gallery_record(translation, references) for translation, references in first]
    if not trained.experiment.model.attention.attends:
        return predictions
    if trained.experiment.model.attention.heads > 1 and first:
        _add_heads(predictions["gallery"], trained.states(items.inputs[:gallery]))
    links = None
    if all(example.links is not None for example in examples):
        gold = [gold_links(example, **trained.tokenizers) for example in examples]
        counts = link_counts([pair.alignment for pair in pairs], gold)
        links = by_item(counts, items.items)
        predictions["link_counts"] = links.tolist()
    measured = predictions_of(translations, items.references, forced, evaluation=evaluation, attends=True, links=links)
    # counted now, so that the alignments need not be stored
    aligned = [name for name, metric in METRICS.items() if "alignments" in metric.needs]
    predictions["alignment_counts"] = {name: rows.tolist() for name, rows in counts_of(measured, aligned).items()}
    return predictions


def _free_running_nats(trained: run.Run, examples: Sequence[Example]) -> np.ndarray:
    """The nats of each pair when the model is fed its predictions instead of the true tokens, [N, 1]."""
    search = trained.experiment.search
    bounds = {"size": search.batch_size, "tokens": search.batch_tokens}
    return free_running_losses(trained.model, trained.params, encode(examples, trained.pair), **bounds)[:, None]


def _gallery_record(translation: Translation, references: Sequence[str]) -> dict[str, Any]:
    best = translation.hypotheses[0] if translation.hypotheses else None
    alignment = np.zeros((0, len(translation.source_tokens))) if best is None else best.alignment
    example = ExamplePrediction(
        source=translation.source,
        references=tuple(references),
        text=translation.text,
        source_tokens=translation.source_tokens,
        tokens=() if best is None else best.tokens,
        alignment=np.asarray(alignment, np.float64),
    )
    weights = [[round(weight, 5) for weight in row] for row in example.alignment.tolist()]
    return {**example._asdict(), "alignment": weights}


def _add_heads(records: Sequence[dict[str, Any]], states: Sequence[PairStates]) -> None:
    """Add the weights of each head, where the text is read back as the tokens that were written."""
    for record, pair in zip(records, states, strict=True):
        if pair.heads is not None and list(pair.tokens) == list(record["tokens"]):
            record["heads"] = np.round(pair.heads.transpose(1, 0, 2), 5).tolist()


def score_predictions(
    predictions: dict[str, Any], evaluation: EvaluationConfig
) -> tuple[dict[str, float | None], dict[str, np.ndarray]]:
    """The metrics of a split, and for each metric the sufficient statistics per source.

    Args:
        predictions: as `predict_split` returns them.
    """
    forced = np.array(predictions["forced"], np.float64)
    counts = counts_of(
        Predictions(
            texts=predictions["texts"],
            references=predictions["references"],
            unit=evaluation.unit,
            bleu_tokenizer=evaluation.tokenizer,
            **dict(zip(FORCED_COLUMNS, forced.T, strict=True)),
            link_counts=np.array(predictions["link_counts"], np.float64) if "link_counts" in predictions else None,
        )
    )
    counts |= {name: np.array(rows, np.float64) for name, rows in predictions.get("alignment_counts", {}).items()}
    return {name: value(name, rows.sum(0)) for name, rows in counts.items()}, counts
