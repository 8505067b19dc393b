"""The PyTorch side of a benchmark: a process of its own that takes requests as JSON lines."""

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

from s2s_jax.bench.workloads import Workload, build_workload, without_eos
from s2s_jax.extras import needs_extra
from s2s_jax.shapes import Batch
from s2s_jax.shipped import EXPERIMENTS

PROGRAM = EXPERIMENTS / "bench" / "torch_reference.py"


class TorchBaseline:
    """The same workload in PyTorch, from the same parameters.

    Raises:
        ValueError: the process does not start; the message holds the last line that it wrote.
    """

    def __init__(self, workload: Workload, phase: str, batches: Sequence[Batch], *, style: str, python: str = ""):
        self._folder = tempfile.TemporaryDirectory()
        self._write(Path(self._folder.name), workload, phase, batches, style)
        command = [python or sys.executable, str(PROGRAM), self._folder.name]
        self._log = Path(self._folder.name, "log.txt")  # unlike a pipe that nobody reads, a file never fills up
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._requests, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        self.versions = self._read_answer()
        kind, _, width = phase.partition("beam")
        self._request = {"do": kind or "beam", "batches": list(range(len(batches)))} | (
            {"width": int(width)} if width else {}
        )

    def _write(self, folder: Path, workload: Workload, phase: str, batches: Sequence[Batch], style: str) -> None:
        settings = {
            "model": dataclasses.asdict(workload.model),
            "source_vocabulary": workload.source_vocabulary,
            "target_vocabulary": workload.target_vocabulary,
            "precision": workload.model.precision,
            "style": style,
            "compile": jax.default_backend() == "gpu",
            "device": "cuda" if jax.default_backend() == "gpu" else "cpu",
            "learning_rate": 1e-3,
            "clip": 5.0,
            "max_length": workload.max_length,
        }
        (folder / "work.json").write_text(json.dumps(settings), encoding="utf-8")
        _, params = build_workload(workload)
        params = params if phase == "train" else without_eos(params)
        leaves = jax.tree_util.tree_leaves_with_path(params)
        _save(folder / "params.npz", {"/".join(key.key for key in path): leaf for path, leaf in leaves})
        sides = {f"source_{number}": batch.source for number, batch in enumerate(batches)}
        sides |= {f"target_{number}": batch.target for number, batch in enumerate(batches)}
        _save(folder / "batches.npz", sides)

    def seconds(self) -> float:
        """The seconds of one pass over all batches, as the process measures them."""
        self._requests.write(json.dumps(self._request) + "\n")
        self._requests.flush()
        return self._read_answer()["seconds"]

    def _read_answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        last = [line for line in self._log.read_text(encoding="utf-8").splitlines() if line.strip()][-1:]
        self.close()
        if any("No module named 'torch'" in line for line in last):
            raise ValueError(f"{needs_extra('--against torch', 'bench')[:-1]}, or name a --python that has them.")
        raise ValueError(f"--against torch: {' '.join(last) or 'the program ended without a message'}")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()  # which closes its input
        self._folder.cleanup()


def _save(path: Path, arrays: dict[str, Any]) -> None:
    plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(path, **plain)
