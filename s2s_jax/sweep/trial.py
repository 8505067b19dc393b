"""One trial: trained, translated and scored in stages, each kept on disk and repeated only when its inputs change."""

import dataclasses
import json
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.console import Console

from s2s_jax import run
from s2s_jax.config import Experiment, to_json
from s2s_jax.imports import import_code
from s2s_jax.run.inputs import kept_inputs
from s2s_jax.run.run_dir import write_sealed
from s2s_jax.sweep.heartbeat import Heartbeat, wait_until_free
from s2s_jax.sweep.predictions import predict_split, score_predictions
from s2s_jax.sweep.trial_files import (
    LOG_FILE,
    OUTCOME_FILE,
    SCORES_FILE,
    TRANSLATIONS_FILE,
    TRIAL_FILE,
    TRIAL_FORMAT,
    launch_mode,
    read_counts,
    read_outcome,
    read_record,
    record_failure,
    record_success,
    translations_digest,
    write_counts,
)
from s2s_jax.training.checkpoint.pytree_io import digest
from s2s_jax.training.devices import keep_freed_memory
from s2s_jax.training.lock import RunLockedError
from s2s_jax.training.loop import NotFinite
from s2s_jax.training.signals import Interrupted, SignalGuard

SCORING_VERSION = 1  # raised when the scores of the same translations change, so that they are computed again


class TrialSpec(NamedTuple):
    """A trial as a worker on any machine receives it; it does not need the sweep's file."""

    folder: Path
    experiment: Experiment
    point: dict[str, str]
    identity: dict[str, Any]
    split: str  # the split that is scored; empty for none
    sentences: int
    gallery: int


TrialGroup = tuple[TrialSpec, ...]  # what one process trains at once: one trial, or several as replicas


def run_interruptible(group: TrialGroup) -> str:
    """Run a group in a worker process, with the code that its experiments import.

    Returns:
        As `run_group`, or "stopped": a signal arrived and the state is saved. Stages other than training finish first.
    """
    try:
        with SignalGuard(), Heartbeat([spec.folder for spec in group]):
            return _import_and_run(group)
    except Interrupted:
        return "stopped"


def _import_and_run(group: TrialGroup) -> str:
    try:
        for spec in group:
            import_code(spec.experiment.imports)
    except Exception as error:
        for spec in group:
            begin_trial(spec)
            record_failure(spec.folder, error)
        return "failed"
    return run_group(group)


def run_group(group: TrialGroup) -> str:
    """Run one trial, or several in one program; trials that are complete are left as they are.

    Returns:
        "done" if all are done, else the worst other outcome.

    Raises:
        Interrupted: a signal asked for an end; the state is saved.
    """
    try:
        for spec in group:
            wait_until_free(spec.folder)
    except RunLockedError as error:
        return worst([record_failure(spec.folder, error) for spec in group])
    group = tuple(spec for spec in group if not is_complete(spec))
    if not group:
        return "done"
    keep_freed_memory()
    if len(group) == 1 and launch_mode(group[0].folder) != "replicas":
        return run_trial(group[0])
    for spec in group:
        begin_trial(spec, mode="replicas")
    for spec in group[1:]:
        (spec.folder / LOG_FILE).write_text(f"trained together with {group[0].folder.name}; see its {LOG_FILE}\n")
    with (group[0].folder / LOG_FILE).open("a", encoding="utf-8") as log:
        return _run_replicas(group, log)


def worst(statuses: Sequence[str]) -> str:
    """The status of a group by those of its trials: failed before diverged before done."""
    return next((status for status in ("failed", "diverged") if status in statuses), "done")


def _run_replicas(group: TrialGroup, log: IO[str]) -> str:
    started = time.monotonic()
    try:
        reasons = run.train_replicas(
            [spec.experiment for spec in group], [spec.folder / "run" for spec in group], _console(log)
        )
    except Interrupted:
        raise
    except Exception as error:
        traceback.print_exc(file=log)
        for spec in group:
            record_failure(spec.folder, error)
        return "failed"
    seconds = (time.monotonic() - started) / len(group)
    outcomes = [_finish_replica(spec, reason, seconds, log) for spec, reason in zip(group, reasons, strict=True)]
    return worst(outcomes)


def _finish_replica(spec: TrialSpec, reason: str | None, seconds: float, log: IO[str]) -> str:
    """Score one of several replicas; `reason` says why its training stopped early."""
    started = time.monotonic()
    if reason is not None:
        return record_failure(spec.folder, NotFinite(reason))
    try:
        predict_and_score(spec)
    except Exception as error:
        traceback.print_exc(file=log)
        return record_failure(spec.folder, error)
    return record_success(spec.folder, seconds=seconds + time.monotonic() - started)


