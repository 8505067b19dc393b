"""Is there room to write, and how does a directory go away so that a kill leaves no half of it?"""

import os
import shutil
import tempfile
from pathlib import Path

UNFINISHED = (
    "*.orbax-checkpoint-tmp*"  # the directories that Orbax has not finished, and those that `discard` has begun
)
DOOMED = ".orbax-checkpoint-tmp-deleted"


def try_writing(directory: Path) -> None:
    """Makes the directory and writes a little into it, so that a full or read-only disk shows before hours of training.

    Raises:
        OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


def missing_megabytes(directory: Path, *, needed: int) -> float:
    """How much space is missing there for `needed` bytes; 0 when it fits."""
    return max(0, needed - shutil.disk_usage(directory).free) / 1e6


def discard(directory: Path) -> None:
    """Deletes a directory, under a name that marks it as doomed: after a kill in between, `sweep` ends the work."""
    shutil.rmtree(directory.rename(directory.with_name(directory.name + DOOMED)), ignore_errors=True)


def sweep(directory: Path) -> None:
    """Deletes what kills have left behind in a directory of checkpoints."""
    for path in directory.glob(UNFINISHED):
        shutil.rmtree(path, ignore_errors=True)
