"""Runs: an experiment trained in a directory, and what can be done with the trained model."""

from s2s_jax.run.check import check_trainable
from s2s_jax.run.info import info, newest_metrics
from s2s_jax.run.loaded_run import Run, load
from s2s_jax.run.model import count_parameters
from s2s_jax.run.plot import draw, own_pairs
from s2s_jax.run.replicas import train_replicas
from s2s_jax.run.run_dir import read_experiment
from s2s_jax.run.trainer import fit, train

__all__ = [
    "Run",
    "check_trainable",
    "count_parameters",
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
