"""How are cells run on a Slurm cluster? One job a unit, handed over and collected by submitit."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s_jax.sweep.trial import ReportStatus, TrialGroup, fail, run_interruptible
from s2s_jax.train.signals import SignalGuard


def run_on_slurm(
    units: Sequence[TrialGroup], told: ReportStatus, *, options: Mapping[str, str], jobs: int, retries: int
) -> int:
    """Run all units as one array of jobs, `jobs` of them at a time.

    Args:
        options: of submitit's `update_parameters`, such as slurm_partition, gpus_per_node or timeout_min; and
            `cluster`, which may be `local` (processes on this machine).

    Returns:
        the signal that asked for an end, 0 for none; jobs that ran were cancelled, and save themselves.

    Raises:
        ValueError: submitit is not installed, or there is no Slurm.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError("--executor slurm needs submitit; pip install 's2s_jax[slurm]'.") from None
    given = {name: _read(value) for name, value in options.items()}
    logs = units[0][0].folder.parent.parent / "slurm"
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=given.pop("cluster", "slurm"))
    except RuntimeError as error:
        raise ValueError(f"--executor slurm: {error}; is this a machine that can reach Slurm?") from None
    if jobs:
        given["slurm_array_parallelism"] = jobs
    executor.update_parameters(**given)
    left = [tuple(work._replace(folder=Path(work.folder).absolute()) for work in unit) for unit in units]
    for remaining in range(retries, -1, -1):
        signal, left = _submitted(executor, left, told, last=remaining == 0)
        if signal or not left:
            return signal
    return 0


def _read(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _submitted(
    executor: Any, units: Sequence[TrialGroup], told: ReportStatus, *, last: bool
) -> tuple[int, list[TrialGroup]]:
    """Run all units once: the signal that asked for an end, and those to try again."""
    running = dict(zip(executor.map_array(run_interruptible, units), units, strict=True))
    again: list[TrialGroup] = []
    with SignalGuard() as interrupt:
        asked = False
        while running:
            if interrupt.number and not asked:
                asked = True
                for job in running:
                    job.cancel()
            for job in [job for job in running if job.done()]:
                unit = running.pop(job)
                status = _collected(job, unit, asked=asked)
                if status in ("done", "stopped") or last:
                    told(unit, status)
                else:
                    again.append(unit)
            time.sleep(0.5)
        return interrupt.number, again


def _collected(job: Any, unit: TrialGroup, *, asked: bool) -> str:
    error = job.exception()
    if error is None:
        return job.result()
    if asked:
        return "stopped"
    for work in unit:
        fail(work.folder, RuntimeError(f"its job {job.job_id} died: {str(error).strip().splitlines()[-1]}"))
    return "failed"
