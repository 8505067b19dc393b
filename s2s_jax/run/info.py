"""What is known of a run: how far it came, what it was trained on, and how it went?"""

import contextlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax import config as configs
from s2s_jax.run.build import abstract_state, count
from s2s_jax.run.loaded_run import Run, load
from s2s_jax.train.checkpoint.checkpoints import Checkpoints
from s2s_jax.train.checkpoint.pytree_io import digest
from s2s_jax.train.optimizer import make_optimizer
from s2s_jax.train.step import TrainState


def info(directory: Path) -> dict[str, Any]:
    """What a run is: step, parameters, a digest over all of their bytes, settings, data and checkpoints."""
    run = load(directory)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        newest = _newest(run, checkpoints)
        steps = checkpoints.steps()
    return {
        "step": newest.step,
        "best_step": run.step,
        "parameters": count(newest.tree.params),
        "parameters_digest": digest(newest.tree.params),
        "checkpoints": steps,
        "refused": sorted({*run.refused, *newest.refused}),
        "facts": run.facts,
        "config": configs.to_json(run.experiment),
    }


class Newest(NamedTuple):
    """The newest good checkpoint of a run."""

    step: int
    tree: TrainState
    refused: list[str]


def _newest(run: Run, checkpoints: Checkpoints) -> Newest:
    optimizer = make_optimizer(run.experiment.optimizer, run.experiment.steps)
    restored = checkpoints.restore(abstract_state(run.experiment, run.model, optimizer))
    return Newest(restored.step, restored.tree, list(checkpoints.refused))


def newest_metrics(directory: Path) -> list[dict[str, Any]]:
    """The last lines of a run's metrics.jsonl: one of each kind."""
    path, found = directory / "metrics.jsonl", {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            found[record["kind"]] = record
    return list(found.values())
