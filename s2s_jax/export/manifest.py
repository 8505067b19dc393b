"""What lies in the folder of an exported run, and is it whole?"""

import hashlib
import json
from pathlib import Path
from typing import Any

FORMAT = 3
DESCRIPTION = "export.json"
PARAMETERS = "parameters.safetensors"
SIDES = ("source", "target")


def is_exported(directory: Path) -> bool:
    """Whether a folder was made by `s2s export`."""
    return (directory / DESCRIPTION).is_file()


def tokenizer_file(side: str) -> str:
    """The name of a side's tokenizer."""
    return f"{side}.tokenizer.json"


def write_manifest(directory: Path, facts: dict[str, Any]) -> None:
    """Describe the folder: what was exported, and the SHA-256 of every file beside."""
    files = {path.name: {"sha256": _sha256(path), "bytes": path.stat().st_size} for path in sorted(directory.iterdir())}
    said = {"format": FORMAT, **facts, "files": files}
    text = json.dumps({**said, "sha256": _digest(said)}, indent=1, ensure_ascii=False)
    (directory / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def read_manifest(directory: Path) -> dict[str, Any]:
    """What `write_manifest` wrote, once it is sure that it and all files beside are what they were.

    Raises:
        ValueError: a file is missing or has changed, or another version wrote it.
    """
    path = directory / DESCRIPTION
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        seal = said.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {_cure(directory)}") from None
    if said.get("format") != FORMAT:
        raise ValueError(
            f"{path} is of format {said.get('format')}, wanted {FORMAT}: s2s_jax {said.get('s2s_jax')} wrote it; use "
            "that, or export the run again."
        )
    if seal != _digest(said):
        raise ValueError(f"{path} is damaged (its sha256 is {_digest(said)[:12]}, not {seal[:12]}); {_cure(directory)}")
    for name, wanted in said["files"].items():
        _check_whole(directory / name, wanted["sha256"])
    return said


def _check_whole(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise ValueError(f"{path} is missing; {_cure(path.parent)}")
    found = _sha256(path)
    if found != wanted:
        raise ValueError(f"{path} is damaged (sha256 {found[:12]}, not {wanted[:12]}); {_cure(path.parent)}")


def _cure(directory: Path) -> str:
    return f"restore it from a copy, or export the run again: s2s export RUN {directory}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
