"""What four virtual devices compute, in a process of its own since a process has one number of devices; prints JSON.

`python four_devices.py FOLDER`: by case, the largest difference from what one device computes.
"""

import os

FLAGS = os.environ.get("XLA_FLAGS", "").replace("device_count=2", "device_count=4")
os.environ["XLA_FLAGS"] = FLAGS

import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import tiny
from rich.console import Console

from s2s_jax import run
from s2s_jax.config import override
from s2s_jax.model.seq2seq import build
from s2s_jax.run.state import new_state
from s2s_jax.run.step import training_step
from s2s_jax.shapes import Batch
from s2s_jax.training import devices
from s2s_jax.training.devices import DeviceConfig
from s2s_jax.training.metrics_writer import read_metrics
from s2s_jax.training.sequence_level.config import SequenceTraining

QUIET = Console(quiet=True)
MESHES = {"data 2": (2, 1), "fsdp 2": (2, 2), "data 2, fsdp 2": (4, 2), "fsdp 4": (4, 4)}
OPTIONS = {
    "plain": [],
    "accumulation, average, spikes": ["optimizer.accumulate=2", "optimizer.ema=0.9", "optimizer.skip_spikes=8"],
    "scheduled sampling, remat": [
        *("scheduled_sampling.schedule=constant", "scheduled_sampling.start=0.5"),
        "model.remat_every=2",
    ],
    "samples and their rewards": ["loss.objective=self-critical", "sequence_training.samples=3"],
}
# Adam would magnify rounding
SGD = ["optimizer.name=sgd", "optimizer.schedule=constant", "optimizer.warmup_steps=0", "optimizer.learning_rate=0.1"]


def experiment(*changes: str):
    return tiny.experiment(*SGD, *changes)


def batch() -> Batch:
    """Six rows, which four devices do not divide."""
    rng = np.random.default_rng(0)
    sides = [rng.integers(4, 10, (6, 5), dtype=np.int32) for _ in range(2)]
    for side in sides:
        for row, ids in enumerate(side):
            ids[row % 4 + 1] = 2
            ids[row % 4 + 2 :] = 0
    return Batch(*sides)


def trained(mesh, *changes: str, steps: int = 3):
    config = experiment("model.embedding=64", *changes)  # of 64, so that more than the cells is sharded
    model = build(config.model, source_vocabulary=10, target_vocabulary=11)
    parts = (model, config.loss, config.scheduled_sampling, config.optimizer)
    layout, sequence = devices.layout_of(config.device, mesh), SequenceTraining(config=config.sequence_training)
    step = training_step(*parts, steps=config.steps, sequence=sequence, layout=layout)
    state = devices.place(new_state(model, config.optimizer, steps=config.steps, seed=0), mesh)
    before = devices.shardings(state, mesh)
    for _ in range(steps):
        state, metrics = step(state, devices.put(batch(), mesh))
    assert step._cache_size() == 1  # the state comes back as it was given
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(before), strict=True):
        assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
    sharded = sum(leaf.size for leaf in jax.tree.leaves(state.params) if not leaf.is_fully_replicated)
    assert (sharded > 0.9 * sum(leaf.size for leaf in jax.tree.leaves(state.params))) == (mesh.shape["fsdp"] > 1)
    return state._replace(norms=()), metrics.sums.nats / metrics.sums.tokens


def largest_difference(one, other) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max(initial=0)) for a, b in pairs)


def steps_alike() -> dict[str, float]:
    found = {}
    for name, changes in OPTIONS.items():
        meshes = MESHES if name == "plain" else ("fsdp 2", "data 2, fsdp 2")
        alone = trained(devices.make_mesh(DeviceConfig(count=1)), *changes)
        for mesh in meshes:
            count, fsdp = MESHES[mesh]
            found[f"{name}: {mesh}"] = largest_difference(
                alone, trained(devices.make_mesh(DeviceConfig(count=count, fsdp=fsdp)), *changes)
            )
    return found


def runs_alike(folder: Path) -> dict[str, float]:
    """A run on four devices that goes on on one, and on one that goes on on four, against one that never moved."""
    changes = ["validation.every=2", "validation.sentences=0", "checkpoint.every=2", "batch.size=6"]
    base = experiment("steps=4", *changes)
    on_four = override(base, "device.count=4", "device.fsdp=2")
    half = lambda one: dataclasses.replace(one, steps=2)  # noqa: E731
    whole = run.train(base, folder / "whole", QUIET).params
    found = {}
    for name, first, second in (("four, then one", on_four, base), ("one, then four", base, on_four)):
        run.train(half(first), folder / name, QUIET)
        found[name] = largest_difference(whole, run.train(second, folder / name, QUIET).params)
        values = [
            [one["loss"] for one in read_metrics(folder / each / "metrics.jsonl") if one["kind"] == "validation"]
            for each in ("whole", name)
        ]
        found[f"{name}: validation"] = largest_difference(*values)
    changed = ["device.count=4", "device.parallel=pmap", "optimizer.accumulate=2"]
    found["pmap"] = largest_difference(whole, run.train(override(base, *changed), folder / "pmap", QUIET).params)
    replicas = [dataclasses.replace(on_four, seed=seed) for seed in (0, 1)]
    folders = [folder / f"replica {seed}" for seed in (0, 1)]
    assert run.train_replicas(replicas, folders, QUIET) == [None, None]
    found["replicas"] = largest_difference(whole, run.load(folders[0]).params)
    return found


if __name__ == "__main__":
    assert jax.device_count() == 4
    json.dump({**steps_alike(), **runs_alike(Path(sys.argv[1]))}, sys.stdout)
