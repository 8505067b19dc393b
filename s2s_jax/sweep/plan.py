"""The plan of a sweep: what is done, what is left, and whether every trial can be trained, before any is."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from s2s_jax.config import Experiment, settings, without_vmappable
from s2s_jax.evaluate.metrics import INPUTS, check_metric
from s2s_jax.imports import import_code
from s2s_jax.model.compatibility import effective
from s2s_jax.run.check import check_trainable
from s2s_jax.sweep.fingerprint import TrialDir, assign_dirs
from s2s_jax.sweep.significance import describe_power
from s2s_jax.sweep.sweep import Point, Sweep, Trial, describe_point, grid_points, grid_trials
from s2s_jax.sweep.trial import TrialGroup, TrialSpec, is_complete
from s2s_jax.sweep.trial_files import bad_files, launch_mode, read_outcome


class IdenticalPoints(NamedTuple):
    """Points of the grid whose trials are the same, since the settings in which they differ have no effect there."""

    points: list[Point]
    settings: list[str]  # in which they differ; none if two labels stand for the same settings

    def __str__(self) -> str:
        """One line for the user."""
        points = "; ".join(map(describe_point, self.points))
        if not self.settings:
            return f"identical trials: {points} (the same settings)"
        verb = "has" if len(self.settings) == 1 else "have"
        return f"identical trials: {points} ({', '.join(self.settings)} {verb} no effect there)"


class SweepPlan(NamedTuple):
    """The trials of a sweep with their directories, and what is left to do."""

    trial_dirs: list[TrialDir]
    done: int
    failed: int
    power: str  # whether any difference can be significant with so many seeds
    seconds: float | None  # that are left, one trial after the other; None until a trial is done
    megabytes: float  # of disk, for the trials that are left
    identical: list[IdenticalPoints]  # points whose axes differ and whose trials do not
    damaged: list[Path]  # files that are damaged or missing, and are made again


def find_trials(sweep: Sweep, folder: Path) -> list[TrialDir]:
    """The trials of a sweep with their directories; no model is built.

    Raises:
        ValueError: a directory was trained from something else.
    """
    import_code(sweep.base.imports)
    return assign_dirs(list(grid_trials(sweep)), folder)


def make_plan(sweep: Sweep, folder: Path) -> SweepPlan:
    """The plan of a sweep. Every model is built and its training step traced, on shapes alone.

    Raises:
        ValueError: a trial cannot be trained, or its directory was trained from something else.
    """
    trial_dirs = find_trials(sweep, folder)
    first_seed = [trial_dir for trial_dir in trial_dirs if trial_dir.trial.seed == sweep.seeds[0]]
    megabytes = sum(_check(sweep, trial_dir.trial) for trial_dir in first_seed) * len(sweep.seeds)
    outcomes = [read_outcome(trial_dir.folder) for trial_dir in trial_dirs]
    seconds = [outcome["seconds"] for outcome in outcomes if outcome["status"] == "done"]
    unfinished = _incomplete(sweep, trial_dirs, diverged=False)
    left = len(unfinished)
    diverged = sum(outcome["status"] == "diverged" for outcome in outcomes)
    compared = count_comparisons(sweep)
    return SweepPlan(
        trial_dirs,
        done=len(trial_dirs) - left - diverged,
        failed=sum(outcome["status"] in ("failed", "diverged") for outcome in outcomes),
        power=describe_power(compared, seeds=len(sweep.seeds)) if compared else "Nothing is compared.",
        seconds=float(np.mean(seconds)) * left if seconds else None,
        megabytes=megabytes * left / len(trial_dirs),
        identical=identical_points([trial_dir.trial for trial_dir in first_seed]),
        damaged=[path for spec in unfinished for path in bad_files(spec.folder)],
    )


def count_comparisons(sweep: Sweep) -> int:
    """The number of points that are compared with a baseline: the family that a correction covers."""
    points = grid_points(sweep)
    others = [{axis: label for axis, label in point.items() if axis != sweep.compare} for point in points]
    based = [other for point, other in zip(points, others, strict=True) if point[sweep.compare] == sweep.baseline]
    return sum(other in based for other in others) - len(based)


def identical_points(trials: Sequence[Trial]) -> list[IdenticalPoints]:
    """The groups of points whose trials do not differ, among trials of one seed."""
    groups: dict[Experiment, list[Trial]] = {}
    for trial in trials:
        model = effective(trial.experiment.model)
        groups.setdefault(dataclasses.replace(trial.experiment, model=model), []).append(trial)
    return [
        IdenticalPoints([trial.point for trial in group], _differing_settings(group))
        for group in groups.values()
        if len(group) > 1
    ]


def _differing_settings(trials: Sequence[Trial]) -> list[str]:
    by_trial = [{setting.name: setting.value for setting in settings(trial.experiment)} for trial in trials]
    return [name for name, value in by_trial[0].items() if any(values[name] != value for values in by_trial[1:])]


def _check(sweep: Sweep, trial: Trial) -> float:
    """Refuse a trial that cannot be trained or scored; returns the megabytes of its checkpoints."""
    experiment = trial.experiment
    try:
        for metric in sweep.metrics:
            check_metric("metrics", metric, inputs=INPUTS, unit=experiment.evaluation.unit)
        state = check_trainable(experiment)
    except ValueError as error:
        raise ValueError(f"{trial.title}: {error}") from None
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state))
    return numbers * 4e-6 * (experiment.checkpoint.keep + experiment.checkpoint.best)


def trial_groups(
    sweep: Sweep, trial_dirs: Sequence[TrialDir], *, also_done: bool = False, diverged: bool = False
) -> list[TrialGroup]:
    """What is left to do, as workers receive it: groups of one trial, or of all that one program can train.

    Args:
        also_done: include trials that are complete.
        diverged: include trials that diverged, as they would again.
    """
    every = [_spec(sweep, trial_dir) for trial_dir in trial_dirs]
    specs = every if also_done else _incomplete(sweep, trial_dirs, diverged=diverged)
    if not sweep.replicas:
        return [(spec,) for spec in specs]
    groups: dict[Experiment | Path, list[TrialSpec]] = {}
    for spec in specs:
        alone = launch_mode(spec.folder) == "single"
        groups.setdefault(spec.folder if alone else without_vmappable(spec.experiment), []).append(spec)
    return [tuple(group) for group in groups.values()]


def _incomplete(sweep: Sweep, trial_dirs: Sequence[TrialDir], *, diverged: bool) -> list[TrialSpec]:
    """The trials that are not done, or were scored with other settings of search or evaluation."""
    specs = [_spec(sweep, trial_dir) for trial_dir in trial_dirs]
    left = [spec for spec in specs if not is_complete(spec)]
    return [spec for spec in left if diverged or read_outcome(spec.folder)["status"] != "diverged"]


def _spec(sweep: Sweep, trial_dir: TrialDir) -> TrialSpec:
    return TrialSpec(
        folder=trial_dir.folder,
        experiment=trial_dir.trial.experiment,
        point=trial_dir.trial.point,
        identity=trial_dir.identity,
        split=sweep.split,
        sentences=sweep.sentences,
        gallery=sweep.gallery,
    )
