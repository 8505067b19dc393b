"""A tuning: the settings that are searched for, their ranges, and how many trials the search may take."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from s2s_jax.config import Experiment, with_settings
from s2s_jax.validation import at_least, checked_value, field_types, one_of

SamplerName = Literal["tpe", "random"]
SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler"}  # name -> class in `optuna.samplers`
PrunerName = Literal["median", "asha", "hyperband"]
PRUNERS = {  # name -> class in `optuna.pruners`
    "median": "MedianPruner",
    "asha": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}


class Range(NamedTuple):
    """Numbers from low to high, both included; whole numbers where both are whole."""

    low: float
    high: float
    log: bool = False  # sample the logarithm uniformly

    def check(self, setting: str) -> None:
        """Refuse an empty or an endless range, or a logarithmic one that reaches zero."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError(f"ranges: {setting} must have finite ends, got {self.low} and {self.high}")
        if not self.low <= self.high:
            raise ValueError(f"ranges: {setting} must have low <= high, got {self.low} and {self.high}")
        if self.log and not self.low > 0:
            raise ValueError(f"ranges: {setting} is logarithmic, so low must be above 0, got {self.low}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """A search for good settings by the best value of `base.validation.metric`; the test split is never read."""

    base: Experiment
    """The experiment whose settings are tuned."""
    ranges: Mapping[str, Range | Sequence[Any]]
    """A setting's dotted name -> the range, or the values, that it is searched in."""
    trials: int = 50
    """Number of trials."""
    sampler: SamplerName = "tpe"
    """tpe (tree-structured Parzen estimator, Bergstra et al. 2011) or random."""
    prune: bool = True
    """Stop a trial early that `pruner` does not expect to become the best."""
    pruner: PrunerName = "median"
    """median (worse than the median of earlier trials at the same step), asha (Asynchronous Successive Halving,
    Li et al. 2020, arXiv:1810.05934: at each rung the best 1 in `reduction` goes on) or hyperband (several of those,
    that begin to prune at different steps; Li et al. 2018, arXiv:1603.06560)."""
    reduction: int = 3
    """asha, hyperband: trials of which one goes on, and by how much longer it is trained then."""
    storage: str = ""
    """Where trials are stored: any storage URL of Optuna; empty for a journal in the folder."""

    def __post_init__(self):
        kinds = field_types(Tuning)
        for name in ("base", "trials", "sampler", "prune", "pruner", "reduction", "storage"):
            object.__setattr__(self, name, checked_value(name, getattr(self, name), kinds[name]))
        at_least("trials", self.trials, 1)
        one_of("sampler", self.sampler, SAMPLERS)
        one_of("pruner", self.pruner, PRUNERS)
        at_least("reduction", self.reduction, 2)
        if not self.ranges:
            raise ValueError("a tuning needs at least one range.")
        for setting, values in self.ranges.items():
            if isinstance(values, Range):
                values.check(setting)
            elif isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"ranges: {setting} must be a Range or a list of values, got {values!r}")
        with_settings(self.base, {setting: first_value(values) for setting, values in self.ranges.items()})


def first_value(values: Range | Sequence[Any]) -> Any:
    """One value that a range or a list of values holds."""
    return values.low if isinstance(values, Range) else values[0]
