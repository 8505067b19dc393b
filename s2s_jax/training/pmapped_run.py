"""A run whose step is mapped over the devices by `jax.pmap`: the older way, for those who ask for it by name.

Each device has a copy of the whole state, as the first axis of each array, and rows of its own; gradients are added up
by `psum`. The mesh does the same in one program over global arrays, and more: sharded state, replicas, many processes.
jax itself builds `pmap` from `jit` and `shard_map`, and advises against it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from s2s_jax.shapes import Batch
from s2s_jax.training import devices
from s2s_jax.training.loop import StepProgram
from s2s_jax.training.step import TrainState, TrainStep


def pmapped_program(step: TrainStep, mesh: Mesh) -> StepProgram:
    """The program of one run on all devices of a mesh; `step` is that of the layout `devices.PMAPPED`."""
    count, axis = mesh.devices.size, devices.PMAP_AXIS
    mapped = jax.pmap(step, axis_name=axis, devices=mesh.devices.ravel().tolist(), donate_argnums=0)
    placement = NamedSharding(Mesh(mesh.devices.ravel(), (axis,)), PartitionSpec(axis))

    def copied(states: Sequence[TrainState]) -> TrainState:
        copies = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *leaf.shape)), states[0])
        return jax.device_put(copies, placement)

    def divided(batch: Batch) -> Batch:
        return jax.tree.map(lambda rows: rows.reshape(count, -1, *rows.shape[1:]), devices.filled(batch, mesh))

    def of_run(tree: Any, index: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[0], tree)

    return StepProgram(mapped, mapped.lower, copied, lambda batches: batches[0], divided, of_run)
