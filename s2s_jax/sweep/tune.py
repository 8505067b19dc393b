"""Hyperparameter tuning: Optuna proposes settings, and each proposal is trained as the trial of a sweep is."""

import concurrent.futures
import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.config import with_settings
from s2s_jax.evaluate.metrics import METRICS
from s2s_jax.extras import needs_extra
from s2s_jax.run.check import check_trainable
from s2s_jax.sweep.executors.interface import ExecutorConfig
from s2s_jax.sweep.executors.local import Worker, machine_shares
from s2s_jax.sweep.fingerprint import (
    check_same_package,
    read_known_data,
    trial_fingerprint,
    trial_identity,
    write_known_data,
)
from s2s_jax.sweep.results import validation_curves
from s2s_jax.sweep.trial import TrialSpec
from s2s_jax.sweep.trial_files import read_outcome
from s2s_jax.sweep.tuning import PRUNERS, SAMPLERS, Range, Tuning
from s2s_jax.training.lock import Lock
from s2s_jax.training.metrics_writer import read_metrics
from s2s_jax.training.signals import SignalGuard

POLL_SECONDS = 0.2


class TuningResult(NamedTuple):
    """The outcome of a tuning."""

    trials: int  # that have ended, also pruned and failed ones
    pruned: int
    failed: int  # or diverged
    settings: dict[str, Any]  # of the best trial
    value: float | None  # its `validation.metric`; None if no trial was done
    signal: int  # that asked for an end; 0 for none


def tune(
    tuning: Tuning, folder: Path, log: Callable[[str], None], config: ExecutorConfig | None = None
) -> TuningResult:
    """Try settings until `trials` have ended; earlier trials count, interrupted ones are tried again.

    Args:
        log: called with one line per trial.
        config: how many trials run at a time on this machine, one by default, and what each takes of it.

    Raises:
        ValueError: Optuna is not installed, or a proposed experiment cannot be trained, or earlier trials were trained
            by another version of this package, or there are too few devices.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError(needs_extra("a tuning", "tune")) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = config or ExecutorConfig()
    if config.name != "local":
        raise ValueError(f"--executor {config.name}: a tuning runs its trials on this machine; leave it out.")
    shares = machine_shares([tuning.base.device.count], dataclasses.replace(config, jobs=config.jobs or 1))
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder), SignalGuard() as interrupt:
        search = _Search(optuna, tuning, folder, log)
        if search.ended() < tuning.trials:
            check_same_package((folder / "trials").glob("*"))
        workers = [Worker(share) for share in shares]
        with concurrent.futures.ThreadPoolExecutor(len(workers)) as threads:
            running = {threads.submit(search.run, worker) for worker in workers}
            while running:
                done, running = concurrent.futures.wait(running, timeout=POLL_SECONDS)
                errors = [error for future in done if (error := future.exception()) is not None]
                if interrupt.number or errors:
                    for worker in workers:
                        worker.stop()
                for error in errors:
                    raise error
        return search.result(interrupt.number)


class _Search:
    """Optuna's study, and the trials that are running."""

    def __init__(self, optuna: Any, tuning: Tuning, folder: Path, log: Callable[[str], None]):
        self._optuna, self._tuning, self._folder, self._log = optuna, tuning, folder, log
        self._states, self._study = optuna.trial.TrialState, _study(optuna, tuning, folder)
        self._lock, self._running = threading.Lock(), 0  # what follows is used by several threads
        self._known = read_known_data(folder)
        self._ranges = {name: _distribution(optuna, values) for name, values in tuning.ranges.items()}

    def ended(self) -> int:
        """Number of trials that have ended, without those that were interrupted and wait to be tried again."""
        return sum(self._counts().values())

    def _counts(self) -> Counter[str]:
        trials = self._study.get_trials(deepcopy=False)
        names = [trial.state.name for trial in trials if trial.state.name != "FAIL" or "status" in trial.user_attrs]
        return Counter(name for name in names if name in ("COMPLETE", "PRUNED", "FAIL"))

    def result(self, signal: int) -> TuningResult:
        """How the tuning has ended."""
        counts = self._counts()
        best = self._study.best_trial if counts["COMPLETE"] else None
        found = ({}, None) if best is None else (best.params, best.value)
        return TuningResult(self.ended(), counts["PRUNED"], counts["FAIL"], *found, signal)

    def run(self, worker: Worker) -> None:
        """Try settings with a worker until enough trials have ended, or the worker is stopped."""
        try:
            while not worker.stopping:
                with self._lock:
                    if self.ended() + self._running >= self._tuning.trials:
                        return
                    self._running += 1
                    trial = self._study.ask(self._ranges)
                    spec = self._spec(trial)
                value, status, step = self._follow(worker, trial, spec)
                with self._lock:
                    self._running -= 1
                    self._conclude(trial, spec, value, status, step)
        finally:
            worker.close()

    def _spec(self, trial: Any) -> TrialSpec:
        experiment, known = with_settings(self._tuning.base, trial.params), len(self._known)
        check_trainable(experiment)
        identity = trial_identity(experiment, self._known)
        if len(self._known) > known:
            write_known_data(self._folder, self._known)
        return TrialSpec(
            folder=self._folder / "trials" / f"trial-{trial_fingerprint(identity)}",
            experiment=experiment,
            point={name: str(value) for name, value in trial.params.items()},
            identity=identity,
            split="",
            sentences=0,
            gallery=0,
        )

    def _follow(self, worker: Worker, trial: Any, spec: TrialSpec) -> tuple[float | None, str, int]:
        """The best validation value of a trial, its status ("pruned" too), and the step of its last validation."""
        metric = self._tuning.base.validation.metric
        reported, pruned = 0, False
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            running = thread.submit(worker.run, (spec,), retries=0)
            while True:
                ended = running in concurrent.futures.wait([running], timeout=POLL_SECONDS).done
                curve = validation_curves(read_metrics(spec.folder / "run" / "metrics.jsonl")).get(metric, [])
                for step, value in curve[reported:]:
                    trial.report(value, step)
                    if not (pruned or ended) and trial.should_prune():
                        pruned = True
                        worker.interrupt()
                reported = len(curve)
                if ended:
                    break
        best = max if METRICS[metric].higher_is_better else min
        value = best((value for _, value in curve), default=None)
        status = running.result()  # one that has ended before it could be stopped is not pruned
        return value, "pruned" if pruned and status == "stopped" else status, curve[-1][0] if curve else 0

    def _conclude(self, trial: Any, spec: TrialSpec, value: float | None, status: str, step: int) -> None:
        """Record and log how a trial ended; one that was interrupted waits to be tried again."""
        if status == "stopped":
            self._study.tell(trial, state=self._states.FAIL)
            self._study.enqueue_trial(trial.params)
            return
        if status == "done":
            self._study.tell(trial, value)
        elif status == "pruned":
            self._study.tell(trial, state=self._states.PRUNED)
            status = f"pruned at step {step:,} of {spec.experiment.steps:,},"
        else:
            trial.set_user_attr("status", f"{status}: {read_outcome(spec.folder)['error']}")
            self._study.tell(trial, state=self._states.FAIL)
        number = "" if value is None else f" {self._tuning.base.validation.metric} {value:.4f}"
        self._log(f"trial {self.ended()} of {self._tuning.trials}: {status}{number} {trial.params}")


