"""How are cells run on this machine? Each lane is a process of its own, on a device (or share of the cores) of its own.

A process that dies takes one cell with it: the cell is tried again in a new process, then listed as failed.
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

from s2s_jax.sweep.trial import ReportStatus, TrialGroup, fail, outcome, run_interruptible
from s2s_jax.train.devices import limit_memory_fraction
from s2s_jax.train.signals import SignalGuard


def run_local(units: Sequence[TrialGroup], told: ReportStatus, *, jobs: int, retries: int) -> int:
    """Run all units, `jobs` at a time.

    Returns:
        the signal that asked for an end, 0 for none; what was running has saved itself.
    """
    waiting: queue.SimpleQueue[TrialGroup] = queue.SimpleQueue()
    for unit in units:
        waiting.put(unit)
    lanes = [Worker(number, jobs, waiting, told, retries) for number in range(min(jobs, len(units)))]
    with SignalGuard() as interrupt, concurrent.futures.ThreadPoolExecutor(max(1, len(lanes))) as threads:
        running = {threads.submit(lane.run) for lane in lanes}
        asked = False
        while running:
            done, running = concurrent.futures.wait(running, timeout=0.2)
            for one in done:
                one.result()
            if interrupt.number and not asked:
                asked = True
                for lane in lanes:
                    lane.stop()
        return interrupt.number


class Worker:
    """One process after another, each running units until it dies or there is nothing left."""

    def __init__(
        self, number: int, lanes: int, waiting: queue.SimpleQueue[TrialGroup], told: ReportStatus, retries: int
    ):
        self.share, self.waiting, self.told, self.retries = (number, lanes), waiting, told, retries
        self.stopping, self.process = threading.Event(), None
        self.busy: int | None = None  # the process that runs a unit now

    def run(self) -> None:
        """Run units until none waits."""
        try:
            while not self.stopping.is_set():
                unit = self.waiting.get_nowait()
                self.told(unit, self._tried(unit))
        except queue.Empty:
            pass
        finally:
            if self.process is not None:
                self.process.shutdown()

    def stop(self) -> None:
        """Ask the unit that runs now, once, to save itself; no other is begun."""
        if not self.stopping.is_set():
            self.stopping.set()
            if self.busy is not None:
                os.kill(self.busy, signal.SIGINT)

    def _tried(self, unit: TrialGroup) -> str:
        status = "failed"
        for _ in range(1 + self.retries):
            try:
                status = self._attempt(unit)
            except BrokenProcessPool:
                self.process = None
                died = RuntimeError("its process died; see the end of its log.txt, and how much memory there is.")
                for work in unit:
                    if outcome(work.folder)["status"] != "done":
                        fail(work.folder, died)
            finally:
                self.busy = None
            if status in ("done", "stopped") or self.stopping.is_set():
                break
        return status

    def _attempt(self, unit: TrialGroup) -> str:
        if self.process is None:
            fresh = multiprocessing.get_context("spawn")
            self.process = ProcessPoolExecutor(1, mp_context=fresh, initializer=_settle, initargs=self.share)
        self.busy = self.process.submit(os.getpid).result()
        return "stopped" if self.stopping.is_set() else self.process.submit(run_interruptible, unit).result()


def _settle(number: int, lanes: int) -> None:
    """A worker leaves the terminal's group, so that Ctrl-C reaches it once, through the lane, and takes its share."""
    os.setpgrp()
    limit_memory_fraction(number, lanes)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    """Save and end when the process that started this one is gone: nobody would ask for anything more."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)  # for what is under way to save itself
    os._exit(1)
