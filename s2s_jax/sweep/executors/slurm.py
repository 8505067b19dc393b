"""Trials on a Slurm cluster: one job per group, submitted and collected by submitit."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s_jax.extras import needs_extra
from s2s_jax.run.launch import parsed_option
from s2s_jax.sweep.trial import ReportStatus, TrialGroup, run_interruptible
from s2s_jax.sweep.trial_files import record_failure
from s2s_jax.training.signals import SignalGuard


def run_on_slurm(
    groups: Sequence[TrialGroup], report: ReportStatus, *, options: Mapping[str, str], jobs: int, retries: int
) -> int:
    """Run all groups as one array of jobs, `jobs` of them at a time.

    Args:
        options: of submitit's `update_parameters`, such as slurm_partition, gpus_per_node or timeout_min; and
            `cluster`, which may be `local` (processes on this machine).

    Returns:
        The signal that asked for an end, or 0; running jobs were cancelled, and have saved their state.

    Raises:
        ValueError: submitit is not installed, or there is no Slurm.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError(needs_extra("--executor slurm", "slurm")) from None
    parameters = {name: parsed_option(value) for name, value in options.items()}
    logs = groups[0][0].folder.parent.parent / "slurm"
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=parameters.pop("cluster", "slurm"))
    except RuntimeError as error:
        raise ValueError(f"--executor slurm: {error}; is this a machine that can reach Slurm?") from None
    if jobs:
        parameters["slurm_array_parallelism"] = jobs
    executor.update_parameters(**parameters)
    left = [tuple(spec._replace(folder=Path(spec.folder).absolute()) for spec in group) for group in groups]
    for remaining in range(retries, -1, -1):
        signal, left = _submit(executor, left, report, last=remaining == 0)
        if signal or not left:
            return signal
    return 0


def _submit(
    executor: Any, groups: Sequence[TrialGroup], report: ReportStatus, *, last: bool
) -> tuple[int, list[TrialGroup]]:
    """Run all groups once: the signal that asked for an end, or 0, and the groups to try again."""
    running = dict(zip(executor.map_array(run_interruptible, groups), groups, strict=True))
    again: list[TrialGroup] = []
    with SignalGuard() as interrupt:
        stopping = False
        while running:
            if interrupt.number and not stopping:
                stopping = True
                for job in running:
                    job.cancel()
            for job in [job for job in running if job.done()]:
                group = running.pop(job)
                status = _collect(job, group, stopping=stopping)
                if status in ("done", "stopped") or last:
                    report(group, status)
                else:
                    again.append(group)
            time.sleep(0.5)
        return interrupt.number, again


def _collect(job: Any, group: TrialGroup, *, stopping: bool) -> str:
    error = job.exception()
    if error is None:
        return job.result()
    if stopping:
        return "stopped"
    for spec in group:
        record_failure(spec.folder, RuntimeError(f"its job {job.job_id} died: {str(error).strip().splitlines()[-1]}"))
    return "failed"
