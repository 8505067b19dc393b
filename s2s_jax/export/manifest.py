"""The manifest of an exported run: what its directory holds, with a checksum per file."""

import hashlib
import json
from pathlib import Path
from typing import Any

EXPORT_FORMAT = 5
MANIFEST = "export.json"
PARAMETERS = "parameters.safetensors"
ENTRIES = ("s2s_jax", "jax", "platforms", "slots", "source_tokens", "searches", "config", "files")  # that are read
TOKENIZER_SIDES = ("source", "target")


def is_exported(directory: Path) -> bool:
    """Whether a directory was written by `s2s export`."""
    return (directory / MANIFEST).is_file()


def tokenizer_file(side: str) -> str:
    """The file name of the tokenizer of a side."""
    return f"{side}.tokenizer.json"


def write_manifest(directory: Path, facts: dict[str, Any]) -> None:
    """Write the manifest: facts about the export, and size and SHA-256 of every other file in the directory."""
    files = {path.name: {"sha256": _sha256(path), "bytes": path.stat().st_size} for path in sorted(directory.iterdir())}
    manifest = {"format": EXPORT_FORMAT, **facts, "files": files}
    text = json.dumps({**manifest, "sha256": _digest(manifest)}, indent=1, ensure_ascii=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest, after checking that neither it nor any file that it lists has changed.

    Raises:
        ValueError: a file is missing or has changed, or the format is another one.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        checksum = manifest.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {_cure(directory)}") from None
    if manifest.get("format") != EXPORT_FORMAT:
        raise ValueError(
            f"{path} has format {manifest.get('format')}, this version reads {EXPORT_FORMAT}: {other_version(manifest)}"
        )
    digest = _digest(manifest)
    if checksum != digest:
        raise ValueError(f"{path} is damaged (its sha256 is {digest[:12]}, not {checksum[:12]}); {_cure(directory)}")
    if missing := [name for name in ENTRIES if name not in manifest]:
        raise ValueError(f"{path} has no entry {missing[0]!r}: {other_version(manifest)}")
    for name in [*manifest["files"], *(search["program"] for search in manifest["searches"])]:
        if Path(name).name != name or name not in manifest["files"]:
            raise ValueError(f"{path} names a file that is not its own, {name!r}; {_cure(directory)}")
    for name, file in manifest["files"].items():
        _check_file(directory / name, file["sha256"])
    return manifest


def other_version(manifest: dict[str, Any]) -> str:
    """Which version wrote a manifest that this one cannot read, and what to do."""
    return f"s2s_jax {manifest.get('s2s_jax')} wrote it; use that version, or export the run again."


def _check_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise ValueError(f"{path} is missing; {_cure(path.parent)}")
    digest = _sha256(path)
    if digest != sha256:
        raise ValueError(f"{path} is damaged (sha256 {digest[:12]}, not {sha256[:12]}); {_cure(path.parent)}")


def _cure(directory: Path) -> str:
    return f"restore it from a copy, or export the run again: s2s export RUN {directory}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
