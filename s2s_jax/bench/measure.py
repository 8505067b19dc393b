"""Interleaved measurements: two sides take turns in one process, since a machine's speed drifts from run to run."""

import dataclasses
import itertools
import os
import platform
import statistics
from collections.abc import Iterator
from typing import Any, Literal

import jax

from s2s_jax.bench.profile import count_kernels
from s2s_jax.bench.roofline import Roofline
from s2s_jax.bench.runner import Runner
from s2s_jax.bench.torch_baseline import TorchBaseline
from s2s_jax.bench.workloads import (
    Workload,
    build_workload,
    decoding_batches,
    decoding_flops,
    median_batch,
    training_batches,
    training_flops,
)
from s2s_jax.model.ops.matmul import PRECISIONS
from s2s_jax.shapes import real
from s2s_jax.validation import at_least, one_of

PHASES = ("train", "greedy", "beam5")
TRAINING_BATCHES = 8
SEARCH_BATCHES = {1: 8, 32: 4, 100: 3}  # sentences per batch -> batches decoded per round
STYLES = ("fast", "tutorial")

TorchStyle = Literal["fast", "tutorial"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured, and how often."""

    phases: tuple[str, ...] = PHASES
    """Any of train, greedy and beam5."""
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    """Any of float32 and bfloat16."""
    batches: tuple[int, ...] = tuple(SEARCH_BATCHES)
    """Sentences per decoded batch."""
    rounds: int = 5
    """Measurements of each side."""
    against: Literal["", "torch"] = ""
    """torch to time the workload in PyTorch too."""
    style: TorchStyle = "fast"
    """How the PyTorch side is written."""
    python: str = ""
    """The interpreter that has torch; empty for this one."""

    def __post_init__(self):
        for name, values, known in (("phases", self.phases, PHASES), ("precisions", self.precisions, PRECISIONS)):
            for value in values:
                one_of(f"--{name}", value, known)
        for count in self.batches:
            at_least("--batches", count, 1)
        at_least("--rounds", self.rounds, 1)
        one_of("--against", self.against, ("", "torch"))
        one_of("--style", self.style, STYLES)


def describe_machine() -> dict[str, Any]:
    """Device, processor and versions, as recorded with the measurements."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "jax": jax.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def measure_workload(
    name: str, workload: Workload, config: BenchConfig, roofline: Roofline
) -> Iterator[dict[str, Any]]:
    """One row per phase, precision and batch size, as soon as it is measured."""
    for precision, phase in itertools.product(config.precisions, config.phases):
        model = dataclasses.replace(workload.model, precision=precision)
        exact = dataclasses.replace(workload, model=model)
        for size in (workload.batch_size,) if phase == "train" else config.batches:
            yield {**_about(name, exact, phase, size), **_measure_phase(exact, phase, size, config, roofline)}


def compare_setting(
    name: str, setting: str, variants: dict[str, Workload], config: BenchConfig
) -> Iterator[dict[str, Any]]:
    """One row per value of a setting: interleaved train steps, and their time relative to that of the first value."""
    batches = [median_batch(workload) for workload in variants.values()]
    runners = [Runner(workload, "train", [batch]) for workload, batch in zip(variants.values(), batches, strict=True)]
    turns = [[runner.seconds() for runner in runners] for _ in range(config.rounds + 1)][1:]  # the first warms up
    for number, ((value, workload), runner) in enumerate(zip(variants.items(), runners, strict=True)):
        seconds = statistics.median(turn[number] for turn in turns)
        yield {
            **_about(name, workload, "train", workload.batch_size),
            "setting": setting,
            "value": value,
            "milliseconds": 1e3 * seconds,
            "tokens_per_s": int(real(batches[number].target).sum()) / seconds,
            **_spread("cost", [turn[number] / turn[0] for turn in turns]),
            **_compilation(runner),
        }


