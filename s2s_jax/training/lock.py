"""The lock of a run directory: one process at a time writes into it."""

import fcntl
import os
import re
import socket
from pathlib import Path
from types import TracebackType
from typing import IO

LOCK_FILE = "lock"
_HOLDER = re.compile(r"host (\S+) pid (\d+)\n")
_held: set[IO[str]] = set()  # open in this process, so that a forked child can close them


class RunLockedError(OSError):
    """Another process uses the run directory."""


class Lock:
    """The right to write into a run directory, held by one process at a time, within a `with` block.

    The operating system holds the lock (`flock`) and drops it when the process ends, however it ends. The file stays
    and names the holder. Where many processes write one run together, only the first takes the lock.
    """

    def __init__(self, directory: Path):
        self.path = Path(directory).absolute() / LOCK_FILE
        self._file: IO[str] | None = None

    def __enter__(self) -> "Lock":
        """Take the lock.

        Raises:
            RunLockedError: another process holds it.
            OSError: the directory cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+", encoding="utf-8", errors="replace")
        except OSError as error:
            raise type(error)(
                f"cannot write into {self.path.parent} ({error.strerror}); give a --run that can be written"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(file)
            file.close()
            message = f"{self.path.parent} is in use by {owner}; wait for it, stop it, or choose another run directory"
            raise RunLockedError(message) from None
        except OSError as error:
            file.close()
            raise RunLockedError(
                f"{self.path} cannot be locked ({error.strerror}); choose a directory on a local disk"
            ) from error
        _write(file, f"host {socket.gethostname()} pid {os.getpid()}\n")
        _held.add(file)
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file in _held:  # not in a forked child, which has closed it
            _held.remove(self._file)
            _write(self._file, "")  # emptied, never deleted: a deleted lock could be taken twice
            self._file.close()


def _write(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _owner(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "another process"


def _close_all() -> None:
    for file in _held:
        file.close()
    _held.clear()


# A forked child shares the lock of its parent and would keep it after the parent was killed.
os.register_at_fork(after_in_child=_close_all)


def is_held(directory: Path) -> bool:
    """Whether a process uses a run directory now, by the text of the lock file; no lock is taken."""
    path = Path(directory) / LOCK_FILE
    holder = _HOLDER.fullmatch(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else None
    if holder is None:
        return False
    host, pid = holder.groups()
    return host != socket.gethostname() or Path(f"/proc/{pid}").exists()


def is_lock(path: Path) -> bool:
    """Whether a file is the lock of a run, free or held."""
    text = path.read_bytes()[:1000].decode("utf-8", errors="replace") if path.is_file() else "no"
    return not text or _HOLDER.fullmatch(text) is not None
