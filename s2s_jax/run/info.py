"""Facts of a run: its step, parameters, settings, data, checkpoints and newest metrics."""

from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax import config as configs
from s2s_jax.run.environment import read_starts
from s2s_jax.run.loaded_run import Run, load
from s2s_jax.run.model import count_parameters, count_trained
from s2s_jax.run.state import abstract_state
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.training.checkpoint.pytree_io import digest
from s2s_jax.training.metrics_writer import read_metrics
from s2s_jax.training.parameter_groups import dotted_paths
from s2s_jax.training.step import TrainState


def info(directory: str | Path) -> dict[str, Any]:
    """Step, number of parameters, a digest over all of their bytes, checkpoints, facts of the data and settings."""
    directory = Path(directory)
    run = load(directory)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        newest = _newest(run, checkpoints)
        steps = checkpoints.steps()
    return {
        "step": newest.step,
        "best_step": run.step,
        "parameters": count_parameters(newest.tree.params),
        "trained_parameters": count_trained(newest.tree.params, run.experiment.optimizer),
        "shapes": {path: list(leaf.shape) for path, leaf in dotted_paths(newest.tree.params).items()},
        "parameters_digest": digest(newest.tree.params),
        "checkpoints": steps,
        "refused": sorted({*run.refused, *newest.refused}),
        "starts": read_starts(directory),
        "facts": run.facts,
        "config": configs.to_json(run.experiment),
    }


class Newest(NamedTuple):
    """The newest good checkpoint of a run."""

    step: int
    tree: TrainState
    refused: list[str]


def _newest(run: Run, checkpoints: Checkpoints) -> Newest:
    steps = run.experiment.steps
    restored = checkpoints.restore(abstract_state(run.model, run.experiment.optimizer, steps=steps))
    return Newest(restored.step, restored.tree, list(checkpoints.refused))


def newest_metrics(directory: Path) -> list[dict[str, Any]]:
    """The last record of each kind in a run's metrics.jsonl."""
    newest = {record["kind"]: record for record in read_metrics(directory / "metrics.jsonl")}
    return list(newest.values())
