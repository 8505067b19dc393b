"""The launch of a sweep: what its plan leaves to do is run by an executor, and the outcome is collected."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from s2s_jax.sweep.executors.local import run_local
from s2s_jax.sweep.fingerprint import check_same_package
from s2s_jax.sweep.plan import SweepPlan, make_plan, trial_groups
from s2s_jax.sweep.sweep import Sweep
from s2s_jax.sweep.trial import ReportStatus, TrialGroup
from s2s_jax.sweep.trial_files import read_outcome
from s2s_jax.training.devices import gpus
from s2s_jax.training.lock import Lock
from s2s_jax.validation import at_least, one_of

ExecutorName = Literal["local", "ray", "slurm"]


class ExecutorConfig(NamedTuple):
    """Which machines run the trials."""

    name: ExecutorName = "local"
    jobs: int = 0  # trials at a time; 0: one per GPU (local; one without GPUs), or as many as the cluster has room for
    address: str = ""  # of a Ray cluster; empty for one on this machine
    options: dict[str, str] = {}  # noqa: RUF012 - of Slurm, such as partition


class Executor(Protocol):
    """Runs groups of trials; returns the signal that asked for an end, or 0."""

    def __call__(
        self, groups: Sequence[TrialGroup], report: ReportStatus, config: ExecutorConfig, *, retries: int
    ) -> int:
        """Run all groups, and report each one that ends."""
        ...


def _local(groups: Sequence[TrialGroup], report: ReportStatus, config: ExecutorConfig, *, retries: int) -> int:
    return run_local(groups, report, jobs=config.jobs or max(1, len(gpus())), retries=retries)


def _ray(groups: Sequence[TrialGroup], report: ReportStatus, config: ExecutorConfig, *, retries: int) -> int:
    from s2s_jax.sweep.executors.ray import run_on_ray

    return run_on_ray(groups, report, address=config.address, jobs=config.jobs, retries=retries)


def _slurm(groups: Sequence[TrialGroup], report: ReportStatus, config: ExecutorConfig, *, retries: int) -> int:
    from s2s_jax.sweep.executors.slurm import run_on_slurm

    return run_on_slurm(groups, report, options=config.options, jobs=config.jobs, retries=retries)


EXECUTORS: dict[str, Executor] = {"local": _local, "ray": _ray, "slurm": _slurm}


class LaunchOutcome(NamedTuple):
    """How the launch of a sweep ended."""

    plan: SweepPlan  # as it was before
    failed: list[Path]  # directories of trials without scores
    signal: int  # that asked for an end; 0 for none


def launch(sweep: Sweep, folder: Path, config: ExecutorConfig, log: Callable[[str], None]) -> LaunchOutcome:
    """Run what is left of a sweep; trials that fail are tried again, then listed, and the rest continues.

    Args:
        log: called with one line per finished trial.

    Raises:
        ValueError: a trial cannot be trained, or its directory was trained from something else, or trials were trained
            by another version of this package.
        RunLockedError: another process runs this sweep.
    """
    one_of("executor", config.name, EXECUTORS)
    at_least("jobs", config.jobs, 0)
    plan = make_plan(sweep, folder)
    groups = trial_groups(sweep, plan.trial_dirs)
    if groups:
        check_same_package(trial_dir.folder for trial_dir in plan.trial_dirs)
    log(f"{plan.done} of {len(plan.trial_dirs)} trials are done; {plan.power}")
    for points in plan.identical:
        log(f"warning: {points}")
    finished = plan.done

    def report(group: TrialGroup, status: str) -> None:
        nonlocal finished
        finished += len(group)
        for spec in group:
            outcome = read_outcome(spec.folder)
            reason = f": {outcome['error']}" if "error" in outcome else ""
            own = status if outcome["status"] == "waiting" else outcome["status"]
            log(f"{finished} of {len(plan.trial_dirs)}: {spec.folder.name} {own}{reason}")

    with Lock(folder):
        signal = EXECUTORS[config.name](groups, report, config, retries=sweep.retries) if groups else 0
    folders = [trial_dir.folder for trial_dir in plan.trial_dirs]
    failed = [each for each in folders if read_outcome(each)["status"] in ("failed", "diverged")]
    return LaunchOutcome(plan, failed, signal)
