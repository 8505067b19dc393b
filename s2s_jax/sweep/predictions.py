"""What did a trained cell say about a split, and which numbers, sentence by sentence, follow from it?"""

import functools
from typing import Any

import jax
import numpy as np

from s2s_jax import run
from s2s_jax.decode.translate import Translation, filled
from s2s_jax.evaluate.alignment import entropy
from s2s_jax.evaluate.evaluation import group_by_source, token_links
from s2s_jax.evaluate.exposure_bias import free_running_nats
from s2s_jax.evaluate.metrics import Predictions, by_source, counts_of, link_counts, value
from s2s_jax.run.prepare import encode
from s2s_jax.shapes import Batch
from s2s_jax.sweep.result import ExamplePrediction
from s2s_jax.text.example import Example
from s2s_jax.text.sources import read_split


def predict(trained: run.Run, split: str, *, sentences: int, gallery: int) -> dict[str, Any]:
    """All that scoring needs of the model, as JSON says it: translations, alignments, sums under forced decoding."""
    examples = read_split(trained.experiment.data, split)[0][: sentences or None]
    items = group_by_source(examples)
    translations = trained.translate(items.sources)
    pairs = list(trained.score(examples))
    forced = np.array([(-pair.log_probability, len(pair.tokens), pair.correct) for pair in pairs], np.float64)
    exposed = _free_running(trained, examples) - forced[:, :1]
    forced = np.concatenate([forced, exposed], axis=1)
    found: dict[str, Any] = {
        "sources": items.sources,
        "references": items.references,
        "texts": [one.text for one in translations],
        "lengths": [max(0, len(one.source_tokens) - 1) for one in translations],
        "forced": by_source(forced, [example.source for example in examples]).tolist(),
    }
    shown = list(zip(translations, items.references, strict=True))[:gallery]
    found["gallery"] = [_shown(one, references) for one, references in shown]
    if trained.experiment.model.attention.score == "none":
        return found
    found["entropy"] = [_spread(one) for one in translations]
    if all(example.links is not None for example in examples):
        gold = [token_links(example, **trained.tokenizers) for example in examples]
        counts = link_counts([pair.alignment for pair in pairs], gold)
        found["links"] = by_source(counts, [example.source for example in examples]).tolist()
    return found


def _free_running(trained: run.Run, examples: list[Example]) -> np.ndarray:
    """The nats of each pair when the model is fed its own words, [N, 1]."""
    pairs, step = encode(examples, trained.pair), trained.experiment.search.batch_size
    compiled = jax.jit(functools.partial(free_running_nats, trained.model))
    found = []
    for first in range(0, len(examples), step):
        sides = [side[first : first + step] for side in (pairs.sources, pairs.targets)]
        nats = compiled(trained.params, Batch(*map(filled, sides)))
        found.append(np.asarray(nats, np.float64)[: len(sides[0])])
    return np.concatenate(found)[:, None]


def _shown(translation: Translation, references: list[str]) -> dict[str, Any]:
    best = translation.hypotheses[0] if translation.hypotheses else None
    alignment = np.zeros((0, len(translation.source_tokens))) if best is None else best.alignment
    shown = ExamplePrediction(
        source=translation.source,
        references=tuple(references),
        text=translation.text,
        source_tokens=translation.source_tokens,
        tokens=() if best is None else best.tokens,
        alignment=np.asarray(alignment, np.float64),
    )
    return {**shown._asdict(), "alignment": [[round(weight, 5) for weight in row] for row in shown.alignment.tolist()]}


def _spread(translation: Translation) -> tuple[float, int]:
    """The entropies of a translation's alignment added up, and how many they are."""
    if not translation.hypotheses:
        return 0.0, 0
    alignment = np.asarray(translation.hypotheses[0].alignment, np.float64)
    return float(entropy(alignment).sum()), len(alignment)


def score(said: dict[str, Any], *, unit: str) -> tuple[dict[str, float | None], dict[str, np.ndarray]]:
    """The metrics of a split, and the numbers of each source that they are made of."""
    nats, tokens, correct, exposed = np.array(said["forced"], np.float64).T
    answers = Predictions(
        texts=said["texts"],
        references=said["references"],
        unit=unit,
        nats=nats,
        tokens=tokens,
        correct=correct,
        exposure_nats=exposed,
        link_counts=np.array(said["links"], np.float64) if "links" in said else None,
    )
    counts = counts_of(answers)
    if "entropy" in said:
        counts["attention_entropy"] = np.array(said["entropy"], np.float64)
    return {name: value(name, numbers.sum(0)) for name, numbers in counts.items()}, counts
