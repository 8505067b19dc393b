"""The results of a sweep, read from its directories in whatever state they are, also after a crash."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

from s2s_jax.config import settings
from s2s_jax.evaluate.config import EvaluationConfig
from s2s_jax.evaluate.metrics import Predictions, signatures
from s2s_jax.run.environment import read_starts
from s2s_jax.sweep.fingerprint import TrialDir
from s2s_jax.sweep.heartbeat import is_running, sign_of_life
from s2s_jax.sweep.sweep import Published, Sweep
from s2s_jax.sweep.trial_files import (
    SCORES_FILE,
    TRANSLATIONS_FILE,
    bad_files,
    launch_mode,
    read_counts,
    read_outcome,
    read_record,
)
from s2s_jax.training.metrics_writer import read_metrics

TrialStatus = Literal["waiting", "running", "done", "failed", "diverged"]
SAMPLES = 24  # sources of all lengths whose translations a report shows
STATUSES: tuple[TrialStatus, ...] = get_args(TrialStatus)


class ExamplePrediction(NamedTuple):
    """One test sentence and a trial's translation of it."""

    source: str
    references: tuple[str, ...]
    text: str
    source_tokens: tuple[str, ...]  # with the end token
    tokens: tuple[str, ...]
    alignment: Float[np.ndarray, "T S"]  # of the translation; zeros without attention
    heads: tuple[
        Float[np.ndarray, "T S"], ...
    ] = ()  # of each head, or of each layer that attends, if there are several


class SampleTranslation(NamedTuple):
    """A test source of some length, its references and a trial's translation."""

    source: str
    references: tuple[str, ...]
    text: str


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
    folder: Path = Path()  # of the trial
    start: dict[str, Any] = {}  # noqa: RUF012 - of its last start: versions, commit, host, devices
    reads: int = 1  # how often the split was translated
    signature: str = ""  # of BLEU, as sacrebleu writes it
    samples: dict[int, SampleTranslation] = {}  # noqa: RUF012 - by source, some of every length
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
    published: tuple[Published, ...] = ()  # numbers of others, beside which the means are set


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
        published=tuple(sweep.published),
    )


def read_result(trial_dir: TrialDir) -> TrialResult:
    """The result of one trial as its directory records it."""
    trial, folder = trial_dir.trial, trial_dir.folder
    records = read_metrics(folder / "run" / "metrics.jsonl")
    status, error = trial_status(folder)
    known: dict[str, Any] = {}
    if ended := [record for record in records if record["kind"] == "end"]:
        known = {name: ended[-1][name] for name in ("tokens", "seconds")} | {"steps": ended[-1]["step"]}
        known["tokens"] = int(known["tokens"])
    if status == "done":
        known |= (scored := _read_scores(folder, trial.experiment.evaluation))
        if not scored:
            names = ", ".join(path.name for path in bad_files(folder)) or SCORES_FILE
            status, error = "waiting", f"{names} is missing or damaged; run the sweep again, which makes it anew"
    return TrialResult(
        name=folder.name,
        point=trial.point,
        seed=trial.seed,
        status=status,
        error=error,
        launch_mode=launch_mode(folder),
        folder=folder,
        start=next(iter(read_starts(folder / "run")[::-1]), {}),
        settings={setting.name: setting.value for setting in settings(trial.experiment)},
        curves=validation_curves(records),
        **known,
    )


def scores_by_point(trial_dirs: Sequence[TrialDir], metric: str) -> list[Float[np.ndarray, " _"]]:
    """The metric of the finished trials of each point, as far as it is a number."""
    found: dict[tuple[str, ...], list[float]] = {}
    for trial_dir in trial_dirs:
        scores = read_record(trial_dir.folder / SCORES_FILE)
        if read_outcome(trial_dir.folder)["status"] == "done" and scores is not None:
            value = scores["metrics"].get(metric)
            found.setdefault(tuple(trial_dir.trial.point.values()), []).append(np.nan if value is None else value)
    return [np.array([value for value in values if np.isfinite(value)]) for values in found.values()]


def trial_status(folder: Path) -> tuple[TrialStatus, str]:
    """How a trial stands, and why if it has no scores."""
    outcome = read_outcome(folder)
    status, error = outcome["status"], outcome.get("error", "")
    if status == "waiting" and is_running(folder):
        return "running", ""
    if status == "waiting" and (sign := sign_of_life(folder)):
        return "waiting", str(sign)
    return status, error


def validation_curves(records: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """The values of each validation metric with their steps."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if record["kind"] == "validation":
            for name, value in record.items():
                if name not in ("kind", "step", "time", "seconds") and value is not None:
                    curves.setdefault(name, []).append((record["step"], value))
    return curves


def _read_scores(folder: Path, evaluation: EvaluationConfig) -> dict[str, Any]:
    """What a trial that is done has in its files; nothing if one is missing."""
    scores, translations = read_record(folder / SCORES_FILE), read_record(folder / TRANSLATIONS_FILE)
    counts = None if scores is None else read_counts(folder, scores)
    if scores is None or translations is None or counts is None:
        return {}
    lengths = np.array(translations["lengths"], np.int64)
    measured = Predictions(
        references=translations["references"], unit=evaluation.unit, bleu_tokenizer=evaluation.tokenizer
    )
    return {
        "metrics": scores["metrics"],
        "reads": translations.get("reads", 1),
        "signature": signatures(measured)["bleu_signature"] if "bleu" in counts else "",
        "samples": {
            index: SampleTranslation(
                translations["sources"][index], tuple(translations["references"][index]), translations["texts"][index]
            )
            for index in sample_sources(lengths)
        },
        "counts": counts,
        "test_set": digest_of_lines([translations["sources"], translations["references"]]),
        "parameters": scores["parameters"],
        "best_step": scores["best_step"],
        "lengths": lengths,
        "gallery": tuple(map(_read_example, translations["gallery"])),
    }


def sample_sources(lengths: Int[np.ndarray, " N"], most: int = SAMPLES) -> list[int]:
    """Sources at even distances in the order of their lengths, whatever was made of them; at most so many."""
    order = np.argsort(lengths, kind="stable")
    places = np.arange(min(most, len(order))) + 0.5
    return sorted(order[(places / max(len(places), 1) * len(order)).astype(int)].tolist())


def digest_of_lines(lines: Any) -> str:
    """What tells one test set from another."""
    return hashlib.blake2b(json.dumps(lines).encode(), digest_size=8).hexdigest()


def _read_example(record: dict[str, Any]) -> ExamplePrediction:
    tuples = {name: tuple(record[name]) for name in ("references", "source_tokens", "tokens")}
    alignment = np.array(record["alignment"], np.float64).reshape(len(record["tokens"]), -1)
    heads = tuple(np.array(head, np.float64).reshape(alignment.shape) for head in record.get("heads", ()))
    return ExamplePrediction(**{**record, **tuples, "alignment": alignment, "heads": heads})
