"""Disk space, and writing and deleting so that a kill or a power cut leaves no half of a file or directory."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

UNFINISHED = (
    "*.orbax-checkpoint-tmp*"  # the directories that Orbax has not finished, and those that `discard` has begun
)
DOOMED = ".orbax-checkpoint-tmp-deleted"


def try_writing(directory: Path) -> None:
    """Make the directory and write a little into it, so that a full or read-only disk shows before hours of training.

    Raises:
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one piece or not at all: a kill or a power cut leaves the old content or the new one.

    Raises:
        OSError: naming the file; its old content stays.
    """
    draft = path.with_name(path.name + ".part")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on the disk, since a rename alone may be lost in a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot, and have no other way
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def missing_megabytes(directory: Path, *, needed: int) -> float:
    """The space that is missing there for `needed` bytes, in MB; 0 when it fits."""
    return max(0, needed - shutil.disk_usage(directory).free) / 1e6


def discard(directory: Path) -> None:
    """Delete a directory, first renamed so that `remove_unfinished` deletes the rest after a kill in between."""
    shutil.rmtree(directory.rename(directory.with_name(directory.name + DOOMED)), ignore_errors=True)


def remove_unfinished(directory: Path) -> None:
    """Delete what killed processes have left in a directory of checkpoints."""
    for path in directory.glob(UNFINISHED):
        shutil.rmtree(path, ignore_errors=True)