def _console(log: IO[str]) -> Console:
    return Console(file=log, soft_wrap=True, highlight=False, width=200)


def run_trial(spec: TrialSpec) -> str:
    """Train, translate and score one trial; stages that are complete are not repeated.

    An error is written into the trial's directory and not raised, so that the sweep continues.

    Returns:
        "done", "diverged" or "failed".

    Raises:
        Interrupted: a signal asked for an end; the state is saved.
    """
    started = time.monotonic()
    begin_trial(spec)
    with (spec.folder / LOG_FILE).open("a", encoding="utf-8") as log:
        try:
            with kept_inputs(spec.identity["data"]):
                run.fit(spec.experiment, spec.folder / "run", _console(log))
            if spec.split:
                predict_and_score(spec)
        except Interrupted:
            raise
        except Exception as error:
            traceback.print_exc(file=log)
            return record_failure(spec.folder, error)
    return record_success(spec.folder, seconds=time.monotonic() - started)


def begin_trial(spec: TrialSpec, *, mode: str = "single") -> None:
    """Make the directory and record in it what the trial is, and whether it is trained alone or as a replica."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    (spec.folder / OUTCOME_FILE).unlink(missing_ok=True)
    record = {"launch_mode": mode, "point": spec.point, "seed": spec.experiment.seed, "identity": spec.identity}
    write_sealed(spec.folder / TRIAL_FILE, {"format": TRIAL_FORMAT, **record, "experiment": to_json(spec.experiment)})


def is_complete(spec: TrialSpec) -> bool:
    """Whether nothing is left to do: all stages are done with the current settings, and their files are whole."""
    folder = spec.folder
    if read_outcome(folder)["status"] != "done" or read_record(folder / TRIAL_FILE) is None:
        return False
    if not spec.split:
        return True
    scores = read_record(folder / SCORES_FILE)
    if scores is None or read_counts(folder, scores) is None:
        return False
    inputs = {**_inputs(folder / TRANSLATIONS_FILE), **scores["inputs"]}
    wanted = {**_prediction_settings(spec), **_scoring_settings(spec)}
    if wanted != {name: inputs.get(name) for name in wanted}:
        return False
    return inputs["translations"] == translations_digest(folder)


def _prediction_settings(spec: TrialSpec) -> dict[str, Any]:
    """The settings that the translations depend on, in addition to the parameters."""
    return {
        "search": _as_json(spec.experiment.search),
        "merge_sources": spec.experiment.evaluation.merge_sources,
        **{name: getattr(spec, name) for name in ("split", "sentences", "gallery")},
    }


def _scoring_settings(spec: TrialSpec) -> dict[str, Any]:
    """The settings that the scores depend on, in addition to the translations."""
    return {"evaluation": _as_json(spec.experiment.evaluation), "scoring": SCORING_VERSION}


def predict_and_score(spec: TrialSpec) -> None:
    """Translate and score the split, unless the files on disk come from the same parameters and settings."""
    trained = run.load(spec.folder / "run")
    inputs = {"parameters": digest(trained.params), **_prediction_settings(spec)}
    path = spec.folder / TRANSLATIONS_FILE
    if _inputs(path) != inputs:
        reads = 1 + (read_record(path) or {}).get("reads", int(path.exists()))  # of a damaged file, one is known
        predictions = predict_split(trained, spec.split, sentences=spec.sentences, gallery=spec.gallery)
        write_sealed(path, {"inputs": inputs, "reads": reads, **predictions})
    inputs = {"translations": translations_digest(spec.folder), **_scoring_settings(spec)}
    scores = read_record(spec.folder / SCORES_FILE)
    if scores is None or scores["inputs"] != inputs or read_counts(spec.folder, scores) is None:
        metrics, counts = score_predictions(read_record(path) or {}, spec.experiment.evaluation)
        about = {"parameters": run.count_parameters(trained.params), "best_step": trained.step}
        record = {"inputs": inputs, **about, "counts": write_counts(spec.folder, counts), "metrics": metrics}
        write_sealed(spec.folder / SCORES_FILE, record)


def _inputs(path: Path) -> dict[str, Any]:
    """What the file of a stage was computed from; nothing if the stage has not run, or its file is damaged."""
    return (read_record(path) or {}).get("inputs", {})


def _as_json(config: Any) -> Any:
    """A config as it is read back from a JSON file."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
