"""Trials on a Slurm cluster: one job per group, submitted in arrays and collected by submitit.

The jobs that are not over stand in a file of the sweep's folder, so that a second launch, after a broken connection,
waits for them instead of submitting them again.
"""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2s_jax.extras import needs_extra
from s2s_jax.run.launch import POLL_SECONDS, parsed_option
from s2s_jax.run.run_dir import read_json, write_json
from s2s_jax.sweep.executors.interface import ENDED, ExecutorConfig, Progress, names, to_retry
from s2s_jax.sweep.trial import TrialGroup, run_interruptible
from s2s_jax.sweep.trial_files import record_failure
from s2s_jax.training.signals import SignalGuard

JOBS_FILE = "jobs.json"
REQUEUES = 1000  # of a job at its time limit, each of which goes on from where the last one stopped


def run_on_slurm(groups: Sequence[TrialGroup], progress: Progress, config: ExecutorConfig, *, retries: int) -> int:
    """Run all groups as jobs, `config.jobs` at a time; as `Executor`. With SIGHUP, a closed terminal, the jobs stay.

    Raises:
        ValueError: submitit is not installed, there is no Slurm, or it refuses a setting.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError(needs_extra("--executor slurm", "slurm")) from None
    logs = groups[0][0].folder.absolute().parent.parent / "slurm"
    parameters = {name: parsed_option(value) for name, value in config.options.items()}
    cluster = parameters.pop("cluster", "slurm")
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster, **{f"{cluster}_max_num_timeout": REQUEUES})
        executor.update_parameters(**{**_parameters(config), **parameters})
    except (RuntimeError, NameError, ValueError, AssertionError) as error:  # NameError: an unknown parameter
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"--executor slurm: {reason}; Slurm's own parameters begin with slurm_, such as --slurm slurm_qos=high."
        ) from None
    jobs = _Jobs(executor, cluster, logs, progress, config)
    absolute = [tuple(spec._replace(folder=Path(spec.folder).absolute()) for spec in group) for group in groups]
    return jobs.run(absolute, retries=retries)


def _parameters(config: ExecutorConfig) -> dict[str, Any]:
    """The parameters of submitit that the settings stand for; those that are not set are left to the cluster."""
    given = {
        "slurm_partition": config.partition,
        "slurm_account": config.account,
        "slurm_array_parallelism": config.jobs,
        "cpus_per_task": config.cores,
    }
    return {"name": "s2s-sweep", "timeout_min": config.minutes, **{name: each for name, each in given.items() if each}}


class _Jobs:
    """The jobs of a launch, and those of an earlier one that are not over."""

    def __init__(self, executor: Any, cluster: str, logs: Path, progress: Progress, config: ExecutorConfig):
        self._executor, self._cluster, self._logs = executor, cluster, logs
        self._progress, self._array_size = progress, config.array_size
        self._running: dict[Any, tuple[TrialGroup, int]] = {}
        self._found: set[str] = set()  # ids of the jobs of an earlier launch

    def run(self, groups: Sequence[TrialGroup], *, retries: int) -> int:
        """Run all groups, or wait for their jobs; returns the signal that asked for an end, or 0."""
        found = self._find(groups, retries)
        self._submit([(group, retries) for group in groups if _trials(group) not in found])
        with SignalGuard() as interrupt:
            stopping = False
            while self._running:
                if interrupt.number == signal.SIGHUP:
                    break
                if interrupt.number and not stopping:
                    stopping = True
                    for job in self._running:
                        job.cancel()
                over = {job: self._running[job] for job in self._running if self._is_over(job)}
                again = [self._collect(job, *each, stopping=stopping) for job, each in over.items()]
                self._submit([each for each in again if each is not None])
                time.sleep(POLL_SECONDS)
            return interrupt.number

    def _find(self, groups: Sequence[TrialGroup], retries: int) -> set[tuple[str, ...]]:
        """The trials of the groups whose jobs an earlier launch has submitted."""
        try:
            known = read_json(self._logs / JOBS_FILE)
        except (FileNotFoundError, ValueError):
            return set()
        by_trials = {tuple(trials): number for number, trials in known.items()}
        for group in groups:
            if number := by_trials.get(_trials(group)):
                self._running[_job_class(self._cluster)(self._logs, number)] = group, retries
                self._found.add(number)
                self._progress.note(f"{names(group)}: waits for its job {number}, submitted earlier")
        return {_trials(group) for group, _ in self._running.values()}

    def _submit(self, given: Sequence[tuple[TrialGroup, int]]) -> None:
        for first in range(0, len(given), self._array_size):
            part = given[first : first + self._array_size]
            try:
                jobs = self._executor.map_array(_RequeuedTrial(), [group for group, _ in part])
            except RuntimeError as error:
                raise ValueError(f"--executor slurm: {' '.join(str(error).split())}") from None
            self._running |= dict(zip(jobs, part, strict=True))
        self._record()

    def _record(self) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        trials = {job.job_id: _trials(group) for job, (group, _) in self._running.items()}
        write_json(self._logs / JOBS_FILE, trials)

    def _is_over(self, job: Any) -> bool:
        if self._cluster == "local" and job.job_id in self._found:  # of whose process submitit knows no more
            return job.paths.result_pickle.exists() or not Path(f"/proc/{job.job_id}").exists()
        return job.done()

    def _collect(self, job: Any, group: TrialGroup, tries: int, *, stopping: bool) -> tuple[TrialGroup, int] | None:
        """Report a group whose job is over; returns it if it is to be submitted again."""
        error = job.exception()
        status = job.result() if error is None else "stopped" if stopping else "failed"
        if status == "stopped" and not stopping and job.state in ("PENDING", "REQUEUED", "PREEMPTED"):
            return None  # Slurm itself starts it again
        del self._running[job]
        self._record()
        if error is not None and not stopping:
            died = RuntimeError(f"its job {job.job_id} died: {str(error).strip().splitlines()[-1]}")
            for spec in to_retry(group):
                record_failure(spec.folder, died)
        if (status in ENDED and (status != "stopped" or stopping)) or not tries or stopping:
            self._progress.finished(group, status)
            return None
        self._progress.note(f"{names(group)}: {status} in job {job.job_id}; submitted again")
        return to_retry(group), tries - 1


def _trials(group: TrialGroup) -> tuple[str, ...]:
    return tuple(spec.folder.name for spec in group)


def _job_class(cluster: str) -> Any:
    import submitit

    return {"slurm": submitit.SlurmJob, "local": submitit.LocalJob, "debug": submitit.DebugJob}[cluster]


class _RequeuedTrial:
    """Runs a group as a job; one that is preempted, or is near its time limit, saves its state and is requeued."""

    def __call__(self, group: TrialGroup) -> str:
        """The status of the group."""
        import submitit

        number = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
        requeue, warned = signal.getsignal(number), []

        def save(*_: Any) -> None:
            warned.append(number)
            os.kill(os.getpid(), signal.SIGUSR1)

        with SignalGuard():
            signal.signal(number, save)
            status = run_interruptible(group)
            signal.signal(number, requeue)
        if warned and status == "stopped" and callable(requeue):
            requeue(number, None)  # submitit's own: it requeues the job and ends the process
        return status

    def checkpoint(self, group: TrialGroup) -> Any:
        """What the requeued job is to run."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, group)
