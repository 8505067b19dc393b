"""Two runs never write into one directory, and no dead one keeps it."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from s2s_jax.training.lock import Lock, RunLockedError

OWNER = """
import os, signal, sys
from pathlib import Path
from s2s_jax.training.lock import Lock
with Lock(Path(sys.argv[1])):
    if sys.argv[2:] and os.fork() == 0:
        print(f"{os.getpid()}\\n", end="", flush=True)
        signal.pause()
    print("held\\n", end="", flush=True)
    signal.pause()
"""


def owner(directory: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", OWNER, str(directory), *more], stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_second_process_is_refused_with_host_and_pid_until_the_first_is_killed(tmp_path: Path):
    process = owner(tmp_path / "run")
    try:
        assert said(process) == "held"
        told = (
            f"run is in use by host {socket.gethostname()} pid {process.pid}; wait for it, stop it, or choose another"
        )
        with pytest.raises(RunLockedError, match=told), Lock(tmp_path / "run"):
            pass
    finally:
        ended(process)
    assert str(process.pid) in (tmp_path / "run" / "lock").read_text(), "a kill leaves its name behind, and no lock"
    with Lock(tmp_path / "run") as lock:
        assert lock.path.read_text() == f"host {socket.gethostname()} pid {os.getpid()}\n"


def test_the_orphan_of_a_killed_process_does_not_keep_the_lock(tmp_path: Path):
    process = owner(tmp_path, "fork")
    lines = {said(process), said(process)}
    orphan = int((lines - {"held"}).pop())
    process.kill()
    process.wait()
    try:
        with Lock(tmp_path):
            os.kill(orphan, 0)  # it is still alive
    finally:
        os.kill(orphan, signal.SIGKILL)
        assert process.stdout is not None
        process.stdout.close()


def test_the_lock_is_refused_within_one_process_and_free_after_it(tmp_path: Path):
    with Lock(tmp_path), pytest.raises(RunLockedError, match=f"pid {os.getpid()}"), Lock(tmp_path):
        pass
    assert (tmp_path / "lock").read_text() == ""
    with pytest.raises(KeyError), Lock(tmp_path):
        raise KeyError
    with Lock(tmp_path):
        pass


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(RunLockedError, match=r"lock cannot be locked \(No locks available\); choose a directory"),
        Lock(tmp_path),
    ):
        pass
