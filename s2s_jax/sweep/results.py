"""The results of a sweep, read from its directories in whatever state they are, also after a crash."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

from s2s_jax.config import settings
from s2s_jax.run.run_dir import read_json
from s2s_jax.sweep.fingerprint import TrialDir
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.sweep.trial_files import COUNTS_FILE, SCORES_FILE, TRANSLATIONS_FILE, launch_mode, read_outcome
from s2s_jax.training.lock import is_held
from s2s_jax.training.metrics_writer import read_metrics

TrialStatus = Literal["waiting", "running", "done", "failed", "diverged"]
STATUSES: tuple[TrialStatus, ...] = get_args(TrialStatus)


class ExamplePrediction(NamedTuple):
    """One test sentence and a trial's translation of it."""

    source: str
    references: tuple[str, ...]
    text: str
    source_tokens: tuple[str, ...]  # with the end token
    tokens: tuple[str, ...]
    alignment: Float[np.ndarray, "T S"]  # of the translation; zeros without attention


class TrialResult(NamedTuple):
    """One trial: a point of the grid with one seed. Values that are not known yet are empty."""

    name: str  # of its directory
    point: dict[str, str]  # axis -> label of its value
    seed: int
    status: str  # a TrialStatus
    error: str = ""  # one line, if it failed
    launch_mode: str = "single"  # or "replicas": trained with others in one program
    settings: dict[str, Any] = {}  # noqa: RUF012 - dotted name -> value, all settings
    parameters: int = 0
    steps: int = 0  # taken
    tokens: int = 0  # target tokens trained on
    seconds: float = 0.0  # of training, without compilation and validation
    best_step: int = 0  # of the checkpoint that the test split was read with
    metrics: dict[str, float | None] = {}  # noqa: RUF012 - of the test split
    counts: dict[str, Float[np.ndarray, "N K"]] = {}  # noqa: RUF012 - metric -> sufficient statistics per source
    test_set: str = ""  # a digest of the sources and references that the counts belong to
    lengths: Int[np.ndarray, " N"] = np.zeros(0, np.int64)  # source tokens, in the order of the counts
    curves: dict[str, list[tuple[int, float]]] = {}  # noqa: RUF012 - metric of validation -> (step, value)
    gallery: tuple[ExamplePrediction, ...] = ()  # the same sentences in every trial


class SweepResults(NamedTuple):
    """A sweep and its trials, ready to be compared."""

    name: str
    claim: str  # what it is to show: the first lines of the sweep file's docstring
    command: str  # that runs it
    axes: dict[str, tuple[str, ...]]  # axis -> labels, in their order
    compare: str  # the axis whose values are compared
    baseline: str  # the label on it that all others are compared with
    metrics: tuple[str, ...]  # the first one is tested
    trials: tuple[TrialResult, ...]


def collect_results(
    sweep: Sweep, trial_dirs: Sequence[TrialDir], *, name: str, claim: str, command: str
) -> SweepResults:
    """A sweep and all its trials, done or not."""
    return SweepResults(
        name=name,
        claim=claim,
        command=command,
        axes=sweep.labels(),
        compare=sweep.compare,
        baseline=sweep.baseline,
        metrics=tuple(sweep.metrics),
        trials=tuple(map(read_result, trial_dirs)),
    )


def read_result(trial_dir: TrialDir) -> TrialResult:
    """The result of one trial as its directory records it."""
    trial, folder = trial_dir.trial, trial_dir.folder
    outcome, records = read_outcome(folder), read_metrics(folder / "run" / "metrics.jsonl")
    status = outcome["status"]
    if status == "waiting" and is_held(folder / "run"):
        status = "running"
    known: dict[str, Any] = {}
    if ended := [record for record in records if record["kind"] == "end"]:
        known = {name: ended[-1][name] for name in ("tokens", "seconds")} | {"steps": ended[-1]["step"]}
        known["tokens"] = int(known["tokens"])
    if status == "done" and (folder / SCORES_FILE).exists():
        known |= _read_scores(folder)
    return TrialResult(
        name=folder.name,
        point=trial.point,
        seed=trial.seed,
        status=status,
        error=outcome.get("error", ""),
        launch_mode=launch_mode(folder),
        settings={setting.name: setting.value for setting in settings(trial.experiment)},
        curves=validation_curves(records),
        **known,
    )


def validation_curves(records: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The values of each validation metric with their steps."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if record["kind"] == "validation":
            for name, value in record.items():
                if name not in ("kind", "step", "time", "seconds") and value is not None:
                    curves.setdefault(name, []).append((record["step"], value))
    return curves


def _read_scores(folder: Path) -> dict[str, Any]:
    scores, translations = read_json(folder / SCORES_FILE), read_json(folder / TRANSLATIONS_FILE)
    with np.load(folder / COUNTS_FILE) as counts:
        arrays = dict(counts)
    return {
        "metrics": scores["metrics"],
        "counts": arrays,
        "test_set": digest_of_lines([translations["sources"], translations["references"]]),
        "parameters": scores["parameters"],
        "best_step": scores["best_step"],
        "lengths": np.array(translations["lengths"], np.int64),
        "gallery": tuple(map(_read_example, translations["gallery"])),
    }


def digest_of_lines(lines: Any) -> str:
    """What tells one test set from another."""
    return hashlib.blake2b(json.dumps(lines).encode(), digest_size=8).hexdigest()


def _read_example(record: dict[str, Any]) -> ExamplePrediction:
    tuples = {name: tuple(record[name]) for name in ("references", "source_tokens", "tokens")}
    alignment = np.array(record["alignment"], np.float64).reshape(len(record["tokens"]), -1)
    return ExamplePrediction(**{**record, **tuples, "alignment": alignment})
