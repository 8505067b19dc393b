"""The checkpoints of a run, which survive a kill, a full disk and a flipped bit.

Orbax writes the arrays, in the background. This adds what Orbax lacks: a CRC-32 per leaf, waiting for a write and
reporting its failure, no silent cast, falling back to the newest good step, and removing what a kill left behind.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from s2s_jax.training import distributed
from s2s_jax.training.checkpoint.disk import (
    discard,
    missing_megabytes,
    remove_unfinished,
    sync_directory,
    try_writing,
)
from s2s_jax.training.checkpoint.format import (
    CheckpointError,
    DamageError,
    error_line,
    loss_of,
    read_arrays,
    read_record,
    record_of,
    start_writing,
)
from s2s_jax.training.checkpoint.pytree_io import check_same_structure, nested, rebuilt, storable
from s2s_jax.validation import check_fields

LATENCY = (0, 0.1, 0.5, 2)  # seconds to wait for a step that was written, one after another
_absl = logging.getLogger("absl")  # the one Orbax logs to


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to write a checkpoint, and which ones to keep."""

    every: int = 1000
    """Steps between two checkpoints."""
    every_minutes: float = 0.0
    """Minutes after which a checkpoint is written besides, counted from the last one; 0 for steps alone."""
    keep: int = 2
    """Newest checkpoints to keep; with two, one damaged checkpoint costs no more than one interval."""
    best: int = 1
    """Checkpoints with the best value of validation.metric to keep besides; 0 for none."""

    def __post_init__(self):
        check_fields(self, "checkpoint")
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"checkpoint.{name} must be positive, got {getattr(self, name)}")
        if self.every_minutes < 0:
            raise ValueError(f"checkpoint.every_minutes must be 0 or more, got {self.every_minutes}")
        if self.best < 0:
            raise ValueError(f"checkpoint.best must be 0 or more, got {self.best}")


class Restored(NamedTuple):
    """A checkpoint that was read: its step, the tree as it was saved, and the `about` of the save."""

    step: int
    tree: Any
    about: dict[str, Any]


class _Pending(NamedTuple):
    step: int
    record: dict[str, Any]
    writing: Any  # Orbax's AsyncResponse


