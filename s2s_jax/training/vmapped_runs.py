"""Replicas: many runs trained in one compiled program, by `vmap` over their states; each has its own files.

What a replica learns is what its own run would have learned, up to rounding: it sees that run's batches (padded to the
largest of a step), random numbers and settings.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s2s_jax.shapes import Batch
from s2s_jax.training.loop import StepProgram
from s2s_jax.training.step import Metrics, TrainState

TracedStep = Callable[[dict[str, Any], TrainState, Batch], tuple[TrainState, Metrics]]


def vmapped_program(
    step: TracedStep,
    numbers: dict[str, np.ndarray],
    *,
    place: Callable[[Any], Any],
    put: Callable[[Batch], Batch],
    compiler_options: Mapping[str, Any],
) -> StepProgram:
    """The program of R replicas.

    Args:
        step: the step of one of them, given the numbers in which they differ.
        numbers: these settings, with the value of each replica, [R].
        place: puts stacked states on the devices.
        put: puts stacked batches on the devices.
        compiler_options: of XLA.
    """
    mapped = jax.vmap(step, spmd_axis_name="replica")
    together = jax.jit(mapped, donate_argnums=1, compiler_options=dict(compiler_options))
    numbers = place({name: np.asarray(values, np.float32) for name, values in numbers.items()})

    def join_states(states: Sequence[TrainState]) -> TrainState:
        return place(jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))

    def step_all(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        return together(numbers, state, batch)

    def lower(state: TrainState, batch: Batch) -> Any:
        return together.lower(numbers, state, batch)

    def of_run(tree: Any, index: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[index], tree)

    return StepProgram(step_all, lower, join_states, stacked, put, of_run)


def stacked(batches: Sequence[Batch]) -> Batch:
    """Batches as one, with leaves [R, ...], each padded to the largest."""

    def stack(*arrays: np.ndarray) -> np.ndarray:
        largest = np.max([array.shape for array in arrays], axis=0)
        return np.stack([np.pad(array, [(0, int(more)) for more in largest - array.shape]) for array in arrays])

    return jax.tree.map(stack, *batches)
