"""The mean of the parameters of a run's newest checkpoints."""

from typing import Any, NamedTuple

import jax
import numpy as np

from s2s_jax.model.interface import Params
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.validation import at_least


class Averaged(NamedTuple):
    """The mean, and the steps of the checkpoints."""

    params: Params
    steps: tuple[int, ...]  # oldest first


def newest_average(checkpoints: Checkpoints, example: Any, count: int) -> Averaged:
    """The mean of the evaluation parameters of the `count` newest checkpoints.

    Vaswani et al. 2017, arXiv:1706.03762, 6.1. Summed in float64, with one checkpoint at a time in memory.

    Args:
        example: the form of the run's state, as `Checkpoints.restore` takes it.

    Raises:
        ValueError: there are fewer checkpoints.
        CheckpointError: one of them is damaged; it is named, and none is skipped.
    """
    at_least("average", count, 1)
    steps = checkpoints.steps()
    if count > len(steps):
        raise ValueError(
            f"average={count} needs as many checkpoints, and {checkpoints.directory} holds {len(steps)} (steps "
            f"{', '.join(map(str, steps))}); average fewer, or train with checkpoint.keep={count}."
        )
    each = (checkpoints.restore(example, step=step).tree.evaluation_params for step in steps[-count:])
    first = next(each)
    total = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), first)
    for params in each:
        total = jax.tree.map(lambda whole, leaf: whole + np.asarray(leaf), total, params)
    mean = jax.tree.map(lambda whole, leaf: np.asarray(whole / count, leaf.dtype), total, first)
    return Averaged(mean, tuple(steps[-count:]))
