"""The files of a trial's directory: their names, and what they record about how the trial was begun and ended."""

from pathlib import Path
from typing import Any

from s2s_jax.run.run_dir import read_json, write_json
from s2s_jax.training.loop import NotFinite

TRIAL_FILE, OUTCOME_FILE, LOG_FILE = "trial.json", "outcome.json", "log.txt"
TRANSLATIONS_FILE, SCORES_FILE, COUNTS_FILE = "translations.json", "scores.json", "counts.npz"


def launch_mode(folder: Path) -> str:
    """How a trial was begun and must be resumed: "single" or "replicas"; empty if it never was."""
    path = folder / TRIAL_FILE
    return read_json(path)["launch_mode"] if path.exists() else ""


def record_failure(folder: Path, error: Exception) -> str:
    """Write why a trial has no scores; returns its status, "diverged" or "failed"."""
    status = "diverged" if isinstance(error, NotFinite) else "failed"
    message = " ".join(str(error).split()) or type(error).__name__
    write_json(folder / OUTCOME_FILE, {"status": status, "error": message})
    return status


def record_success(folder: Path, *, seconds: float) -> str:
    """Write that all stages are done, and how many seconds they took in this attempt; returns "done"."""
    write_json(folder / OUTCOME_FILE, {"status": "done", "seconds": seconds})
    return "done"


def read_outcome(folder: Path) -> dict[str, Any]:
    """How a trial ended: its status ("waiting" if nothing is recorded) and, where it failed, the error."""
    path = folder / OUTCOME_FILE
    return read_json(path) if path.exists() else {"status": "waiting"}
