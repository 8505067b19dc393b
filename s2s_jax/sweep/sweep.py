"""A sweep: a base experiment, axes along which it is changed, seeds, and the axis whose values are compared."""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from s2s_jax.config import Experiment, with_settings
from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.text.sources import SPLITS
from s2s_jax.validation import at_least, checked_value, field_types, one_of

Point = dict[str, str]  # axis -> label of its value
AxisValues = Sequence[Any] | Mapping[str, Mapping[str, Any]]
SplitName = Literal["train", "validation", "test"]


def keep_all(point: Point) -> bool:
    """Return true: the grid keeps every point."""
    return True


def no_settings(point: Point) -> Mapping[str, Any]:
    """Return no additional settings for a point."""
    return {}


class Published(NamedTuple):
    """A published number that a sweep is to reach."""

    label: str  # on the axis that is compared
    metric: str  # one of the sweep's
    value: float
    aim: float | None = None  # what is to be reached, if it is not the value

    def standing(self, mean: float) -> str:
        """`reached`, or how far our mean is from it."""
        wanted = self.value if self.aim is None else self.aim
        short = wanted - mean if METRICS[self.metric].higher_is_better else mean - wanted
        return "reached" if short <= 0 else f"not reached, {short:.4g} short of {wanted:.4g}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A grid of experiments: every combination of the axes' values, trained once per seed."""

    base: Experiment
    """The experiment that every trial starts from."""
    axes: Mapping[str, AxisValues]
    """What differs: a setting's dotted name -> its values, or any name -> {label: {setting: value, ...}}."""
    compare: str
    """The axis whose values are compared."""
    baseline: str
    """The label on that axis that all other labels are compared with."""
    seeds: Sequence[int] = tuple(range(8))
    """Every point is trained once per seed; comparisons are paired by seed."""
    metrics: Sequence[str] = ("exact_match",)
    """Names in `METRICS`; differences in the first one are tested."""
    keep: Callable[[Point], bool] = keep_all
    """Returns whether a point of the grid is kept."""
    adapt: Callable[[Point], Mapping[str, Any]] = no_settings
    """Returns the settings that a point needs in addition to those of its axes."""
    split: SplitName = "test"
    """The split that is read once, at the end, with the checkpoint that validation chose."""
    sentences: int = 0
    """Maximum number of pairs of that split that are read, from its start; 0 reads all."""
    gallery: int = 3
    """Number of sentences, the first of that split, that the report shows for every trial."""
    replicas: bool = False
    """Train all seeds of a point in one program, with all points that differ in `config.VMAPPABLE_SETTINGS` alone."""
    retries: int = 1
    """Number of times that a failed trial is tried again."""
    published: Sequence[Published] = ()
    """Numbers that others have published, to be set beside the means."""

    def __post_init__(self):
        self._check_types()
        for axis, labels in self.labels().items():
            if not labels:
                raise ValueError(f"axis {axis!r} has no values; give it some, or leave it out.")
        one_of("compare", self.compare, self.labels())
        one_of("baseline", self.baseline, self.labels()[self.compare])
        one_of("split", self.split, SPLITS)
        for metric in self.metrics:
            one_of("metrics", metric, METRICS)
        for number in self.published:
            one_of("published.label", number.label, self.labels()[self.compare])
            one_of("published.metric", number.metric, self.metrics)
        if not self.metrics or not self.seeds:
            raise ValueError("a sweep needs at least one seed and one metric.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, got {list(self.seeds)}")
        for name in ("sentences", "gallery", "retries"):
            at_least(name, getattr(self, name), 0)

    def _check_types(self) -> None:
        kinds = field_types(Sweep) | {"seeds": tuple[int, ...], "metrics": tuple[str, ...]}
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for name in (
            "base",
            "compare",
            "baseline",
            "seeds",
            "metrics",
            "split",
            "sentences",
            "gallery",
            "replicas",
            "retries",
        ):
            object.__setattr__(self, name, checked_value(name, getattr(self, name), kinds[name]))
        if not isinstance(self.axes, Mapping):
            raise ValueError(f"axes must be a dict of axis -> values, got {self.axes!r}")
        for axis, values in self.axes.items():
            if isinstance(values, str) or not isinstance(values, Sequence | Mapping):
                raise ValueError(
                    f"axis {axis!r} must be a list of values, or a dict of label -> settings, got {values!r}"
                )

    def labels(self) -> dict[str, tuple[str, ...]]:
        """The labels of each axis, in their order."""
        return {axis: tuple(label_settings(axis, values)) for axis, values in self.axes.items()}


class Trial(NamedTuple):
    """One point of the grid with one seed."""

    point: Point
    seed: int
    experiment: Experiment

    @property
    def title(self) -> str:
        """The readable part of the name of its directory."""
        return f"{point_slug(self.point)}-seed{self.seed}"


def label_settings(axis: str, values: AxisValues) -> dict[str, Mapping[str, Any]]:
    """The settings that each label of an axis stands for."""
    if isinstance(values, Mapping):
        return dict(values)
    return {_label(value): {axis: value} for value in values}


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def point_slug(point: Point) -> str:
    """A point as part of a directory name; two points may share one, since their fingerprints differ."""
    return "-".join(re.sub("[^A-Za-z0-9._]+", "_", label).strip("_") or "_" for label in point.values())


def describe_point(point: Point) -> str:
    """The point as `axis=label, axis=label`."""
    return ", ".join(f"{axis}={label}" for axis, label in point.items())


def grid_points(sweep: Sweep) -> list[Point]:
    """All points that `keep` keeps, the last axis changing fastest.

    Raises:
        ValueError: none is kept, or none with the baseline.
    """
    labels = sweep.labels()
    grid = (dict(zip(labels, combination, strict=True)) for combination in itertools.product(*labels.values()))
    kept = [point for point in grid if sweep.keep(point)]
    if not any(point[sweep.compare] == sweep.baseline for point in kept):
        raise ValueError(
            f"keep() leaves no point with {sweep.compare}={sweep.baseline}, the baseline; keep at least one."
        )
    return kept


def grid_trials(sweep: Sweep) -> Iterator[Trial]:
    """All trials, the seeds of a point together.

    Raises:
        ValueError: a point's settings do not exist or cannot be combined; the message names the point.
    """
    for point in grid_points(sweep):
        settings = point_settings(sweep, point)
        for seed in sweep.seeds:
            try:
                experiment = with_settings(sweep.base, {**settings, "seed": seed})
            except ValueError as error:
                raise ValueError(f"the point {describe_point(point)}: {error}") from None
            yield Trial(point, seed, experiment)


def point_settings(sweep: Sweep, point: Point) -> dict[str, Any]:
    """The settings in which a point differs from the base experiment."""
    settings: dict[str, Any] = {}
    for axis, label in point.items():
        settings |= label_settings(axis, sweep.axes[axis])[label]
    return settings | dict(sweep.adapt(point))
