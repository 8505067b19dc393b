"""What do the folders of a sweep say? Its cells as results, whatever state each is in, also after a crash."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s2s_jax.config import settings
from s2s_jax.run.run_dir import read_json
from s2s_jax.sweep.fingerprint import TrialDir
from s2s_jax.sweep.result import ExamplePrediction, SweepResults, TrialResult
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.sweep.trial import launch_mode, outcome
from s2s_jax.train.lock import is_held


def study(sweep: Sweep, placed: Sequence[TrialDir], *, name: str, claim: str, command: str) -> SweepResults:
    """A sweep and all its cells, done or not."""
    return SweepResults(
        name=name,
        claim=claim,
        command=command,
        axes=sweep.labels(),
        compare=sweep.compare,
        baseline=sweep.baseline,
        metrics=tuple(sweep.metrics),
        results=tuple(result(one) for one in placed),
    )


def result(placed: TrialDir) -> TrialResult:
    """What a cell's folder says."""
    cell, folder = placed.cell, placed.folder
    found, records = outcome(folder), metrics_of(folder)
    status = found["status"]
    if status == "waiting" and is_held(folder / "run"):
        status = "running"
    known: dict[str, Any] = {}
    if ended := [record for record in records if record["kind"] == "end"]:
        known = {name: ended[-1][name] for name in ("tokens", "seconds")} | {"steps": ended[-1]["step"]}
        known["tokens"] = int(known["tokens"])
    if status == "done" and (folder / "scores.json").exists():
        known |= _scores(folder)
    return TrialResult(
        name=folder.name,
        point=cell.point,
        seed=cell.seed,
        status=status,
        error=found.get("error", ""),
        how=launch_mode(folder),
        settings={setting.name: setting.value for setting in settings(cell.experiment)},
        curves=curves(records),
        **known,
    )


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a cell's metrics.jsonl; a line that is being written is left out."""
    path = folder / "run" / "metrics.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def curves(records: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Each metric of validation by step."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in records:
        if record["kind"] == "validation":
            for name, value in record.items():
                if name not in ("kind", "step", "time", "seconds") and value is not None:
                    found.setdefault(name, []).append((record["step"], value))
    return found


def _scores(folder: Path) -> dict[str, Any]:
    scores, translations = read_json(folder / "scores.json"), read_json(folder / "translations.json")
    with np.load(folder / "counts.npz") as counts:
        arrays = dict(counts)
    return {
        "metrics": scores["metrics"],
        "counts": arrays,
        "parameters": scores["parameters"],
        "best_step": scores["best_step"],
        "lengths": np.array(translations["lengths"], np.int64),
        "gallery": tuple(_shown(one) for one in translations["gallery"]),
    }


def _shown(record: dict[str, Any]) -> ExamplePrediction:
    tuples = {name: tuple(record[name]) for name in ("references", "source_tokens", "tokens")}
    alignment = np.array(record["alignment"], np.float64).reshape(len(record["tokens"]), -1)
    return ExamplePrediction(**{**record, **tuples, "alignment": alignment})
