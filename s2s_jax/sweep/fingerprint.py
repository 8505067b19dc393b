"""What makes two cells one training, and what differs where a folder holds another?"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.config import Experiment, settings
from s2s_jax.run.run_dir import FORMAT, read_json, write_json
from s2s_jax.sweep.sweep import Trial
from s2s_jax.text.sources import SPLITS, DataConfig, read_split

ELSEWHERE = ("device.", "record.", "batch.prefetch", "data.directory", "data.manual_dir")  # where, not what
LATER = ("search.", "evaluation.")  # decide what is done with a trained run; but rules of search choose a checkpoint
FILES = ("data.train", "data.validation", "data.test", "data.alignment")


class TrialDir(NamedTuple):
    """A cell with its folder."""

    cell: Trial
    folder: Path
    identity: dict[str, Any]


def place(cells: Sequence[Trial], folder: Path) -> list[TrialDir]:
    """Each cell with the folder that is its own: a readable name and a fingerprint of all that it is trained from.

    Raises:
        ValueError: a cell of that name was trained from something else, with the differences.
    """
    known: dict[str, str] = read_json(folder / "data.json") if (folder / "data.json").exists() else {}
    before = len(known)
    placed = []
    for cell in cells:
        identity = identity_of(cell.experiment, known)
        own = folder / "cells" / f"{cell.title}-{fingerprint(identity)}"
        placed.append(TrialDir(cell, own, identity))
    if len(known) > before:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "data.json", known)
    _check_no_drift(placed)
    return placed


def identity_of(experiment: Experiment, known: dict[str, str]) -> dict[str, Any]:
    """All that decides what is trained; `known` holds fingerprints of data and is added to."""
    found = {setting.name: setting.value for setting in settings(experiment) if _counts(setting.name, setting.value)}
    return json.loads(json.dumps({"format": FORMAT, "data": _of_data(experiment.data, known), **found}))


def _counts(name: str, value: Any) -> bool:
    if name in FILES:
        return str(value).startswith(("task:", "tfds:"))  # a file's path is no part of it, its content is
    return not name.startswith(ELSEWHERE) and (name.startswith("search.rules") or not name.startswith(LATER))


def fingerprint(identity: dict[str, Any]) -> str:
    """Eight hexadecimal digits."""
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=4).hexdigest()


def _of_data(data: DataConfig, known: dict[str, str]) -> str:
    """A fingerprint over all pairs of all splits; files are read again only when they have changed."""
    names = [name for split in SPLITS if not (spec := data.spec(split)).startswith(("task:", "tfds:"))
             for name in ([spec] if Path(spec).exists() else spec.split(","))]  # fmt: skip
    stats = [(path.stat().st_size, path.stat().st_mtime_ns) for path in map(Path, names) if path.exists()]
    key = f"{data!r} {stats}"
    if key not in known:
        hashed = hashlib.blake2b(digest_size=16)
        for split in SPLITS:
            for example in read_split(data, split)[0]:
                hashed.update(f"{split}\0{example.source}\0{example.target}\n".encode())
        known[key] = hashed.hexdigest()
    return known[key]


def _check_no_drift(placed: Sequence[TrialDir]) -> None:
    """Refuse a sweep that has changed under a folder of its cells."""
    own = {one.folder for one in placed}
    for one in placed:
        for other in one.folder.parent.glob(f"{one.cell.title}-????????"):
            if other in own or not (other / "cell.json").exists():
                continue
            before = read_json(other / "cell.json")["identity"]
            changed = [
                f"{name}: {before.get(name)!r} before, {one.identity.get(name)!r} now"
                for name in {**before, **one.identity}
                if before.get(name) != one.identity.get(name)
            ]
            raise ValueError(
                f"{other} was trained from other settings ({'; '.join(changed)}); set them back, choose another --out, "
                "or delete that folder."
            )
