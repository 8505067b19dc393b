"""Where does a training step go? A profile of it, told by the parts of the model."""

import collections
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from s2s_jax.bench.runner import Runner
from s2s_jax.bench.workloads import Workload, typical_batch

# as the model and the step name them, the innermost first
PARTS = ("attention", "vocabulary", "loss", "embedding", "encoder", "decoder", "optimizer")
STEPS = 5


def profiled(work: Workload, directory: Path) -> tuple[float, list[tuple[str, str, float]]]:
    """Milliseconds a step without the profiler; and with it (part, kind, milliseconds), the longest first.

    The trace itself is left in the directory, for TensorBoard or Perfetto. Times are added over the threads that
    worked, so their sum may exceed the step's.
    """
    ours = Runner(work, "train", [typical_batch(work)])
    ours.seconds()
    began = time.perf_counter()
    for _ in range(STEPS):
        ours.seconds()
    elapsed = 1e3 * (time.perf_counter() - began) / STEPS
    with jax.profiler.trace(str(directory)):
        for _ in range(STEPS):
            ours.seconds()
    (program,) = ours.programs.values()
    parts = _parts(program.as_text())
    spent: dict[tuple[str, str], float] = collections.defaultdict(float)
    for name, milliseconds in _events(directory):
        if name in parts:
            spent[parts[name]] += milliseconds / STEPS
    return elapsed, sorted(((*key, value) for key, value in spent.items()), key=lambda row: -row[2])


def kernels(run: Callable[[], Any]) -> int:
    """How many kernels and copies an accelerator is sent by a run."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        lines = [line for plane in _planes(Path(folder)) if "/device:" in plane.name for line in plane.lines]
        return sum(len(list(line.events)) for line in lines if line.name.startswith("Stream"))


def _parts(program: str) -> dict[str, tuple[str, str]]:
    """The part and the kind of each instruction of a compiled program."""
    found = {}
    for name, kind, rest in re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = \S+ ([\w\-]+)\((.*)$", program, re.MULTILINE):
        path = re.search(r'op_name="([^"]*)"', rest)
        said = path.group(1) if path else ""
        if kind in ("while", "call", "conditional", "parameter", "tuple", "get-tuple-element"):
            continue
        product = kind == "dot" or "dot_general" in said.rsplit("/", 1)[-1] or "gemm" in rest
        found[name] = _part(said), "products" if product else "the rest"
    return found


def _part(path: str) -> str:
    inside = [part for part in PARTS if re.search(rf"\b{part}\b", path)]
    way = "backward" if "transpose(" in path else "forward"
    if not inside:
        return "other"
    return inside[0] if inside[0] == "optimizer" else f"{inside[0]}, {way}"


def _events(directory: Path) -> Iterator[tuple[str, float]]:
    """Name and milliseconds of every instruction that ran."""
    for plane in _planes(directory):
        for line in plane.lines:
            if line.name.startswith("tf_XLA") or "/device:" in plane.name:
                for event in line.events:
                    yield _instruction(event), event.duration_ns / 1e6


def _planes(directory: Path) -> Iterable[Any]:
    newest = max(directory.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    return jax.profiler.ProfileData.from_file(str(newest)).planes


def _instruction(event: Any) -> str:
    """On an accelerator an event is a kernel that names its instruction beside it."""
    return next((str(value) for name, value in event.stats if name == "hlo_op"), event.name)
