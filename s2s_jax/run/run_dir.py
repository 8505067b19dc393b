"""The files of a run directory beside its checkpoints: settings and facts, each with a checksum."""

import json
import zlib
from pathlib import Path
from typing import Any

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.imports import missing_code
from s2s_jax.training.checkpoint.disk import replace_file

RUN_FORMAT = 3  # of config.json and facts.json
SEAL = "crc32"  # the key of their checksum
CONFIG_FILE, FACTS_FILE, METRICS_FILE, CHECKPOINTS = "config.json", "facts.json", "metrics.jsonl", "checkpoints"
WARM_START_FILE = "warm_start.json"  # what of another run's parameters was taken
SIDES = ("source", "target")


def write_config(directory: Path, experiment: Experiment) -> None:
    """Write the config.json of a run."""
    write_sealed(directory / CONFIG_FILE, {"format": RUN_FORMAT, **configs.to_json(experiment)})


def write_facts(directory: Path, facts: dict[str, Any]) -> None:
    """Write the facts.json of a run."""
    write_sealed(directory / FACTS_FILE, facts)


def read_facts(directory: Path) -> dict[str, Any]:
    """The facts of a run, as `batches.facts_of` gives them.

    Raises:
        ValueError: facts.json is missing, damaged or of another format.
    """
    path = directory / FACTS_FILE
    if not path.exists():
        raise ValueError(f"{path} is missing; restore it from a copy, or write it again: s2s train {directory}")
    return _read_sealed(path, remedy=f"restore it from a copy, or write it again: s2s train {directory}")


def read_experiment(directory: str | Path) -> Experiment:
    """The experiment of a run; code of yours that it names is not executed.

    Raises:
        FileNotFoundError, ValueError: there is no run, its config.json cannot be read or has another format, or it
            names code that has not been imported in this process.
    """
    path = Path(directory) / CONFIG_FILE
    if not path.exists():
        raise FileNotFoundError(
            f"no run at {directory} (it has no config.json); train one: s2s train EXPERIMENT --run {directory}"
        )
    remedy = "restore it from a copy, or delete it and resume the run with its experiment, not with its directory"
    record = _read_sealed(path, remedy=remedy)
    del record["format"]
    if missing := missing_code(record.get("imports", ())):
        flags = " ".join(f"--import {name}" for name in missing)
        raise ValueError(f"{directory} needs code of yours, which loading a run does not execute; give {flags}.")
    try:
        return configs.from_json(record)
    except ValueError as error:
        raise ValueError(f"{path}: {error} If a name is your own, give the file that adds it with --import.") from None


def is_run(directory: Path) -> bool:
    """Whether there is a config.json that a run, of whatever format, has written."""
    try:
        return isinstance(read_json(directory / CONFIG_FILE).get("format"), int)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def checkpoint_steps(directory: Path) -> list[int]:
    """The steps of the checkpoints of a run, damaged ones included, oldest first."""
    return sorted(int(path.name) for path in (directory / CHECKPOINTS).glob("[0-9]*") if path.name.isdecimal())


def write_sealed(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON file that holds a checksum of its own content."""
    write_json(path, {**record, SEAL: checksum(record)})


def _read_sealed(path: Path, *, remedy: str) -> dict[str, Any]:
    """The content of a file that `write_sealed` has written.

    Raises:
        ValueError: it is damaged, or has another format.
    """
    try:
        record = read_json(path)
    except ValueError as error:
        raise ValueError(f"{str(error).partition(';')[0]}; {remedy}.") from None
    if not isinstance(record.get("format"), int):
        raise ValueError(f"{path} is damaged, or no file of a run: it has no format; {remedy}.")
    _check_format(path, record["format"])
    seal = record.pop(SEAL, None)
    if seal != checksum(record):
        raise ValueError(
            f"{path} is damaged, or was changed by hand: its checksum does not match its content; {remedy}."
        )
    return record


def checksum(record: dict[str, Any]) -> int:
    """The checksum of a JSON object, whatever the order of its keys."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _check_format(path: Path, found: int) -> None:
    if found > RUN_FORMAT:
        raise ValueError(f"{path} was written by a newer s2s_jax (format {found}); update s2s_jax.")
    if found < RUN_FORMAT:
        raise ValueError(
            f"{path} was written by an older s2s_jax (format {found}, this one reads {RUN_FORMAT}); use that version, "
            "or train the run again."
        )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in one of a run's own files.

    Raises:
        ValueError: it is damaged.
    """
    try:
        record = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({' '.join(str(error).split())}); restore it from a copy.") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds no JSON object, but {str(record)[:40]!r}; restore it from a copy.")
    return record


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a file in one piece or not at all, so that a kill leaves no half file."""
    replace_file(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