def _study(optuna: Any, tuning: Tuning, folder: Path) -> Any:
    """Optuna's study, in which trials that were running when the tuning was killed wait to be tried again."""
    study = optuna.create_study(
        study_name=folder.name,
        storage=tuning.storage or _journal(optuna, folder),
        pruner=_pruner(optuna, tuning),
        direction="maximize" if METRICS[tuning.base.validation.metric].higher_is_better else "minimize",
        load_if_exists=True,
    )
    seed = tuning.base.seed + len(study.trials)  # with that of an earlier call it would propose the same again
    study.sampler = getattr(optuna.samplers, SAMPLERS[tuning.sampler])(seed=seed)
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _pruner(optuna: Any, tuning: Tuning) -> Any:
    """Optuna's pruner; the resource that rungs are counted in is a step, of which the first validation is the least."""
    if not tuning.prune:
        return optuna.pruners.NopPruner()
    base, kind = tuning.base, getattr(optuna.pruners, PRUNERS[tuning.pruner])
    first = max(1, base.validation.every)
    rungs = {"min_resource": first, "reduction_factor": tuning.reduction}
    most = "auto" if base.epochs else max(first, base.steps)  # the steps of epochs are known after the first trial
    options = {"asha": rungs, "hyperband": {**rungs, "max_resource": most}}
    return kind(**options.get(tuning.pruner, {}))


def _journal(optuna: Any, folder: Path) -> Any:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "trials.log")))


def _distribution(optuna: Any, values: Range | Sequence[Any]) -> Any:
    if not isinstance(values, Range):
        return optuna.distributions.CategoricalDistribution(list(values))
    whole = isinstance(values.low, int) and isinstance(values.high, int)
    kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)
