"""When a run is validated, and when it stops: after its steps, its budget, or validations without improvement."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from s2s_jax.validation import at_least, check_fields

# the names of `evaluate.metrics.METRICS`, which is a floor above this one; the experiment checks the name
MetricName = Literal[
    "exact_match",
    "exact_match_per_line",
    "bleu",
    "chrf",
    "wer",
    "wer_per_line",
    "per",
    "per_per_line",
    "loss",
    "perplexity",
    "token_accuracy",
    "exposure_gap",
    "aer",
    "attention_entropy",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """When and by which metric a run is validated."""

    every: int = 500
    """Steps between two validations."""
    every_epochs: int = 0
    """Epochs between two validations, instead of steps; 0 for validation.every."""
    sentences: int = 200
    """Validation lines translated for metrics of translations; 0 for none. The loss is over all pairs."""
    beam: int = 1
    """Hypotheses kept per validation line, with the settings of `search` above 1; 1 is greedy search."""
    metric: MetricName = "loss"
    """The metric by which a checkpoint is best and the run stops early: loss, bleu, wer or another of METRICS."""
    patience: int = 0
    """Validations without improvement after which the run stops; 0 for never."""

    def __post_init__(self):
        check_fields(self, "validation")
        at_least("validation.every", self.every, 1)
        for name in ("every_epochs", "sentences"):
            at_least(f"validation.{name}", getattr(self, name), 0)
        at_least("validation.beam", self.beam, 1)
        at_least("validation.patience", self.patience, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """Bounds on what a run uses, besides its steps; learning rate schedules go by steps all the same."""

    tokens: int = 0
    """Target tokens after which the run is validated and stops; 0 for no bound."""
    seconds: float = 0.0
    """Seconds of training, without compiling and validating, after which it is validated and stops; 0 for no bound."""

    def __post_init__(self):
        check_fields(self, "budget")
        at_least("budget.tokens", self.tokens, 0)
        at_least("budget.seconds", self.seconds, 0)


class TrainProgress(NamedTuple):
    """The progress of a run; saved with every checkpoint, so that a resumed run stops where it would have."""

    best: float = math.inf  # lowest cost of a validation
    stale: int = 0  # validations since then
    at: int = 0  # step of the last validation
    tokens: float = 0.0  # target tokens trained on
    seconds: float = 0.0  # of training, without compiling and validating
    # of a plateau schedule, by the regular validations alone, so that a run that ends between two can be continued
    plateau_best: float = math.inf  # lowest cost
    plateau_stale: int = 0  # validations since then, or since the last decay
    decays: int = 0  # of the learning rate

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them: null is infinite."""
        return {name: None if value == math.inf else value for name, value in self._asdict().items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "TrainProgress":
        """The progress in a record of `to_json`; fields that it lacks are those of a run's start."""
        known: dict[str, Any] = {name: record[name] for name in cls._fields if name in record}
        infinite: dict[str, Any] = {name: math.inf for name, value in known.items() if value is None}
        return cls(**{**known, **infinite})


class StopPolicy(NamedTuple):
    """When a run is validated, and when it stops."""

    steps: int
    validation: ValidationConfig
    budget: BudgetConfig
    per_epoch: int = 0  # steps of an epoch
    decay_patience: int = 0  # validations without improvement after which the learning rate decays; 0 for never

    @property
    def every(self) -> int:
        """Steps between two validations."""
        return self.validation.every_epochs * self.per_epoch or self.validation.every

    def is_validated(self, step: int, progress: TrainProgress) -> bool:
        """Whether there is a validation after a step."""
        due = step % self.every == 0 or step == self.steps
        return step > 0 and (due or self._is_spent(progress))

    def after_validation(self, progress: TrainProgress, step: int, cost: float) -> tuple[TrainProgress, bool]:
        """The progress after a validation of a cost, and whether it is the best so far."""
        better = cost < progress.best
        best, stale = (cost, 0) if better else (progress.best, progress.stale + 1)
        progress = progress._replace(best=best, stale=stale, at=step)
        return (self._on_plateau(progress, cost) if step % self.every == 0 else progress), better

    def _on_plateau(self, progress: TrainProgress, cost: float) -> TrainProgress:
        """The progress, with a decay where as many validations as are waited for were no better."""
        if cost < progress.plateau_best:
            return progress._replace(plateau_best=cost, plateau_stale=0)
        stale = progress.plateau_stale + 1
        if not 0 < self.decay_patience <= stale:
            return progress._replace(plateau_stale=stale)
        return progress._replace(plateau_stale=0, decays=progress.decays + 1)

    def reason(self, step: int, progress: TrainProgress) -> str | None:
        """Why the run stops after a step; None while it goes on or is still to be validated."""
        if step > self.steps:
            return "all steps are taken"
        if progress.at < step:
            return None
        if 0 < self.validation.patience <= progress.stale:
            return f"{progress.stale} validations without a better one"
        if self._is_spent(progress):
            return f"its budget is spent: {progress.tokens:,.0f} target tokens, {progress.seconds:,.0f} s"
        return "all steps are taken" if step == self.steps else None

    def _is_spent(self, progress: TrainProgress) -> bool:
        budget = self.budget
        return 0 < budget.tokens <= progress.tokens or 0 < budget.seconds <= progress.seconds