class Checkpoints:
    """The checkpoints of one run, in one directory; leaving the `with` block waits for the last write.

    With a config the directory is made and opened for writing, which one run may do at a time (`lock.Lock`). Without a
    config it is opened for reading only: nothing in it is touched, and another process may be writing.

    `refused` has one line per step that the last `restore` skipped, with the reason.
    """

    def __init__(
        self,
        directory: Path,
        config: CheckpointConfig | None = None,
        *,
        run: Mapping[str, Any] | None = None,
        on_written: Callable[[int], None] | None = None,
    ):
        """Open the directory; for writing, unfinished writes in it are removed.

        Args:
            run: what identifies the run, kept in the record of each checkpoint that is saved.
            on_written: called with each step whose write has ended.

        Raises:
            FileNotFoundError: it does not exist, and is to be read only.
            CheckpointError: it cannot be written.
        """
        self.directory = Path(directory).resolve()  # TensorStore refuses `..`
        self.refused: list[str] = []
        self._config = config
        self._run, self._on_written = dict(run or {}), on_written
        self._damaged: set[int] = set()  # steps that `restore` refused
        self._pending: _Pending | None = None
        self._quiet = partial(_not_orbax)  # a new one each time, so that two can come and go
        if config is not None:
            self._open_for_writing()
        elif not self.directory.is_dir():
            raise FileNotFoundError(f"no checkpoints at {self.directory}: there is no such directory")

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None or not distributed.is_shared():  # else the other processes may not come to wait
                self.close()
        except CheckpointError as failure:
            if error is None or isinstance(error, SystemExit):  # exit(0) must not hide that a checkpoint is missing
                raise
            error.add_note(str(failure))

    def close(self) -> None:
        """Wait for the write in the background, and close the directory.

        Raises:
            CheckpointError: the write failed.
        """
        try:
            self.wait()
        finally:
            self._config = None
            _absl.removeFilter(self._quiet)

    def steps(self) -> list[int]:
        """The steps whose write has ended, oldest first."""
        names = [path.name for path in self.directory.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def latest(self) -> int | None:
        """The newest step whose write has ended."""
        return max(self.steps(), default=None)

    def save(self, step: int, tree: Any, *, metrics: Mapping[str, float] | None, about: Mapping[str, Any]) -> None:
        """Wait for the previous write, copy the tree, and write in the background; `tree` may be donated at once.

        A step that is there already, bit for bit, is not written again; otherwise it is replaced. `metrics` are those
        of the validation, whose `loss` (lower is better) decides which steps are best, or None without a validation;
        `about` is anything that JSON can represent, and comes back from `restore`.

        Raises:
            ValueError: a newer step is there already, or what is to be saved cannot be.
            CheckpointError: this write could not start, or the one before it failed.
        """
        if self._config is None:
            raise ValueError(
                f"{self.directory} is not open for writing; give a CheckpointConfig, and save before `close`"
            )
        self.wait()  # first, so that the host never holds two copies
        arrays, leaves = storable(tree)
        record = record_of(step, leaves, metrics=metrics, about=about, run=self._run)
        with distributed.together():
            present = [other for other in self.steps() if other not in self._damaged]
            is_there = step in present and self._is_there(step, record)
            if not is_there:
                self._check_newest(step, present)
                self._check_space(step, arrays)
        if distributed.of_first(is_there):
            return
        try:
            writing = start_writing(self._path(step), arrays, record, replace=step in self.steps())
        except Exception as error:
            raise self._unwritten(step, error) from error
        self._pending = _Pending(step, record, writing)

    def wait(self) -> None:
        """Wait until the write in the background has ended and its step is there.

        Raises:
            CheckpointError: the write failed.
        """
        if self._pending is None:
            return
        step, record, writing = self._pending
        with distributed.together():
            try:
                writing.result()
            except Exception as error:
                self._pending = None
                raise self._unwritten(step, error) from error
        self._pending = None  # only now: an interrupted wait may be repeated
        with distributed.together():  # process 0 renames the step, after which the others may look for it
            if distributed.is_first() and not self._appears(step, record):
                raise CheckpointError(f"checkpoint {step} is not in {self.directory}, although its write ended")
        self._damaged.discard(step)
        sync_directory(self.directory)  # Orbax has renamed the step into it
        if self._on_written is not None:
            self._on_written(step)
        self._prune(step)

    def restore(self, example: Any, *, step: int | None = None, best: bool = False) -> Restored:
        """The newest good checkpoint, in the form of `example`; damaged steps are skipped and listed in `refused`.

        Args:
            example: arrays, or `jax.ShapeDtypeStruct`; each leaf comes back with its type, dtype and sharding.
            step: this step and no other.
            best: the step of the lowest validation loss, after it the next best, and after all that were validated the
                newest.

        Raises:
            FileNotFoundError: there is nothing to restore.
            ValueError: a checkpoint is whole, but its leaves are not those of `example`.
            CheckpointError: no good step is left, or one has another format.
        """
        self.refused = []
        for candidate in self._candidates(step, best=best):
            try:
                record = read_record(self._path(candidate))
                check_same_structure(example, record["leaves"], where=str(self._path(candidate)))
                arrays = read_arrays(self._path(candidate), record)
            except DamageError as damage:
                self._refuse(candidate, damage)
            else:
                self._damaged.discard(candidate)
                return Restored(candidate, rebuilt(example, arrays), record["about"])
        raise CheckpointError(f"no good checkpoint in {self.directory}: {'; '.join(self.refused)}")

    def chosen(self, step: int | str, *, average: int = 0) -> list[int]:
        """The steps that stand first where `step`, "best" or "latest" is restored; or so many of the newest.

        Raises:
            FileNotFoundError: there is none.
        """
        if average:
            return self.steps()[-average:]
        return self._candidates(step if isinstance(step, int) else None, best=step == "best")[:1]

    def restore_raw(self, step: int) -> dict[str, Any]:
        """The arrays of a step as nested dicts of NumPy arrays, which needs no model.

        Raises:
            FileNotFoundError: there is no such step.
            CheckpointError: it is damaged, or has another format.
        """
        record = self.record(step)
        try:
            return nested(read_arrays(self._path(step), record))
        except DamageError as damage:
            raise CheckpointError(f"{self.directory}: {damage}") from None

    def record(self, step: int) -> dict[str, Any]:
        """The record of a step, without reading its arrays: `step`, `metrics`, `about`, `run`, `leaves`, `format`.

        Raises:
            FileNotFoundError: there is no such step.
            CheckpointError: it is damaged, or has another format.
        """
        self._check_present(step)
        try:
            return read_record(self._path(step))
        except DamageError as damage:
            raise CheckpointError(f"{self.directory}: {damage}") from None

    def verify(self, step: int) -> list[str]:
        """The problems of a step, one line each; none when every bit is as it was saved.

        Raises:
            FileNotFoundError: there is no such step.
        """
        self._check_present(step)
        try:
            read_arrays(self._path(step), read_record(self._path(step)))
        except DamageError as damage:
            return [f"step {step}: {problem}" for problem in damage.problems]
        except CheckpointError as newer:
            return [f"step {step}: {newer}"]
        return []

    def _path(self, step: int) -> Path:
        return self.directory / str(step)

    def _open_for_writing(self) -> None:
        try:
            try_writing(self.directory)
        except OSError as error:
            raise CheckpointError(f"cannot write checkpoints to {self.directory}: {error.strerror or error}") from error
        self._remove_unfinished()
        _absl.addFilter(self._quiet)

    def _check_present(self, step: int) -> None:
        self.wait()
        steps = self.steps()
        if step not in steps:
            there = ", ".join(map(str, steps)) or "none"
            raise FileNotFoundError(f"no checkpoint of step {step} in {self.directory}; there: {there}")

    def _candidates(self, step: int | None, *, best: bool) -> list[int]:
        if step is not None:
            self._check_present(step)
            return [step]
        self.wait()
        steps = self.steps()
        if not steps:
            raise FileNotFoundError(f"no checkpoint in {self.directory}")
        return self._best_first(steps) if best else steps[::-1]

    def _best_first(self, steps: Iterable[int]) -> list[int]:
        losses: dict[int, float | None] = {}
        for step in steps:
            try:
                losses[step] = loss_of(read_record(self._path(step)))
            except DamageError as damage:
                self._refuse(step, damage)
        rated = _by_loss(losses)
        return rated + sorted(set(losses) - set(rated), reverse=True)

    def _refuse(self, step: int, damage: DamageError) -> None:
        self._damaged.add(step)
        self.refused.append(str(damage))

    def _is_there(self, step: int, record: Mapping[str, Any]) -> bool:
        try:
            return read_record(self._path(step)) == record
        except DamageError:
            return False

    def _appears(self, step: int, record: Mapping[str, Any]) -> bool:
        """Whether a step that was written is there; a network file system may show it only after a while."""
        for seconds in LATENCY:
            time.sleep(seconds)
            if self._is_there(step, record):
                return True
        return False

    def _check_newest(self, step: int, present: Iterable[int]) -> None:
        newest = max(present, default=step)
        if newest > step:
            raise ValueError(
                f"{self.directory} holds step {newest}, newer than step {step} which is to be saved; "
                "move the newer checkpoints away, or choose another run directory"
            )

    def _check_space(self, step: int, arrays: Mapping[str, Any]) -> None:
        needed = sum(leaf.nbytes for leaf in arrays.values())
        missing = missing_megabytes(self.directory, needed=needed)
        if missing:
            size = f"{needed / 1e6:.1f} MB"
            raise CheckpointError(f"checkpoint {step} of {size} lacks {missing:.1f} MB in {self.directory}; make space")

    def _unwritten(self, step: int, error: Exception) -> CheckpointError:
        self._remove_unfinished()
        return CheckpointError(f"checkpoint {step} was not written to {self.directory}: {error_line(error)}")

    def _prune(self, newest: int) -> None:
        """Delete steps that need not be kept, and damaged ones once the run has passed them again."""
        if self._config is None or not distributed.is_first():
            return
        spared: set[int] = set()
        losses: dict[int, float | None] = {}
        for step in self.steps():
            if step in self._damaged:
                spared |= {step} if step > newest else set()
                continue
            try:
                losses[step] = loss_of(read_record(self._path(step)))
            except (DamageError, CheckpointError):  # not reported to the user yet, so not to be deleted
                spared.add(step)
        for step in set(self.steps()) - spared - kept_steps(losses, keep=self._config.keep, best=self._config.best):
            discard(self._path(step))

    def _remove_unfinished(self) -> None:
        if distributed.is_first():
            remove_unfinished(self.directory)


def kept_steps(losses: Mapping[int, float | None], *, keep: int, best: int) -> set[int]:
    """The `keep` newest steps and the `best` ones with the lowest loss; a step without a loss is never best."""
    return {*sorted(losses)[-keep:], *_by_loss(losses)[:best]}


def _by_loss(losses: Mapping[int, float | None]) -> list[int]:
    return [step for _, step in sorted((loss, step) for step, loss in losses.items() if loss is not None)]


def _not_orbax(record: logging.LogRecord) -> bool:
    """Orbax logs each step of its work to absl, tracebacks included; errors that matter are raised here."""
    return f"{os.sep}orbax{os.sep}" not in record.pathname
