"""Signs of life of a trial: a file whose time its process renews; without it a dead machine's trial looks alive."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from s2s_jax.run.run_dir import read_json, write_json
from s2s_jax.training.lock import Lock, RunLockedError, is_held
from s2s_jax.training.signals import Interrupted, SignalGuard

HEARTBEAT_FILE = "heartbeat.json"
BEAT_SECONDS = 10
LOST_SECONDS = 120  # after which a process on another machine counts as lost
LOCK_SECONDS = 120  # that an earlier process has to save its state; a worker whose sweep was killed ends after 60


class Heartbeat:
    """A `with` block in which the directories of trials show that their process lives."""

    def __init__(self, folders: Sequence[Path]):
        self._folders, self._ended = folders, threading.Event()

    def __enter__(self) -> "Heartbeat":
        self._show()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                self._show()

    def _show(self) -> None:
        for folder in self._folders:
            show_sign_of_life(folder, socket.gethostname(), os.getpid())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for folder in self._folders:
            end_signs_of_life(folder)


def show_sign_of_life(folder: Path, host: str, pid: int) -> None:
    """Record in a trial's directory that its process lives now."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / HEARTBEAT_FILE, {"host": host, "pid": pid})


def end_signs_of_life(folder: Path) -> None:
    """Record that no process works on a trial any more."""
    (folder / HEARTBEAT_FILE).unlink(missing_ok=True)


class SignOfLife(NamedTuple):
    """What is known of the process that trains a trial."""

    host: str
    seconds: float  # since its last sign of life
    alive: bool

    def __str__(self) -> str:
        """One line for the user."""
        minutes, hours = self.seconds / 60, self.seconds / 3600
        age = (
            f"{hours:.1f} hours"
            if hours >= 2
            else f"{minutes:.0f} minutes"
            if minutes >= 2
            else f"{self.seconds:.0f} s"
        )
        return f"its process on {self.host} has given no sign of life for {age}; run the sweep again to resume it"


def sign_of_life(folder: Path) -> SignOfLife | None:
    """The last sign of life of a trial's process; None if none has begun, or it has ended in good order."""
    path = folder / HEARTBEAT_FILE
    try:
        record, seconds = read_json(path), max(0.0, time.time() - path.stat().st_mtime)
    except (OSError, ValueError):
        return None
    host, pid = record.get("host", "?"), record.get("pid")
    here = host == socket.gethostname()
    alive = Path(f"/proc/{pid}").exists() if here else seconds < LOST_SECONDS
    return SignOfLife(host, seconds, alive)


def is_running(folder: Path) -> bool:
    """Whether a process trains a trial now; one on another machine, as far as its signs of life tell."""
    sign = sign_of_life(folder)
    return is_held(folder / "run") if sign is None else sign.alive


def wait_until_free(folder: Path) -> None:
    """Wait for an earlier process to save its state: one whose sweep was killed, and which has not noticed yet.

    Raises:
        RunLockedError: it does not end.
        Interrupted: a signal asked for an end.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    with SignalGuard() as interrupt:
        while True:
            try:
                with Lock(folder / "run"):
                    return
            except RunLockedError:
                if time.monotonic() > deadline:
                    raise
            if interrupt.number:
                raise Interrupted(interrupt.number, 0)
            time.sleep(0.5)
