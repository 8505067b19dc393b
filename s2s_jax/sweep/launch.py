"""The launch of a sweep: what its plan leaves to do is run by an executor, and the outcome is collected."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from s2s_jax.sweep.executors.interface import Executor, ExecutorConfig, ExecutorName, Progress
from s2s_jax.sweep.executors.local import run_local
from s2s_jax.sweep.fingerprint import check_same_package
from s2s_jax.sweep.plan import SweepPlan, make_plan, trial_groups
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.sweep.trial import TrialGroup, TrialSpec, is_complete
from s2s_jax.sweep.trial_files import read_outcome, record_failure
from s2s_jax.training.lock import Lock

__all__ = ["EXECUTORS", "ExecutorConfig", "ExecutorName", "LaunchOutcome", "launch"]


def _ray(groups: Sequence[TrialGroup], progress: Progress, config: ExecutorConfig, *, retries: int) -> int:
    from s2s_jax.sweep.executors.ray import run_on_ray

    return run_on_ray(groups, progress, config, retries=retries)


def _slurm(groups: Sequence[TrialGroup], progress: Progress, config: ExecutorConfig, *, retries: int) -> int:
    from s2s_jax.sweep.executors.slurm import run_on_slurm

    return run_on_slurm(groups, progress, config, retries=retries)


EXECUTORS: dict[str, Executor] = {"local": run_local, "ray": _ray, "slurm": _slurm}


class LaunchOutcome(NamedTuple):
    """How the launch of a sweep ended."""

    plan: SweepPlan  # as it was before
    failed: list[Path]  # directories of trials without scores
    signal: int  # that asked for an end; 0 for none


def launch(
    sweep: Sweep, folder: Path, config: ExecutorConfig, log: Callable[[str], None], *, retry_diverged: bool = False
) -> LaunchOutcome:
    """Run what is left of a sweep; trials that fail are tried again, then listed, and the rest continues.

    Args:
        log: called with one line per finished trial.
        retry_diverged: also train trials again that diverged in an earlier launch.

    Raises:
        ValueError: a trial cannot be trained, or its directory was trained from something else, or trials were trained
            by another version of this package.
        RunLockedError: another process runs this sweep.
    """
    plan = make_plan(sweep, folder)
    groups = trial_groups(sweep, plan.trial_dirs, diverged=retry_diverged)
    if groups:
        check_same_package(trial_dir.folder for trial_dir in plan.trial_dirs)
    log(f"{plan.done} of {len(plan.trial_dirs)} trials are done; {plan.power}")
    for points in plan.identical:
        log(f"warning: {points}")
    for path in plan.damaged:
        log(f"warning: {path} is missing, damaged or was changed by hand; it is made again")
    finished = len(plan.trial_dirs) - sum(map(len, groups))

    def report(group: TrialGroup, status: str) -> None:
        nonlocal finished
        finished += len(group)
        for spec in group:
            log(f"{finished} of {len(plan.trial_dirs)}: {spec.folder.name} {_outcome(spec, status)}")

    with Lock(folder):
        run = EXECUTORS[config.name]
        signal = run(groups, Progress(report, log), config, retries=sweep.retries) if groups else 0
    folders = [trial_dir.folder for trial_dir in plan.trial_dirs]
    failed = [each for each in folders if read_outcome(each)["status"] in ("failed", "diverged")]
    return LaunchOutcome(plan, failed, signal)


def _outcome(spec: TrialSpec, status: str) -> str:
    """How a trial has ended, and why if it failed; one that its worker calls done is so only with all its files."""
    outcome = read_outcome(spec.folder)
    if status == "done" and outcome["status"] in ("waiting", "done") and not is_complete(spec):
        missing = f"its worker says done, but its files are not in {spec.folder}; does it see another disk?"
        record_failure(spec.folder, RuntimeError(missing))
        outcome = read_outcome(spec.folder)
    reason = f": {outcome['error']}" if "error" in outcome else ""
    return f"{status if outcome['status'] == 'waiting' else outcome['status']}{reason}"
