"""Hyperparameter tuning: Optuna proposes settings, and each proposal is trained as the trial of a sweep is."""

import concurrent.futures
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.config import with_settings
from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.extras import needs_extra
from s2s_jax.run.check import check_trainable
from s2s_jax.sweep.executors.local import Worker
from s2s_jax.sweep.fingerprint import check_same_package, trial_fingerprint, trial_identity
from s2s_jax.sweep.results import validation_curves
from s2s_jax.sweep.trial import TrialSpec
from s2s_jax.sweep.trial_files import read_outcome
from s2s_jax.sweep.tuning import SAMPLERS, Range, Tuning
from s2s_jax.training.accelerators import Share
from s2s_jax.training.lock import Lock
from s2s_jax.training.metrics_writer import read_metrics
from s2s_jax.training.signals import SignalGuard


class TuningResult(NamedTuple):
    """The outcome of a tuning."""

    trials: int  # that have ended, also pruned and failed ones
    settings: dict[str, Any]  # of the best trial
    value: float | None  # its `validation.metric`; None if no trial was done
    signal: int  # that asked for an end; 0 for none


def tune(tuning: Tuning, folder: Path, log: Callable[[str], None]) -> TuningResult:
    """Try settings until `trials` have ended; earlier trials count, interrupted ones are tried again.

    Args:
        log: called with one line per trial.

    Raises:
        ValueError: Optuna is not installed, or a proposed experiment cannot be trained, or earlier trials were trained
            by another version of this package.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError(needs_extra("a tuning", "tune")) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder), SignalGuard() as interrupt:
        study = _study(optuna, tuning, folder)
        if _ended(study) < tuning.trials:
            check_same_package((folder / "trials").glob("*"))
        while _ended(study) < tuning.trials and not interrupt.number:
            trial = study.ask({name: _distribution(optuna, values) for name, values in tuning.ranges.items()})
            value, status = _run(tuning, trial, folder, interrupt)
            if status == "stopped":
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                study.enqueue_trial(trial.params)
                break
            states = {"done": None, "pruned": optuna.trial.TrialState.PRUNED}
            state = states.get(status, optuna.trial.TrialState.FAIL)
            study.tell(trial, value if state is None else None, state=state)
            number = "" if value is None else f" {tuning.base.validation.metric} {value:.4f}"
            log(f"trial {_ended(study)} of {tuning.trials}: {status}{number} {trial.params}")
        best = study.best_trial if any(trial.state.name == "COMPLETE" for trial in study.trials) else None
        return TuningResult(_ended(study), best.params if best else {}, best.value if best else None, interrupt.number)


def _study(optuna: Any, tuning: Tuning, folder: Path) -> Any:
    """Optuna's study, in which trials that were running when the tuning was killed wait to be tried again."""
    study = optuna.create_study(
        study_name=folder.name,
        storage=tuning.storage or _journal(optuna, folder),
        sampler=getattr(optuna.samplers, SAMPLERS[tuning.sampler])(seed=tuning.base.seed),
        pruner=optuna.pruners.MedianPruner() if tuning.prune else optuna.pruners.NopPruner(),
        direction="maximize" if METRICS[tuning.base.validation.metric].higher_is_better else "minimize",
        load_if_exists=True,
    )
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _journal(optuna: Any, folder: Path) -> Any:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "trials.log")))


def _ended(study: Any) -> int:
    """Number of trials that have ended, without those that were interrupted and wait to be tried again."""
    failed = [trial for trial in study.trials if trial.state.name == "FAIL" and "status" in trial.user_attrs]
    return len(failed) + sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in study.trials)


def _distribution(optuna: Any, values: Range | Sequence[Any]) -> Any:
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(list(values))
    whole = isinstance(values.low, int) and isinstance(values.high, int)
    kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _run(tuning: Tuning, trial: Any, folder: Path, interrupt: SignalGuard) -> tuple[float | None, str]:
    """The best validation value of a trial, and how it ended: done, pruned, failed, diverged or stopped."""
    metric = tuning.base.validation.metric
    spec = _spec(tuning, trial, folder)
    worker = Worker(Share({}))
    reported, pruned = 0, False
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        running = thread.submit(worker.run, (spec,), retries=0)
        while True:
            ended = running in concurrent.futures.wait([running], timeout=0.2).done
            curve = validation_curves(read_metrics(spec.folder / "run" / "metrics.jsonl")).get(metric, [])
            for step, value in curve[reported:]:
                trial.report(value, step)
                if not (pruned or ended) and trial.should_prune():
                    pruned = True
                    worker.stop()
            reported = len(curve)
            if ended:
                break
            if interrupt.number:
                worker.stop()
        status = "pruned" if pruned else running.result()
    worker.close()
    if status in ("failed", "diverged"):
        trial.set_user_attr("status", f"{status}: {read_outcome(spec.folder)['error']}")
    best = max if METRICS[metric].higher_is_better else min
    return best((value for _, value in curve), default=None), status


def _spec(tuning: Tuning, trial: Any, folder: Path) -> TrialSpec:
    experiment = with_settings(tuning.base, trial.params)
    check_trainable(experiment)
    identity = trial_identity(experiment, {})
    return TrialSpec(
        folder=folder / "trials" / f"trial-{trial_fingerprint(identity)}",
        experiment=experiment,
        point={name: str(value) for name, value in trial.params.items()},
        identity=identity,
        split="",
        sentences=0,
        gallery=0,
    )
