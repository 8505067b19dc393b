"""The other side of a benchmark: a program of its own that is told what to do, a JSON line at a time."""

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import jax
import numpy as np

from s2s_jax.bench.workloads import Workload, built, endless
from s2s_jax.shapes import Batch

REFERENCE = Path("experiments", "bench", "torch_reference.py")
PLACES = (Path(), Path(__file__).parent.parent.parent)


class TorchBaseline:
    """The same work in PyTorch, from the same parameters, in a process of its own.

    Raises:
        ValueError: there is no such program, or it does not come up; the message holds its last words.
    """

    def __init__(self, work: Workload, phase: str, batches: Sequence[Batch], *, style: str, python: str = ""):
        program = next((place / REFERENCE for place in PLACES if (place / REFERENCE).is_file()), None)
        if program is None:
            raise ValueError(f"--against torch runs {REFERENCE} of the source tree; start s2s bench in that tree.")
        self._folder = tempfile.TemporaryDirectory()
        self._write(Path(self._folder.name), work, phase, batches, style)
        command = [python or sys.executable, str(program), self._folder.name]
        self._words = Path(self._folder.name, "words.txt")  # a file never fills up, a pipe that nobody reads does
        with self._words.open("w", encoding="utf-8") as words:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, text=True
            )
        self._orders, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self.name = self._said()
        kind, _, width = phase.partition("beam")
        self._request = {"do": kind or "beam", "batches": list(range(len(batches)))} | (
            {"width": int(width)} if width else {}
        )

    def _write(self, folder: Path, work: Workload, phase: str, batches: Sequence[Batch], style: str) -> None:
        about = {
            "model": dataclasses.asdict(work.model),
            "source_vocabulary": work.source_vocabulary,
            "target_vocabulary": work.target_vocabulary,
            "precision": work.model.precision,
            "style": style,
            "compile": jax.default_backend() == "gpu",
            "device": "cuda" if jax.default_backend() == "gpu" else "cpu",
            "learning_rate": 1e-3,
            "clip": 5.0,
            "max_length": work.steps,
        }
        (folder / "work.json").write_text(json.dumps(about), encoding="utf-8")
        _, params = built(work)
        params = params if phase == "train" else endless(params)
        leaves = jax.tree_util.tree_leaves_with_path(params)
        _save(folder / "params.npz", {"/".join(key.key for key in path): leaf for path, leaf in leaves})
        sides = {f"source_{number}": batch.source for number, batch in enumerate(batches)}
        sides |= {f"target_{number}": batch.target for number, batch in enumerate(batches)}
        _save(folder / "batches.npz", sides)

    def seconds(self) -> float:
        """What one pass over all batches takes, as the program itself measures it."""
        self._orders.write(json.dumps(self._request) + "\n")
        self._orders.flush()
        return self._said()["seconds"]

    def _said(self) -> dict[str, Any]:
        line = self._answers.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        last = [said for said in self._words.read_text(encoding="utf-8").splitlines() if said.strip()][-1:]
        self.close()
        raise ValueError(f"--against torch: {' '.join(last) or 'the program ended without a word'}")

    def close(self) -> None:
        """End the program."""
        self._process.communicate()  # which closes its input: there are no more orders
        self._folder.cleanup()


def _save(path: Path, arrays: dict[str, Any]) -> None:
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(path, **plain)
