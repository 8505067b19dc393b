"""Whether every file of a run is as it was written, and all are of one run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.run.identity import check_one_run
from s2s_jax.run.run_dir import (
    CHECKPOINTS,
    CONFIG_FILE,
    FACTS_FILE,
    METRICS_FILE,
    SIDES,
    is_run,
    read_experiment,
    read_facts,
)
from s2s_jax.run.tokenizers import check_tokenizer, tokenizer_path
from s2s_jax.text.corpus import feature_sides
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.training.checkpoint.format import CheckpointError, loss_of
from s2s_jax.training.metrics_writer import damaged_lines


class VerifiedPart(NamedTuple):
    """A file or checkpoint of a run, with its problems, one line each; none where it is whole."""

    name: str
    problems: list[str]


class VerifiedCheckpoint(NamedTuple):
    """A checkpoint with its problems; none where every bit is as it was saved."""

    step: int
    megabytes: float
    loss: float | None  # the cost of its validation; None where there was none, or the record is damaged
    problems: list[str]


class VerifiedRun(NamedTuple):
    """All parts of a run."""

    files: list[VerifiedPart]
    checkpoints: list[VerifiedCheckpoint]

    @property
    def is_whole(self) -> bool:
        """Whether there is a checkpoint, and nothing is damaged."""
        return bool(self.checkpoints) and not any(part.problems for part in (*self.files, *self.checkpoints))


def verify(directory: str | Path) -> VerifiedRun:
    """Every file of a run, read and compared with its checksum or fingerprint; nothing is written.

    Raises:
        FileNotFoundError: there is no run.
    """
    directory = Path(directory)
    if not is_run(directory) and not (directory / CHECKPOINTS).is_dir():
        raise FileNotFoundError(f"no run at {directory}: it has neither config.json nor checkpoints.")
    sides = [*SIDES, *_feature_sides(directory)]
    files = [
        VerifiedPart(CONFIG_FILE, _problems(lambda: read_experiment(directory))),
        VerifiedPart(FACTS_FILE, _problems(lambda: read_facts(directory))),
        *(VerifiedPart(tokenizer_path(directory, side).name, _tokenizer(directory, side)) for side in sides),
        VerifiedPart(METRICS_FILE, _metrics(directory / METRICS_FILE)),
    ]
    if not (directory / CHECKPOINTS).is_dir():
        return VerifiedRun(files, [])
    with Checkpoints(directory / CHECKPOINTS) as checkpoints:
        if not any(part.problems for part in files[:2]):
            experiment, facts = read_experiment(directory), read_facts(directory)
            belonging = _problems(lambda: check_one_run(checkpoints, experiment, facts, directory))
            files.append(VerifiedPart("settings and data of the checkpoints", belonging))
        return VerifiedRun(files, [_checkpoint(checkpoints, step) for step in checkpoints.steps()])


def _checkpoint(checkpoints: Checkpoints, step: int) -> VerifiedCheckpoint:
    files = [path for path in (checkpoints.directory / str(step)).rglob("*") if path.is_file()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    try:
        loss = loss_of(checkpoints.record(step))
    except CheckpointError:
        loss = None
    return VerifiedCheckpoint(step, megabytes, loss, checkpoints.verify(step))


def _feature_sides(directory: Path) -> tuple[str, ...]:
    try:
        return feature_sides(len(read_experiment(directory).data.features))
    except (ValueError, OSError):
        return ()  # which is reported of config.json


def _tokenizer(directory: Path, side: str) -> list[str]:
    try:
        facts: dict[str, Any] = read_facts(directory)
    except ValueError:
        return []  # there is nothing to compare with, which is reported of facts.json
    return _problems(lambda: check_tokenizer(directory, side, facts))


def _metrics(path: Path) -> list[str]:
    count = damaged_lines(path)
    return [f"{path} has {count} damaged lines, which are dropped when the run is resumed"] if count else []


def _problems(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except (ValueError, OSError) as error:
        return [str(error)]
    return []
