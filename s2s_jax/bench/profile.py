"""A profile of a train step by the parts of the model."""

import collections
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from s2s_jax.bench.runner import Runner
from s2s_jax.bench.workloads import Workload, median_batch

# as the model and the step name them, the innermost first
PARTS = ("attention", "vocabulary", "loss", "embedding", "encoder", "decoder", "optimizer")
PROFILED_STEPS = 5
STRUCTURE = ("while", "call", "conditional", "parameter", "tuple", "get-tuple-element")  # they contain others' time


class PartTime(NamedTuple):
    """The time of one kind of operation in one part of the model."""

    part: str  # such as `decoder, backward`
    kind: str  # `products` or `the rest`
    milliseconds: float  # per step


class StepProfile(NamedTuple):
    """Where the time of a train step goes."""

    step_milliseconds: float  # without the profiler
    parts: list[PartTime]  # longest first; added over threads, so that the sum may exceed the step's time


def profile_step(workload: Workload, directory: Path) -> StepProfile:
    """The profile of a train step; the trace is left in the directory, for TensorBoard or Perfetto."""
    runner = Runner(workload, "train", [median_batch(workload)])
    runner.seconds()
    began = time.perf_counter()
    for _ in range(PROFILED_STEPS):
        runner.seconds()
    elapsed = 1e3 * (time.perf_counter() - began) / PROFILED_STEPS
    with jax.profiler.trace(str(directory)):
        for _ in range(PROFILED_STEPS):
            runner.seconds()
    (program,) = runner.programs.values()
    places = _places(program.as_text())
    spent: dict[tuple[str, str], float] = collections.defaultdict(float)
    for name, milliseconds in _events(directory):
        if name in places:
            spent[places[name]] += milliseconds / PROFILED_STEPS
    parts = [PartTime(*place, milliseconds) for place, milliseconds in spent.items()]
    return StepProfile(elapsed, sorted(parts, key=lambda part: -part.milliseconds))


def count_kernels(run: Callable[[], Any]) -> int:
    """How many kernels and copies a run launches on an accelerator."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        lines = [line for plane in _planes(Path(folder)) if "/device:" in plane.name for line in plane.lines]
        return sum(len(list(line.events)) for line in lines if line.name.startswith("Stream"))


def _places(program: str) -> dict[str, tuple[str, str]]:
    """The part of the model and the kind of each instruction of a compiled program."""
    places = {}
    for name, kind, rest in re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = \S+ ([\w\-]+)\((.*)$", program, re.MULTILINE):
        if kind in STRUCTURE:
            continue
        match = re.search(r'op_name="([^"]*)"', rest)
        path = match.group(1) if match else ""
        product = kind == "dot" or "dot_general" in path.rsplit("/", 1)[-1] or "gemm" in rest
        places[name] = _part(path), "products" if product else "the rest"
    return places


def _part(path: str) -> str:
    """The innermost part that the path of an operation names, with its direction."""
    parts = [part for part in PARTS if re.search(rf"\b{part}\b", path)]
    direction = "backward" if "transpose(" in path else "forward"
    if not parts:
        return "other"
    return parts[0] if parts[0] == "optimizer" else f"{parts[0]}, {direction}"


def _events(directory: Path) -> Iterator[tuple[str, float]]:
    """Name and milliseconds of every executed instruction."""
    for plane in _planes(directory):
        for line in plane.lines:
            if line.name.startswith("tf_XLA") or "/device:" in plane.name:
                for event in line.events:
                    yield _instruction(event), event.duration_ns / 1e6


def _planes(directory: Path) -> Iterable[Any]:
    newest = max(directory.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    return jax.profiler.ProfileData.from_file(str(newest)).planes


def _instruction(event: Any) -> str:
    """The instruction of an event; on an accelerator an event is a kernel that names its instruction in its stats."""
    return next((str(value) for name, value in event.stats if name == "hlo_op"), event.name)
