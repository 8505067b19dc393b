"""How do the parts work together? A run: an experiment trained in a folder, and what can be done with it then."""

from s2s_jax.run.build import count
from s2s_jax.run.info import info, newest_metrics
from s2s_jax.run.loaded_run import Run, load
from s2s_jax.run.plot import draw, own_pairs
from s2s_jax.run.run_dir import read_experiment
from s2s_jax.run.trainer import check_trainable, fit, train, train_replicas

__all__ = [
    "Run",
    "check_trainable",
    "count",
    "draw",
    "fit",
    "info",
    "load",
    "newest_metrics",
    "own_pairs",
    "read_experiment",
    "train",
    "train_replicas",
]
