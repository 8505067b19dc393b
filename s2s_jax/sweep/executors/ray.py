"""How are cells run on a Ray cluster? One task a unit; folders lie on a disk that all machines see."""

import importlib
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s2s_jax.sweep.trial import ReportStatus, TrialGroup, fail, run_interruptible
from s2s_jax.train.devices import gpus
from s2s_jax.train.signals import SignalGuard


def run_on_ray(units: Sequence[TrialGroup], told: ReportStatus, *, address: str, jobs: int, retries: int) -> int:
    """Run all units, as many at a time as the cluster has room for, or `jobs` of them.

    Returns:
        the signal that asked for an end, 0 for none; what was running has saved itself.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise ValueError("--executor ray needs Ray; pip install 's2s_jax[ray]'.") from None
    _check_listener(address)
    try:
        ray.init(address=address or None, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there ({error}).") from None
    try:
        attempt: Any = ray.remote(num_cpus=1, num_gpus=1 if gpus() else 0, max_retries=0)(_attempt)
        return _Tasks(ray, attempt, units, told, retries).run(most=jobs or len(units))
    finally:
        ray.shutdown()


def _check_listener(address: str) -> None:
    """Ray itself waits a minute for a cluster that is not there, then says so in many lines."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there ({error}).") from None


class _Tasks:
    """Units waiting, and units on their way."""

    def __init__(self, ray: Any, attempt: Any, units: Sequence[TrialGroup], told: ReportStatus, retries: int):
        self.ray, self.attempt, self.told = ray, attempt, told
        self.waiting = [(unit, retries) for unit in reversed(units)]
        self.running: dict[Any, tuple[TrialGroup, int]] = {}

    def run(self, *, most: int) -> int:
        """Keep `most` units on their way until none is left, or somebody asks for an end."""
        with SignalGuard() as interrupt:
            asked = False
            while self.running or (self.waiting and not asked):
                while self.waiting and len(self.running) < most and not interrupt.number:
                    unit, tries = self.waiting.pop()
                    self.running[self.attempt.remote(unit, str(Path.cwd()))] = unit, tries
                if interrupt.number and not asked:
                    asked = True
                    for reference in self.running:
                        self.ray.cancel(reference)  # as Ctrl-C in the worker: it saves and stops
                for reference in self.ray.wait(list(self.running), timeout=0.5)[0]:
                    self._collect(reference)
            return interrupt.number

    def _collect(self, reference: Any) -> None:
        unit, tries = self.running.pop(reference)
        try:
            status = self.ray.get(reference)
        except self.ray.exceptions.TaskCancelledError:
            status = "stopped"
        except self.ray.exceptions.RayError as error:
            status = "failed"
            for work in unit:
                fail(work.folder, RuntimeError(f"its Ray worker died: {error}"))
        if status in ("done", "stopped") or not tries:
            self.told(unit, status)
        else:
            self.waiting.append((unit, tries - 1))


def _attempt(unit: TrialGroup, directory: str) -> str:
    """Run a unit where the sweep was started, so that relative paths mean the same."""
    os.chdir(directory)
    return run_interruptible(unit)
