"""Trials on this machine: each worker is a process with a share of the devices and cores.

A process that dies takes one trial with it: the trial is tried again in a new process, then recorded as failed.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

from s2s_jax.sweep.executors.interface import ENDED, ExecutorConfig, Progress, to_retry
from s2s_jax.sweep.trial import TrialGroup, run_interruptible, worst
from s2s_jax.sweep.trial_files import record_failure
from s2s_jax.training.accelerators import Share, room, shares, visible_accelerators
from s2s_jax.training.signals import SignalGuard

PARENT_SECONDS = 1  # between two looks at whether the sweep still runs
SAVING_SECONDS = 60  # that a worker has to save its state when it does not
_interrupted = threading.Event()  # in a worker: a signal came while no group was running


def run_local(groups: Sequence[TrialGroup], progress: Progress, config: ExecutorConfig, *, retries: int) -> int:
    """Run all groups, `config.jobs` at a time; as `Executor`.

    Raises:
        ValueError: there are too few devices or cores.
    """
    waiting: queue.SimpleQueue[TrialGroup] = queue.SimpleQueue()
    for group in groups:
        waiting.put(group)
    counts = [spec.experiment.device.count for group in groups for spec in group]
    workers = [Worker(share) for share in machine_shares(counts, config)[: len(groups)]]
    with SignalGuard() as interrupt, concurrent.futures.ThreadPoolExecutor(max(1, len(workers))) as threads:
        running = {threads.submit(_work, worker, waiting, progress, retries) for worker in workers}
        stopping = False
        while running:
            done, running = concurrent.futures.wait(running, timeout=0.2)
            for future in done:
                future.result()
            if interrupt.number and not stopping:
                stopping = True
                for worker in workers:
                    worker.stop()
        return interrupt.number


def machine_shares(counts: Sequence[int], config: ExecutorConfig) -> list[Share]:
    """The share of each worker, of as many as `config.jobs`, or as there is room for.

    Args:
        counts: the device.count of each trial.

    Raises:
        ValueError: there are too few devices or cores.
    """
    found = visible_accelerators()
    options = {"per_device": config.per_device, "devices": max([1, *counts])}
    return shares(config.jobs or room(found, **options), found, cores=config.cores, **options)


def _work(worker: "Worker", waiting: queue.SimpleQueue[TrialGroup], progress: Progress, retries: int) -> None:
    """Run groups until none waits."""
    try:
        while not worker.stopping:
            group = waiting.get_nowait()
            progress.finished(group, worker.run(group, retries=retries))
    except queue.Empty:
        pass
    finally:
        worker.close()


class Worker:
    """A process that runs one group after another; when it dies, another one takes its place."""

    def __init__(self, share: Share):
        self.stopping = False
        self._share, self._process = share, None
        self._busy: int | None = None  # id of the process that is running a group

    def run(self, group: TrialGroup, *, retries: int) -> str:
        """The status of a group, which is tried again if it fails."""
        status = self._attempt(group)
        while status not in ENDED and retries and not self.stopping:
            retries -= 1
            status = self._attempt(to_retry(group))
        return status

    def interrupt(self) -> None:
        """Send the running group one SIGINT, upon which it saves its state."""
        if self._busy is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._busy, signal.SIGINT)

    def stop(self) -> None:
        """Interrupt the running group; no other one is begun."""
        if not self.stopping:
            self.stopping = True
            self.interrupt()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.shutdown()

    def _attempt(self, group: TrialGroup) -> str:
        try:
            if self._process is None:
                spawn = multiprocessing.get_context("spawn")
                options = {"mp_context": spawn, "initializer": _initialize, "initargs": (self._share,)}
                self._process = ProcessPoolExecutor(1, **options)
            self._busy = self._process.submit(_ready).result()
            return "stopped" if self.stopping else self._process.submit(_run, group).result()
        except BrokenProcessPool:
            self._process = None
            died = RuntimeError("its process died; see the end of its log.txt, and how much memory there is.")
            return worst([record_failure(spec.folder, died) for spec in to_retry(group)])
        except OSError as error:  # of the trial's own files
            return worst([record_failure(spec.folder, error) for spec in to_retry(group)])
        finally:
            self._busy = None


def _initialize(share: Share) -> None:
    """Prepare a worker process.

    It leaves the terminal's process group, so that Ctrl-C reaches it once, from `Worker.interrupt`; no such signal
    kills it between two groups; it takes its share of the machine; and it ends when its parent is gone.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, lambda *_: _interrupted.set())
    share.take()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _ready() -> int:
    """The id of this process; signals that came before are those of an earlier group."""
    _interrupted.clear()
    return os.getpid()


def _run(group: TrialGroup) -> str:
    with SignalGuard():
        return "stopped" if _interrupted.is_set() else run_interruptible(group)


def _end_with_parent(parent: int) -> None:
    """Interrupt this process, and a minute later end it, once its parent process is gone."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    if SignalGuard.is_active():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(SAVING_SECONDS)
    os._exit(1)
