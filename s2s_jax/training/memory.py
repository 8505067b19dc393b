"""How much memory a training step needs, and what to do when there is not as much."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from s2s_jax.training.step import TrainState

MEGABYTE = 1e6


class Shape(NamedTuple):
    """The shape of a batch."""

    rows: int
    source: int  # tokens
    target: int  # tokens

    def __str__(self) -> str:
        return f"{self.rows} pairs with sources of {self.source} and targets of {self.target} tokens"


class MemoryNeed(NamedTuple):
    """Megabytes per device."""

    parameters: float
    optimizer: float  # its state, and the average of the parameters
    activations: float  # what the step computes and keeps for the gradient

    @property
    def total(self) -> float:
        """Megabytes of all together."""
        return sum(self)

    def __str__(self) -> str:
        each = ", ".join(f"{name} {value:,.1f}" for name, value in self._asdict().items())
        return f"{self.total:,.1f} MB per device ({each})"


class OutOfMemory(ValueError):  # noqa: N818
    """A training step does not fit into the memory of its device."""


def memory_need(compiled: Any, state: TrainState) -> MemoryNeed | None:
    """The memory of a compiled step; None where its compiler does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    parameters, whole = _megabytes(state.params), _megabytes(state)
    return MemoryNeed(parameters, whole - parameters, analysis.temp_size_in_bytes / MEGABYTE)


def _megabytes(tree: Any) -> float:
    """The size of what lies on one device."""
    shards = [(leaf.sharding.shard_shape(leaf.shape), leaf.dtype.itemsize) for leaf in jax.tree.leaves(tree)]
    return sum(math.prod(shape) * size for shape, size in shards) / MEGABYTE


def memory_warning(need: MemoryNeed | None, limit: float | None) -> str | None:
    """A warning where a step needs more than a device has, else None."""
    if need is None or limit is None or need.total <= limit:
        return None
    return (
        f"a step needs {need.total:,.0f} MB and the device has {limit:,.0f} MB; use a lower --batch.size, a higher "
        "--optimizer.accumulate, --loss.vocabulary-chunk 1000 for large vocabularies, or --model.remat-every 10."
    )


@contextlib.contextmanager
def explained(shape: Shape, need: MemoryNeed | None, limit: float | None) -> Iterator[None]:
    """A context in which an error of the device for lack of memory says what fits.

    Raises:
        OutOfMemory: there is not enough memory.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sizes = "" if need is None else f" (it needs {need}" + (")" if limit is None else f" of {limit:,.0f} MB)")
        raise OutOfMemory(
            f"a batch of {shape} does not fit into the memory of the device{sizes}; {_remedy(shape, need, limit)}"
        ) from error


def _remedy(shape: Shape, need: MemoryNeed | None, limit: float | None) -> str:
    if shape.rows == 1:
        return "in a new run, use --model.remat-every 10, or a lower --data.max-length."
    rows = fitting_rows(shape, need, limit)
    parts = -(-shape.rows // rows)
    return f"in a new run, use --batch.size {rows}, or --optimizer.accumulate {parts} for the same batch in parts."


def fitting_rows(shape: Shape, need: MemoryNeed | None, limit: float | None) -> int:
    """Pairs whose activations fit beside the rest of the step; half of those that do not, where nothing is known."""
    half = max(1, shape.rows // 2)
    if need is None or limit is None or not need.activations:
        return half
    free = limit - need.parameters - need.optimizer
    return int(min(half, max(1, shape.rows * free // need.activations)))
