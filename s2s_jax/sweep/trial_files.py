"""The files of a trial's directory: their names, and what they record about how the trial was begun and ended.

Each holds a checksum of its content. A file that is cut, or was changed by hand, counts as absent: what it held is made
again, and the rest of the trial stays.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from s2s_jax.run.run_dir import SEAL, checksum, read_json, write_sealed
from s2s_jax.training.checkpoint.disk import replace_file
from s2s_jax.training.loop import NotFinite

TRIAL_FILE, OUTCOME_FILE, LOG_FILE = "trial.json", "outcome.json", "log.txt"
TRANSLATIONS_FILE, SCORES_FILE, COUNTS_FILE = "translations.json", "scores.json", "counts.npz"
TRIAL_FORMAT = 2  # of trial.json; the files of an older trial have no checksums, and are read as they are


def read_record(path: Path) -> dict[str, Any] | None:
    """The content of one of a trial's JSON files; None if it is absent or damaged."""
    try:
        return _read(path)
    except (FileNotFoundError, ValueError):
        return None


def _read(path: Path) -> dict[str, Any]:
    record = read_json(path)
    seal = record.pop(SEAL, None)
    if seal is None and not _has_checksums(path, record):
        return record
    if seal != checksum(record):
        raise ValueError(f"{path} is damaged, or was changed by hand: its checksum does not match its content.")
    return record


def _has_checksums(path: Path, record: dict[str, Any]) -> bool:
    """Whether the trial of a file without a checksum was begun by a version that writes them."""
    try:
        trial = record if path.name == TRIAL_FILE else read_json(path.with_name(TRIAL_FILE))
    except (FileNotFoundError, ValueError):
        return True
    return trial.get("format", 1) >= TRIAL_FORMAT


def write_counts(folder: Path, counts: dict[str, np.ndarray]) -> str:
    """Write the sufficient statistics of a trial's scores; returns the digest that scores.json keeps of them."""
    file = io.BytesIO()
    np.savez(file, **counts)  # type: ignore[arg-type]
    replace_file(folder / COUNTS_FILE, file.getvalue())
    return _digest(folder / COUNTS_FILE)


def read_counts(folder: Path, scores: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """The sufficient statistics that the scores were computed from; None if they are absent or damaged.

    Args:
        scores: the content of scores.json.
    """
    path = folder / COUNTS_FILE
    if not path.exists() or scores.get("counts", _digest(path)) != _digest(path):
        return None
    try:
        with np.load(path) as counts:
            return dict(counts)
    except Exception:  # of zipfile, zlib or NumPy, for an older trial, whose scores keep no digest
        return None


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def translations_digest(folder: Path) -> str:
    """The digest of translations.json by which its scores know it."""
    return _digest(folder / TRANSLATIONS_FILE)


def bad_files(folder: Path) -> list[Path]:
    """The files of a trial that are damaged; and if it is done, those that are missing."""
    done = read_outcome(folder)["status"] == "done"
    paths = [folder / name for name in (TRIAL_FILE, OUTCOME_FILE, TRANSLATIONS_FILE, SCORES_FILE)]
    found = [path for path in paths if read_record(path) is None and (done or path.exists())]
    counts, scores = folder / COUNTS_FILE, read_record(folder / SCORES_FILE)
    if scores is not None and read_counts(folder, scores) is None and (done or counts.exists()):
        found.append(counts)
    return found


def launch_mode(folder: Path) -> str:
    """How a trial was begun and must be resumed: "single" or "replicas"; empty if it never was."""
    return (read_record(folder / TRIAL_FILE) or {}).get("launch_mode", "")


def record_failure(folder: Path, error: Exception) -> str:
    """Write why a trial has no scores; returns its status, "diverged" or "failed"."""
    status = "diverged" if isinstance(error, NotFinite) else "failed"
    message = " ".join(str(error).split()) or type(error).__name__
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(folder / OUTCOME_FILE, {"status": status, "error": message})
    return status


def record_success(folder: Path, *, seconds: float) -> str:
    """Write that all stages are done, and how many seconds they took in this attempt; returns "done"."""
    write_sealed(folder / OUTCOME_FILE, {"status": "done", "seconds": seconds})
    return "done"


def read_outcome(folder: Path) -> dict[str, Any]:
    """How a trial ended: its status ("waiting" if nothing is recorded) and, where it failed, the error."""
    return read_record(folder / OUTCOME_FILE) or {"status": "waiting"}
