"""When a run is validated, and when it stops: after its steps, its budget, or validations without improvement."""

import dataclasses
import math
from typing import Literal, NamedTuple

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
    sentences: int = 200
    """Validation lines translated greedily, for metrics of translations; 0 for none. The loss is over all pairs."""
    metric: MetricName = "loss"
    """The metric by which a checkpoint is best and the run stops early: loss, bleu, wer or another of METRICS."""
    patience: int = 0
    """Validations without improvement after which the run stops; 0 for never."""

    def __post_init__(self):
        check_fields(self, "validation")
        at_least("validation.every", self.every, 1)
        at_least("validation.sentences", self.sentences, 0)
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


class StopPolicy(NamedTuple):
    """When a run is validated, and when it stops."""

    steps: int
    validation: ValidationConfig
    budget: BudgetConfig

    def is_validated(self, step: int, progress: TrainProgress) -> bool:
        """Whether there is a validation after a step."""
        due = step % self.validation.every == 0 or step == self.steps
        return step > 0 and (due or self._is_spent(progress))

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
