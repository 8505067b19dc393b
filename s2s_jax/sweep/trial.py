"""How is one cell taken from settings to numbers? In stages, each kept on disk and done again only when it must be."""

import dataclasses
import hashlib
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from rich.console import Console

from s2s_jax import run
from s2s_jax.config import Experiment, to_json
from s2s_jax.run.run_dir import read_json, write_json
from s2s_jax.sweep.predictions import predict, score
from s2s_jax.train.checkpoint.pytree_io import digest
from s2s_jax.train.devices import keep_freed_memory
from s2s_jax.train.loop import NotFinite
from s2s_jax.train.signals import Interrupted, SignalGuard

TRANSLATIONS, SCORES = "translations.json", "scores.json"
SCORING = 1  # raised when the numbers that are made of translations change, so that they are made again


class TrialSpec(NamedTuple):
    """A cell as a worker on any machine gets it; nothing in it needs the sweep's file."""

    folder: Path
    experiment: Experiment
    point: dict[str, str]
    identity: dict[str, Any]
    split: str  # that is scored; empty for none
    sentences: int
    gallery: int


TrialGroup = tuple[TrialSpec, ...]  # what one process does at once: a cell, or many as replicas
ReportStatus = Callable[[TrialGroup, str], None]  # what is called with a unit and its status


def run_interruptible(unit: TrialGroup) -> str:
    """Run a unit in a worker; "stopped" where it was asked to, and has saved itself."""
    try:
        with (
            SignalGuard()
        ):  # whatever is under way when a signal comes: training saves itself, all else goes on to its end
            return run_group(unit)
    except Interrupted:
        return "stopped"


def run_group(unit: TrialGroup) -> str:
    """Run a cell, or many in one program; those that are done already stay as they are.

    Returns:
        "done" where all are, else the first other outcome.
    """
    unit = tuple(work for work in unit if not is_complete(work))
    if not unit:
        return "done"
    keep_freed_memory()
    if len(unit) == 1 and launch_mode(unit[0].folder) != "replicas":
        return run_trial(unit[0])
    began = time.monotonic()
    for work in unit:
        begin(work, how="replicas")
    for work in unit[1:]:
        (work.folder / "log.txt").write_text(f"trained with {unit[0].folder.name}, whose log.txt tells of both\n")
    with (unit[0].folder / "log.txt").open("a", encoding="utf-8") as log:
        try:
            lost = run.train_replicas(
                [work.experiment for work in unit], [work.folder / "run" for work in unit], _console(log)
            )
        except Interrupted:
            raise
        except Exception as error:
            traceback.print_exc(file=log)
            for work in unit:
                fail(work.folder, error)
            return "failed"
        share = (time.monotonic() - began) / len(unit)
        outcomes = [_finish_replica(work, why, share, log) for work, why in zip(unit, lost, strict=True)]
        return next((one for one in outcomes if one != "done"), "done")


def _finish_replica(work: TrialSpec, why: str | None, seconds: float, log: IO[str]) -> str:
    """The outcome of one of several replicas."""
    began = time.monotonic()
    if why is not None:
        return fail(work.folder, NotFinite(why))
    try:
        predict_and_score(work)
    except Exception as error:
        traceback.print_exc(file=log)
        return fail(work.folder, error)
    return succeed(work.folder, seconds=seconds + time.monotonic() - began)


def _console(log: IO[str]) -> Console:
    return Console(file=log, soft_wrap=True, highlight=False, width=200)


def run_trial(work: TrialSpec) -> str:
    """Train, translate and score a cell; what is done already is not done again.

    What goes wrong is written into the cell's folder, not raised: the other cells go on.

    Returns:
        "done", "diverged" or "failed".

    Raises:
        Interrupted: somebody asked for an end; all is saved.
    """
    began = time.monotonic()
    begin(work)
    with (work.folder / "log.txt").open("a", encoding="utf-8") as log:
        try:
            run.fit(work.experiment, work.folder / "run", _console(log))
            if work.split:
                predict_and_score(work)
        except Interrupted:
            raise
        except Exception as error:
            traceback.print_exc(file=log)
            return fail(work.folder, error)
    return succeed(work.folder, seconds=time.monotonic() - began)


