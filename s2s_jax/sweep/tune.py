"""Which settings do best on the validation data? Optuna proposes, the cells of a sweep are its trials."""

import concurrent.futures
import dataclasses
import queue
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.config import Experiment, with_settings
from s2s_jax.run.trainer import check_trainable
from s2s_jax.sweep.executors.local import Worker
from s2s_jax.sweep.fingerprint import fingerprint, identity_of
from s2s_jax.sweep.results import curves, metrics_of
from s2s_jax.sweep.trial import TrialSpec, outcome
from s2s_jax.train.lock import Lock
from s2s_jax.train.loop import LOWER_IS_BETTER
from s2s_jax.train.signals import SignalGuard
from s2s_jax.validation import at_least, one_of

SAMPLERS = ("tpe", "random")


class Range(NamedTuple):
    """Numbers from low to high, whole ones where both are whole."""

    low: float
    high: float
    log: bool = False  # as many between 0.01 and 0.1 as between 0.1 and 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """A search for good settings by the best value of `base.validation.metric`; the test split is never read."""

    base: Experiment
    ranges: Mapping[str, Range | Sequence[Any]]
    """A setting's dotted name -> the range, or the values, that it is looked for in."""
    trials: int = 50
    """Settings that are tried."""
    sampler: str = "tpe"
    """tpe (Bergstra et al. 2011) or random."""
    prune: bool = True
    """Stop a trial whose validation is worse than the median of the others at that step."""
    storage: str = ""
    """Where trials are kept: any storage URL of Optuna's; empty for a journal in the folder."""

    def __post_init__(self):
        at_least("trials", self.trials, 1)
        one_of("sampler", self.sampler, SAMPLERS)
        if not self.ranges:
            raise ValueError("a tuning needs one range at least.")
        with_settings(self.base, {name: _least(values) for name, values in self.ranges.items()})


class Tuned(NamedTuple):
    """What came of a tuning."""

    trials: int  # that have ended, pruned and failed ones too
    settings: dict[str, Any]  # of the best
    value: float | None  # of the best, as `validation.metric` is written; None where no trial was done
    signal: int  # that asked for an end, 0 for none


def _least(values: Range | Sequence[Any]) -> Any:
    return values.low if isinstance(values, Range) else values[0]


def tune(tuning: Tuning, folder: Path, say: Callable[[str], None]) -> Tuned:
    """Try settings until `trials` have ended; what was tried before counts, what was under way is tried again.

    Raises:
        ValueError: Optuna is not installed, or a proposed experiment cannot be trained.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError("a tuning needs Optuna; pip install 's2s_jax[tune]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    lower = LOWER_IS_BETTER[tuning.base.validation.metric]
    with Lock(folder), SignalGuard() as interrupt:
        study = optuna.create_study(
            study_name=folder.name,
            storage=tuning.storage or _journal(optuna, folder),
            sampler=_sampler(optuna, tuning),
            pruner=optuna.pruners.MedianPruner() if tuning.prune else optuna.pruners.NopPruner(),
            direction="minimize" if lower else "maximize",
            load_if_exists=True,
        )
        for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # of a tuning that was killed
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params)
        while _ended(study) < tuning.trials and not interrupt.number:
            trial = study.ask({name: _distribution(optuna, values) for name, values in tuning.ranges.items()})
            value, status = _tried(tuning, trial, folder, interrupt)
            if status == "stopped":
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                study.enqueue_trial(trial.params)
                break
            states = {"done": None, "pruned": optuna.trial.TrialState.PRUNED}
            state = states.get(status, optuna.trial.TrialState.FAIL)
            study.tell(trial, value if state is None else None, state=state)
            told = "" if value is None else f" {tuning.base.validation.metric} {value:.4f}"
            say(f"trial {_ended(study)} of {tuning.trials}: {status}{told} {trial.params}")
        best = study.best_trial if any(trial.state.name == "COMPLETE" for trial in study.trials) else None
        return Tuned(_ended(study), best.params if best else {}, best.value if best else None, interrupt.number)


def _journal(optuna: Any, folder: Path) -> Any:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "trials.log")))


def _sampler(optuna: Any, tuning: Tuning) -> Any:
    kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    return kinds[tuning.sampler](seed=tuning.base.seed)


def _ended(study: Any) -> int:
    """Trials that have ended; those that were stopped from outside wait to be tried again and do not count."""
    failed = [trial for trial in study.trials if trial.state.name == "FAIL" and "status" in trial.user_attrs]
    return len(failed) + sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


def _distribution(optuna: Any, values: Range | Sequence[Any]) -> Any:
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(list(values))
    whole = isinstance(values.low, int) and isinstance(values.high, int)
    kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _tried(tuning: Tuning, trial: Any, folder: Path, interrupt: SignalGuard) -> tuple[float | None, str]:
    """The best validation of a trial, and how it ended: done, pruned, failed, diverged or stopped."""
    experiment = with_settings(tuning.base, trial.params)
    check_trainable(experiment)
    identity = identity_of(experiment, {})
    point = {name: str(value) for name, value in trial.params.items()}
    place = folder / "cells" / f"trial-{fingerprint(identity)}"
    work = TrialSpec(
        folder=place, experiment=experiment, point=point, identity=identity, split="", sentences=0, gallery=0
    )
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    waiting.put((work,))
    statuses: list[str] = []
    lane = Worker(0, 1, waiting, lambda _, status: statuses.append(status), 0)
    seen, pruned = 0, False
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        running = thread.submit(lane.run)
        while True:
            over = running in concurrent.futures.wait([running], timeout=0.2).done
            found = curves(metrics_of(place)).get(tuning.base.validation.metric, [])
            for step, value in found[seen:]:
                trial.report(value, step)
                if not (pruned or over) and trial.should_prune():
                    pruned = True
                    lane.stop()
            seen = len(found)
            if over:
                break
            if interrupt.number:
                lane.stop()
        running.result()
    status = "pruned" if pruned else statuses[0]
    if status in ("failed", "diverged"):
        trial.set_user_attr("status", f"{status}: {outcome(place)['error']}")
    best = min if LOWER_IS_BETTER[tuning.base.validation.metric] else max
    return best((value for _, value in found), default=None), status
