"""Trials on this machine: each worker is a process on a device, or a part of the cores, of its own.

A process that dies takes one trial with it: the trial is tried again in a new process, then recorded as failed.
"""

import concurrent.futures
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

from s2s_jax.sweep.trial import ReportStatus, TrialGroup, run_interruptible
from s2s_jax.sweep.trial_files import read_outcome, record_failure
from s2s_jax.training.devices import limit_memory_fraction
from s2s_jax.training.signals import SignalGuard


def run_local(groups: Sequence[TrialGroup], report: ReportStatus, *, jobs: int, retries: int) -> int:
    """Run all groups, `jobs` at a time.

    Returns:
        The signal that asked for an end, or 0; groups that were running have saved their state.
    """
    waiting: queue.SimpleQueue[TrialGroup] = queue.SimpleQueue()
    for group in groups:
        waiting.put(group)
    count = min(jobs, len(groups))
    workers = [Worker(waiting, report, number=number, workers=jobs, retries=retries) for number in range(count)]
    with SignalGuard() as interrupt, concurrent.futures.ThreadPoolExecutor(max(1, count)) as threads:
        running = {threads.submit(worker.run) for worker in workers}
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


class Worker:
    """A process that runs groups until none waits; when it dies, another one takes its place."""

    def __init__(
        self,
        waiting: queue.SimpleQueue[TrialGroup],
        report: ReportStatus,
        *,
        number: int = 0,
        workers: int = 1,
        retries: int = 0,
    ):
        """`number` of all `workers` decides which device, or part of the memory, the process takes."""
        self.waiting, self.report, self.retries = waiting, report, retries
        self.place = (number, workers)
        self.stopping, self.process = threading.Event(), None
        self.busy: int | None = None  # id of the process that is running a group

    def run(self) -> None:
        """Run groups until none waits."""
        try:
            while not self.stopping.is_set():
                group = self.waiting.get_nowait()
                self.report(group, self._run_with_retries(group))
        except queue.Empty:
            pass
        finally:
            if self.process is not None:
                self.process.shutdown()

    def stop(self) -> None:
        """Send the running group one SIGINT, upon which it saves its state; no other group is begun."""
        if not self.stopping.is_set():
            self.stopping.set()
            if self.busy is not None:
                os.kill(self.busy, signal.SIGINT)

    def _run_with_retries(self, group: TrialGroup) -> str:
        status = "failed"
        for _ in range(1 + self.retries):
            try:
                status = self._attempt(group)
            except BrokenProcessPool:
                self.process = None
                died = RuntimeError("its process died; see the end of its log.txt, and how much memory there is.")
                for spec in group:
                    if read_outcome(spec.folder)["status"] != "done":
                        record_failure(spec.folder, died)
            finally:
                self.busy = None
            if status in ("done", "stopped") or self.stopping.is_set():
                break
        return status

    def _attempt(self, group: TrialGroup) -> str:
        if self.process is None:
            spawn = multiprocessing.get_context("spawn")
            self.process = ProcessPoolExecutor(1, mp_context=spawn, initializer=_initialize, initargs=self.place)
        self.busy = self.process.submit(os.getpid).result()
        return "stopped" if self.stopping.is_set() else self.process.submit(run_interruptible, group).result()


def _initialize(number: int, workers: int) -> None:
    """Prepare a worker process.

    It leaves the terminal's process group, so that Ctrl-C reaches it once, from `Worker.stop`; it limits its memory;
    and it ends when its parent is gone.
    """
    os.setpgrp()
    limit_memory_fraction(number, workers)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """Interrupt this process, and a minute later end it, once its parent process is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)  # in which training saves its state
    os._exit(1)
