"""What lies in a run's folder beside its checkpoints, and when may it be gone on with?"""

import json
from pathlib import Path
from typing import Any

from s2s_jax import config as configs
from s2s_jax.config import Experiment
from s2s_jax.imports import missing_code

FORMAT = 1
SIDES = ("source", "target")


def has_checkpoint(directory: Path) -> bool:
    """Whether there is a checkpoint to go on from; without one, a run starts from the beginning."""
    return any((directory / "checkpoints").glob("[0-9]*"))


def clear(directory: Path) -> None:
    """Take away what a run that never came to a checkpoint has left: it would bind the next one to its settings."""
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
    """Refuse to go on with a run on other data than it was begun with; the facts of a new one are written."""
    if path.exists():
        before = read_json(path)
        changed = [name for name in facts if name not in ("version", "format") and before.get(name) != facts[name]]
        if changed:
            said = "; ".join(f"{name}: {before.get(name)} before, {facts[name]} now" for name in changed)
            raise ValueError(f"{path.parent} was trained on other data ({said}); restore it, or give another --run.")
    write_json(path, facts)


def read_experiment(directory: Path) -> Experiment:
    """The experiment of a run; code of the user's that it names is not executed.

    Raises:
        FileNotFoundError, ValueError: there is no run, its config.json cannot be read, or it names code that has not
            been imported in this process.
    """
    path = directory / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"no run at {directory} (it has no config.json); train one: s2s train EXPERIMENT --run {directory}"
        )
    record = read_json(path)
    if record.pop("format", 0) > FORMAT:
        raise ValueError(f"{path} was written by a newer s2s_jax; use that, or at least its version.")
    if missing := missing_code(record.get("imports", ())):
        flags = " ".join(f"--import {name}" for name in missing)
        raise ValueError(f"{directory} needs code of yours, which loading a run does not execute; give {flags}.")
    try:
        return configs.from_json(record)
    except ValueError as error:
        raise ValueError(f"{path}: {error} If a name is your own, give the file that adds it with --import.") from None


def read_json(path: Path) -> dict[str, Any]:
    """One of a run's own files.

    Raises:
        ValueError: it was damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); restore it from a copy.") from None


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write at once or not at all, so that a kill leaves no half file."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)
