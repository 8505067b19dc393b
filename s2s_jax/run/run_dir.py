"""The files of a run directory beside its checkpoints, and when a run may be resumed."""

import json
from pathlib import Path
from typing import Any

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.imports import missing_code

RUN_FORMAT = 2  # of config.json and facts.json
SIDES = ("source", "target")


def open_run_dir(directory: Path, experiment: Experiment) -> None:
    """Make sure that a run of the experiment may be started or resumed in a directory.

    What a run without a checkpoint has left is deleted: it would bind the next one to its settings.

    Raises:
        ValueError: the directory has a run with other settings.
    """
    if any((directory / "checkpoints").glob("[0-9]*")):
        check_same_settings(experiment, directory)
        return
    for name in ("config.json", "facts.json", "metrics.jsonl", *(f"{side}.tokenizer.json" for side in SIDES)):
        (directory / name).unlink(missing_ok=True)


def check_same_settings(experiment: Experiment, directory: Path) -> None:
    """Refuse to resume a run with settings that would have made another one."""
    changed = configs.differences(read_experiment(directory), experiment)
    if changed:
        raise ValueError(
            f"{directory} holds a run with other settings ({'; '.join(changed)}); resume it with the same ones, or "
            "give another --run."
        )


def check_same_facts(path: Path, facts: dict[str, Any]) -> None:
    """Refuse to resume a run on other data than it was begun with; the facts of a new one are written."""
    if path.exists():
        before = read_json(path)
        changed = [name for name in facts if name not in ("version", "format") and before.get(name) != facts[name]]
        if changed:
            changes = "; ".join(f"{name}: {before.get(name)} before, {facts[name]} now" for name in changed)
            raise ValueError(f"{path.parent} was trained on other data ({changes}); restore it, or give another --run.")
    write_json(path, facts)


def write_config(directory: Path, experiment: Experiment) -> None:
    """Write the config.json of a run."""
    write_json(directory / "config.json", {"format": RUN_FORMAT, **configs.to_json(experiment)})


def read_experiment(directory: Path) -> Experiment:
    """The experiment of a run; code of yours that it names is not executed.

    Raises:
        FileNotFoundError, ValueError: there is no run, its config.json cannot be read or has another format, or it
            names code that has not been imported in this process.
    """
    path = directory / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"no run at {directory} (it has no config.json); train one: s2s train EXPERIMENT --run {directory}"
        )
    record = read_json(path)
    _check_format(directory, record.pop("format", 0))
    if missing := missing_code(record.get("imports", ())):
        flags = " ".join(f"--import {name}" for name in missing)
        raise ValueError(f"{directory} needs code of yours, which loading a run does not execute; give {flags}.")
    try:
        return configs.from_json(record)
    except ValueError as error:
        raise ValueError(f"{path}: {error} If a name is your own, give the file that adds it with --import.") from None


def _check_format(directory: Path, found: int) -> None:
    if found > RUN_FORMAT:
        raise ValueError(f"{directory} was written by a newer s2s_jax (format {found}); update s2s_jax.")
    if found < RUN_FORMAT:
        raise ValueError(
            f"{directory} was written by an older s2s_jax (format {found}, this one reads {RUN_FORMAT}), with "
            "other names of settings; use that version, or train the run again."
        )


def read_json(path: Path) -> dict[str, Any]:
    """The content of one of a run's own files.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); restore it from a copy.") from None


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a file in one piece or not at all, so that a kill leaves no half file."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
