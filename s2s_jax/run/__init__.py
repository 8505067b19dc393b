"""How do the parts work together? A run: an experiment trained in a folder, and what can be done with it then."""

from s2s_jax.run.folder import read_experiment
from s2s_jax.run.parts import count
from s2s_jax.run.trained import (
    ScoredPair,
    Trained,
    align,
    alignment_error,
    evaluate_split,
    info,
    load,
    newest_metrics,
    score_pairs,
    translate,
    translated_pairs,
    translator,
)
from s2s_jax.run.training import train, train_replicas

__all__ = [
    "ScoredPair",
    "Trained",
    "align",
    "alignment_error",
    "count",
    "evaluate_split",
    "info",
    "load",
    "newest_metrics",
    "read_experiment",
    "score_pairs",
    "train",
    "train_replicas",
    "translate",
    "translated_pairs",
    "translator",
]
