"""Several sweeps in one report: their trials on the axes that they share, or each sweep against the first."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from s2s_jax.config import from_json
from s2s_jax.run.run_dir import read_json
from s2s_jax.sweep.fingerprint import TrialDir
from s2s_jax.sweep.results import SweepResults, TrialResult, read_result
from s2s_jax.sweep.sweep import Trial
from s2s_jax.sweep.trial_files import TRIAL_FILE

SWEEP_AXIS = "sweep"
UNKNOWN = "–"  # the label on an axis of another sweep that is no setting


def read_folder(folder: Path, like: SweepResults, *, name: str) -> SweepResults:
    """The results of a sweep's folder, from its trials alone, with the metrics of another sweep.

    Raises:
        ValueError: there are no trials.
    """
    trials = []
    for path in sorted((folder / "trials").glob(f"*/{TRIAL_FILE}")):
        record = read_json(path)
        trial = Trial(record["point"], record["seed"], from_json(record["experiment"]))
        trials.append(read_result(TrialDir(trial, path.parent, record["identity"])))
    if not trials:
        raise ValueError(f"{folder} has no trials; run its sweep first, or name another folder or file of a sweep")
    names = dict.fromkeys(axis for trial in trials for axis in trial.point)
    axes = {axis: tuple(dict.fromkeys(trial.point[axis] for trial in trials if axis in trial.point)) for axis in names}
    return like._replace(name=name, claim="", axes=axes, trials=tuple(trials))


def join_results(sweeps: Sequence[SweepResults]) -> SweepResults:
    """One sweep with the trials of all, compared as the first one is.

    A trial of a sweep without one of the axes has the value of that setting as its label. Where two sweeps have trials
    of the same point and seed, the sweeps themselves are compared, point by point, with the first as the baseline.
    """
    names = [each.name for each in sweeps]
    names = [f"{name} ({place})" if Counter(names)[name] > 1 else name for place, name in enumerate(names, 1)]
    axes = dict.fromkeys(axis for each in sweeps for axis in each.axes)
    placed = [
        (name, trial._replace(point={axis: _label(trial, axis) for axis in axes}))
        for name, each in zip(names, sweeps, strict=True)
        for trial in each.trials
    ]
    points = Counter((*trial.point.values(), trial.seed) for _, trial in placed)
    joined = sweeps[0]._replace(name=" and ".join(names), claim=_claim(names, sweeps))
    trials = [trial for _, trial in placed]
    if max(points.values()) > 1:
        trials = [trial._replace(point={**trial.point, SWEEP_AXIS: name}) for name, trial in placed]
        joined = joined._replace(compare=SWEEP_AXIS, baseline=names[0])
        axes = {**axes, SWEEP_AXIS: None}
    labels = {axis: tuple(dict.fromkeys(trial.point[axis] for trial in trials)) for axis in axes}
    return joined._replace(axes=labels, trials=tuple(trials))


def _claim(names: Sequence[str], sweeps: Sequence[SweepResults]) -> str:
    return "\n".join(f"{name}: {each.claim}" for name, each in zip(names, sweeps, strict=True) if each.claim)


def _label(trial: TrialResult, axis: str) -> str:
    """The trial's label on an axis, or the value of the setting that the axis is named after."""
    if axis in trial.point:
        return trial.point[axis]
    value = trial.settings.get(axis, UNKNOWN)
    return value if isinstance(value, str) else json.dumps(value)
