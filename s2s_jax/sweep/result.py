"""What is known of one cell of a sweep, as its table, its statistics and its report read it?"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

STATUSES = ("waiting", "running", "done", "failed", "diverged")


class ExamplePrediction(NamedTuple):
    """One test sentence and what a cell made of it."""

    source: str
    references: tuple[str, ...]
    text: str
    source_tokens: tuple[str, ...]  # the end token counted
    tokens: tuple[str, ...]
    alignment: Float[np.ndarray, "T S"]  # of the hypothesis; zeros without attention


class TrialResult(NamedTuple):
    """A cell: one point of the grid, one seed. What is not known yet is empty."""

    name: str  # of its folder, readable
    point: dict[str, str]  # axis -> the label of its value
    seed: int
    status: str  # one of STATUSES
    error: str = ""  # one line, where it failed
    how: str = "single"  # or "replicas": trained with others in one program
    settings: dict[str, Any] = {}  # noqa: RUF012 - dotted name -> value, all of them
    parameters: int = 0
    steps: int = 0  # taken
    tokens: int = 0  # target tokens trained on
    seconds: float = 0.0  # of training, compiling and validating left out
    best_step: int = 0  # of the checkpoint that the test split was read with
    metrics: dict[str, float | None] = {}  # noqa: RUF012 - of the test split
    counts: dict[str, Float[np.ndarray, "N K"]] = {}  # noqa: RUF012 - `evaluate.counts`: metric -> numbers a source
    lengths: Int[np.ndarray, " N"] = np.zeros(0, np.int64)  # source tokens, in the order of the counts
    curves: dict[str, list[tuple[int, float]]] = {}  # noqa: RUF012 - metric of validation -> (step, value)
    gallery: tuple[ExamplePrediction, ...] = ()  # the same sentences in every cell


class SweepResults(NamedTuple):
    """A sweep and its cells, ready to be judged."""

    name: str
    claim: str  # what it is to show, the first lines of the sweep file's docstring
    command: str  # that makes it
    axes: dict[str, tuple[str, ...]]  # axis -> labels, in their order
    compare: str  # the axis whose values are compared
    baseline: str  # the label on it that the others are compared with
    metrics: tuple[str, ...]  # the first is the one that is tested
    results: tuple[TrialResult, ...]