def begin(work: TrialSpec, *, how: str = "single") -> None:
    """Make the folder and say in it what the cell is, and how it is trained."""
    work.folder.mkdir(parents=True, exist_ok=True)
    (work.folder / "outcome.json").unlink(missing_ok=True)
    record = {"how": how, "point": work.point, "seed": work.experiment.seed, "identity": work.identity}
    write_json(work.folder / "cell.json", {**record, "experiment": to_json(work.experiment)})


def launch_mode(folder: Path) -> str:
    """How a cell was begun: single, or replicas, as which it goes on then; empty where it never was."""
    path = folder / "cell.json"
    return read_json(path)["how"] if path.exists() else ""


def fail(folder: Path, error: Exception) -> str:
    """Note why a cell has no numbers."""
    status = "diverged" if isinstance(error, NotFinite) else "failed"
    said = " ".join(str(error).split()) or type(error).__name__
    write_json(folder / "outcome.json", {"status": status, "error": said})
    return status


def succeed(folder: Path, *, seconds: float) -> str:
    """Note that all stages are done, and the seconds of this start from its first to its last."""
    write_json(folder / "outcome.json", {"status": "done", "seconds": seconds})
    return "done"


def outcome(folder: Path) -> dict[str, Any]:
    """What became of a cell: status (waiting where nothing is known) and, where it failed, error."""
    path = folder / "outcome.json"
    return read_json(path) if path.exists() else {"status": "waiting"}


def is_complete(work: TrialSpec) -> bool:
    """Whether nothing is left to do: all is done, by the settings of search and evaluation that are asked for now."""
    if outcome(work.folder)["status"] != "done":
        return False
    made = {**(_made_of(work.folder / TRANSLATIONS) or {}), **(_made_of(work.folder / SCORES) or {})}
    asked = _prediction_settings(work) | _scoring_settings(work)
    return not work.split or asked == {name: made.get(name) for name in asked}


def _prediction_settings(work: TrialSpec) -> dict[str, Any]:
    """The settings that decide the translations, beside the parameters."""
    return {
        "search": _plain(work.experiment.search),
        **{name: getattr(work, name) for name in ("split", "sentences", "gallery")},
    }


def _scoring_settings(work: TrialSpec) -> dict[str, Any]:
    """The settings that decide the scores, beside the translations."""
    return {"evaluation": _plain(work.experiment.evaluation), "scoring": SCORING}


def predict_and_score(work: TrialSpec) -> None:
    """Translate the split and score it, unless that was done with these parameters and settings."""
    trained = run.load(work.folder / "run")
    made_of = {"parameters": digest(trained.params), **_prediction_settings(work)}
    translations = work.folder / TRANSLATIONS
    if _made_of(translations) != made_of:
        write_json(
            translations,
            {"made_of": made_of, **predict(trained, work.split, sentences=work.sentences, gallery=work.gallery)},
        )
    made_of = {
        "translations": hashlib.blake2b(translations.read_bytes(), digest_size=16).hexdigest(),
        **_scoring_settings(work),
    }
    if _made_of(work.folder / SCORES) != made_of:
        metrics, counts = score(read_json(translations), unit=trained.experiment.evaluation.unit)
        np.savez(work.folder / "counts.npz", **counts)  # type: ignore[arg-type]
        about = {"parameters": run.count(trained.params), "best_step": trained.step}
        write_json(work.folder / SCORES, {"made_of": made_of, **about, "metrics": metrics})


def _made_of(path: Path) -> Any:
    """What a stage's file was made of; None where it was never made."""
    return read_json(path)["made_of"] if path.exists() else None


def _plain(config: Any) -> Any:
    """A config as JSON reads it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