def compare_replicas(name: str, workload: Workload, count: int, config: BenchConfig) -> dict[str, Any]:
    """A train step of several seeds in one program (`vmap`), interleaved with as many steps of one seed."""
    batches = [median_batch(workload)]
    together, alone = Runner(workload, "train", batches, replicas=count), Runner(workload, "train", batches)
    turns = [(together.seconds(), sum(alone.seconds() for _ in range(count))) for _ in range(config.rounds + 1)][1:]
    return {
        **_about(name, workload, "train", workload.batch_size),
        "replicas": count,
        "milliseconds": 1e3 * statistics.median(at_once for at_once, _ in turns),
        **_spread("ratio", [one_by_one / at_once for at_once, one_by_one in turns]),
        **_compilation(together),
    }


def _about(name: str, workload: Workload, phase: str, size: int) -> dict[str, Any]:
    return {"work": name, "phase": phase, "precision": workload.model.precision, "batch": size}


def _spread(name: str, values: list[float]) -> dict[str, float]:
    return {f"{name}_min": min(values), f"{name}_median": statistics.median(values), f"{name}_max": max(values)}


def _compilation(runner: Runner) -> dict[str, float]:
    return {"compile_seconds": runner.compile_seconds, "peak_megabytes": runner.peak_megabytes}


def _measure_phase(
    workload: Workload, phase: str, size: int, config: BenchConfig, roofline: Roofline
) -> dict[str, Any]:
    """Speed, fraction of the limit, and comparison with PyTorch where it is wanted."""
    if phase == "train":
        batches = training_batches(workload, TRAINING_BATCHES)
        unit, count = "tokens_per_s", sum(int(real(batch.target).sum()) for batch in batches)
        limit = count * training_flops(workload) / roofline.gflops[workload.model.precision] / 1e9
    else:
        batches = decoding_batches(workload, SEARCH_BATCHES.get(size, 3), rows=size)
        unit, count = "sentences_per_s", size * len(batches)
        limit = _least_seconds(workload, phase, size, roofline) * len(batches)
    runner = Runner(workload, phase, batches)
    baseline = (
        TorchBaseline(workload, phase, batches, style=config.style, python=config.python) if config.against else None
    )
    try:
        turns = _interleaved_seconds(runner, baseline, config.rounds)
    finally:
        if baseline is not None:
            baseline.close()
    seconds = statistics.median(ours for ours, _ in turns)
    row: dict[str, Any] = {unit: count / seconds, "fraction_of_limit": limit / seconds}
    if baseline is not None:
        ratios = [theirs / ours for ours, theirs in turns]
        row |= {"reference": count / statistics.median(theirs for _, theirs in turns), **_spread("ratio", ratios)}
        row |= {"ratios": ratios, "style": config.style, "opponent": f"torch {baseline.versions['torch']}"}
    if phase != "train":
        steps = len(batches) * workload.max_length
        row["microseconds_per_step"] = 1e6 * seconds / steps
        if jax.default_backend() != "cpu":
            row["kernels_per_step"] = count_kernels(runner.seconds) / steps
    return row | _compilation(runner)


def _interleaved_seconds(runner: Runner, baseline: TorchBaseline | None, rounds: int) -> list[tuple[float, float]]:
    """The seconds of both sides, round by round, after a round that warms up."""
    turns = [(runner.seconds(), baseline.seconds() if baseline else 0.0) for _ in range(rounds + 1)]
    return turns[1:]


def _least_seconds(workload: Workload, phase: str, size: int, roofline: Roofline) -> float:
    """The seconds that a batch of a search takes at the limit.

    Either its products at full speed or, where that takes longer, reading the decoder's parameters once per step at
    the speed of a copy.
    """
    width = int(phase.removeprefix("beam")) if phase != "greedy" else 1
    precision = workload.model.precision
    products = size * decoding_flops(workload, width) / roofline.gflops[precision] / 1e9
    abstract = jax.eval_shape(lambda: build_workload(workload)[1])
    count = sum(leaf.size for leaf in jax.tree.leaves({**abstract["decoder"], "embedding": ()}))
    reading = workload.max_length * count * PRECISIONS[precision](0).nbytes / roofline.copy_gb_s / 1e9
    return max(products, reading)
