"""Trials on a Ray cluster: one task per group; the sweep's folder lies on a disk that all machines share."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2s_jax.run.launch import ray_cluster
from s2s_jax.sweep.trial import ReportStatus, TrialGroup, run_interruptible
from s2s_jax.sweep.trial_files import record_failure
from s2s_jax.training.devices import gpus
from s2s_jax.training.signals import SignalGuard


def run_on_ray(groups: Sequence[TrialGroup], report: ReportStatus, *, address: str, jobs: int, retries: int) -> int:
    """Run all groups, `jobs` at a time, or as many as the cluster has room for.

    Returns:
        The signal that asked for an end, or 0; groups that were running have saved their state.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    ray = ray_cluster(address)
    try:
        attempt: Any = ray.remote(num_cpus=1, num_gpus=1 if gpus() else 0, max_retries=0)(_attempt)
        return _Tasks(ray, attempt, groups, report, retries=retries).run(most=jobs or len(groups))
    finally:
        ray.shutdown()


class _Tasks:
    """Groups that wait, and groups that were submitted."""

    def __init__(self, ray: Any, attempt: Any, groups: Sequence[TrialGroup], report: ReportStatus, *, retries: int):
        self.ray, self.attempt, self.report = ray, attempt, report
        self.waiting = [(group, retries) for group in reversed(groups)]
        self.running: dict[Any, tuple[TrialGroup, int]] = {}

    def run(self, *, most: int) -> int:
        """Keep `most` groups submitted until none is left, or a signal asks for an end."""
        with SignalGuard() as interrupt:
            stopping = False
            while self.running or (self.waiting and not stopping):
                while self.waiting and len(self.running) < most and not interrupt.number:
                    group, tries = self.waiting.pop()
                    self.running[self.attempt.remote(group, str(Path.cwd()))] = group, tries
                if interrupt.number and not stopping:
                    stopping = True
                    for reference in self.running:
                        self.ray.cancel(reference)  # as Ctrl-C in the worker: it saves its state and stops
                for reference in self.ray.wait(list(self.running), timeout=0.5)[0]:
                    self._collect(reference)
            return interrupt.number

    def _collect(self, reference: Any) -> None:
        group, tries = self.running.pop(reference)
        try:
            status = self.ray.get(reference)
        except self.ray.exceptions.TaskCancelledError:
            status = "stopped"
        except self.ray.exceptions.RayError as error:
            status = "failed"
            for spec in group:
                record_failure(spec.folder, RuntimeError(f"its Ray worker died: {error}"))
        if status in ("done", "stopped") or not tries:
            self.report(group, status)
        else:
            self.waiting.append((group, tries - 1))


def _attempt(group: TrialGroup, directory: str) -> str:
    """Run a group where the sweep was started, so that relative paths and modules of the user are found."""
    os.chdir(directory)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    return run_interruptible(group)
