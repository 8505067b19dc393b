"""What is a sweep? A base experiment, axes along which it is changed, seeds, and the axis that is compared."""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from s2s_jax.config import Experiment, with_settings
from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.validation import at_least, one_of

Point = dict[str, str]  # axis -> the label of its value
Values = Sequence[Any] | Mapping[str, Mapping[str, Any]]


def everything(point: Point) -> bool:
    """Keep all points of the grid."""
    return True


def nothing(point: Point) -> Mapping[str, Any]:
    """No point needs a setting of its own."""
    return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A grid of experiments: every combination of the axes' values, once a seed."""

    base: Experiment
    axes: Mapping[str, Values]
    """What differs: a setting's dotted name -> its values, or any name -> {label: {setting: value, ...}}."""
    compare: str
    """The axis whose values are compared."""
    baseline: str
    """The label on that axis with which the others are compared."""
    seeds: Sequence[int] = tuple(range(8))
    """Each point is trained once a seed; seeds are what a comparison is paired by."""
    metrics: Sequence[str] = ("exact_match",)
    """Names of `evaluate.counts`; differences in the first are tested."""
    keep: Callable[[Point], bool] = everything
    """Which points of the grid to keep."""
    adapt: Callable[[Point], Mapping[str, Any]] = nothing
    """Settings that a point needs besides its own."""
    split: str = "test"
    """The split that is read once, at the end, with the checkpoint that validation chose."""
    sentences: int = 0
    """Most pairs of that split that are read, the first ones; 0 for all."""
    gallery: int = 3
    """How many of its first sentences the report shows under every cell."""
    replicas: bool = False
    """Train all seeds of a point in one program, with those of points that differ from it in `config.TOLD` alone."""
    retries: int = 1
    """How often a cell that failed is tried again."""

    def __post_init__(self):
        for axis, labels in self.labels().items():
            if not labels:
                raise ValueError(f"axis {axis!r} has no values; give it some, or leave it out.")
        one_of("compare", self.compare, self.labels())
        one_of("baseline", self.baseline, self.labels()[self.compare])
        for metric in self.metrics:
            one_of("metrics", metric, METRICS)
        if not self.metrics or not self.seeds:
            raise ValueError("a sweep needs one seed and one metric at least.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {list(self.seeds)}")
        at_least("sentences", self.sentences, 0)
        at_least("gallery", self.gallery, 0)
        at_least("retries", self.retries, 0)

    def labels(self) -> dict[str, tuple[str, ...]]:
        """The labels of each axis, in their order."""
        return {axis: tuple(variants(axis, values)) for axis, values in self.axes.items()}


class Trial(NamedTuple):
    """One point of the grid with one seed."""

    point: Point
    seed: int
    experiment: Experiment

    @property
    def title(self) -> str:
        """The readable part of its folder's name."""
        return f"{slug(self.point)}-seed{self.seed}"


def variants(axis: str, values: Values) -> dict[str, Mapping[str, Any]]:
    """The settings behind each label of an axis."""
    if isinstance(values, Mapping):
        return dict(values)
    return {_label(value): {axis: value} for value in values}


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def slug(point: Point) -> str:
    """A point as a name for a folder; two points may share one, their fingerprints differ."""
    return "-".join(re.sub("[^A-Za-z0-9._]+", "_", label).strip("_") or "_" for label in point.values())


def points(sweep: Sweep) -> list[Point]:
    """All points that are kept, the last axis changing fastest.

    Raises:
        ValueError: none is kept, or none with the baseline.
    """
    labels = sweep.labels()
    grid = (dict(zip(labels, chosen, strict=True)) for chosen in itertools.product(*labels.values()))
    kept = [point for point in grid if sweep.keep(point)]
    if not any(point[sweep.compare] == sweep.baseline for point in kept):
        raise ValueError(f"keep() leaves no point with {sweep.compare}={sweep.baseline}, the baseline; let one stand.")
    return kept


def trials(sweep: Sweep) -> Iterator[Trial]:
    """All cells, a point's seeds together.

    Raises:
        ValueError: a point's settings do not exist or do not go together, with the point.
    """
    for point in points(sweep):
        settings = settings_of(sweep, point)
        for seed in sweep.seeds:
            try:
                experiment = with_settings(sweep.base, {**settings, "seed": seed})
            except ValueError as error:
                said = ", ".join(f"{axis}={label}" for axis, label in point.items())
                raise ValueError(f"the point {said}: {error}") from None
            yield Trial(point, seed, experiment)


def settings_of(sweep: Sweep, point: Point) -> dict[str, Any]:
    """What a point changes in the base experiment."""
    found: dict[str, Any] = {}
    for axis, label in point.items():
        found |= variants(axis, sweep.axes[axis])[label]
    return found | dict(sweep.adapt(point))
