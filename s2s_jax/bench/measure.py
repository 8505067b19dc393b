"""How do we compare? Ours and theirs take turns in one run, A B A B, since a machine's speed drifts from run to run."""

import dataclasses
import itertools
import os
import platform
import statistics
from collections.abc import Iterator
from typing import Any

import jax

from s2s_jax.bench.profile import kernels
from s2s_jax.bench.roofline import Roofline
from s2s_jax.bench.runner import Runner
from s2s_jax.bench.torch_baseline import TorchBaseline
from s2s_jax.bench.workloads import (
    Workload,
    built,
    decoding_batches,
    decoding_flops,
    training_batches,
    training_flops,
    typical_batch,
)
from s2s_jax.model.ops.matmul import PRECISIONS
from s2s_jax.shapes import real
from s2s_jax.validation import at_least, one_of

PHASES = ("train", "greedy", "beam5")
TRAINING_BATCHES = 8
SEARCHES = {1: 8, 32: 4, 100: 3}  # batch sizes of a search, and how many such batches a round decodes


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured, and how often."""

    phases: tuple[str, ...] = PHASES
    """train, greedy, beam5."""
    precisions: tuple[str, ...] = tuple(PRECISIONS)
    """float32, bfloat16."""
    batches: tuple[int, ...] = tuple(SEARCHES)
    """Sentences decoded together."""
    rounds: int = 5
    """Turns that each side takes."""
    against: str = ""
    """torch, or nobody."""
    style: str = "fast"
    """How the opponent is written: fast or tutorial."""
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
        one_of("--style", self.style, ("fast", "tutorial"))


def machine() -> dict[str, Any]:
    """Where the figures come from."""
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


def rows(name: str, work: Workload, config: BenchConfig, limit: Roofline) -> Iterator[dict[str, Any]]:
    """One row a phase, precision and batch size, as soon as it is measured."""
    for precision, phase in itertools.product(config.precisions, config.phases):
        model = dataclasses.replace(work.model, precision=precision)
        exact = dataclasses.replace(work, model=model)
        for size in (work.sentences,) if phase == "train" else config.batches:
            yield {
                "work": name,
                "phase": phase,
                "precision": precision,
                "batch": size,
                **_measured(exact, phase, size, config, limit),
            }


def varied(name: str, setting: str, works: dict[str, Workload], config: BenchConfig) -> Iterator[dict[str, Any]]:
    """What each value of a setting costs: the training step under all of them by turns, its time over the first's."""
    batches = [typical_batch(work) for work in works.values()]  # one program a value is enough
    sides = [Runner(work, "train", [batch]) for work, batch in zip(works.values(), batches, strict=True)]
    turns = [[side.seconds() for side in sides] for _ in range(config.rounds + 1)][1:]  # the first does not count
    for number, ((value, work), side) in enumerate(zip(works.items(), sides, strict=True)):
        costs = [turn[number] / turn[0] for turn in turns]
        seconds = statistics.median(turn[number] for turn in turns)
        yield {
            "work": name,
            "phase": "train",
            "precision": work.model.precision,
            "batch": work.sentences,
            "setting": setting,
            "value": value,
            "milliseconds": 1e3 * seconds,
            "tokens_per_s": int(real(batches[number].target).sum()) / seconds,
            "cost_min": min(costs),
            "cost_median": statistics.median(costs),
            "cost_max": max(costs),
            "compile_seconds": side.compile_seconds,
            "peak_megabytes": side.peak_megabytes,
        }


def replicated(name: str, work: Workload, count: int, config: BenchConfig) -> dict[str, Any]:
    """A training step of several seeds in one program (`vmap`), against as many one by one."""
    batches = [typical_batch(work)]
    together, alone = Runner(work, "train", batches, replicas=count), Runner(work, "train", batches)
    turns = [(together.seconds(), sum(alone.seconds() for _ in range(count))) for _ in range(config.rounds + 1)][1:]
    ratios = [one_by_one / at_once for at_once, one_by_one in turns]
    return {
        "work": name,
        "phase": "train",
        "precision": work.model.precision,
        "batch": work.sentences,
        "replicas": count,
        "milliseconds": 1e3 * statistics.median(at_once for at_once, _ in turns),
        "ratio_min": min(ratios),
        "ratio_median": statistics.median(ratios),
        "ratio_max": max(ratios),
        "compile_seconds": together.compile_seconds,
        "peak_megabytes": together.peak_megabytes,
    }


def _measured(work: Workload, phase: str, size: int, config: BenchConfig, limit: Roofline) -> dict[str, Any]:
    if phase == "train":
        batches = training_batches(work, TRAINING_BATCHES)
        unit, count = "tokens_per_s", sum(int(real(batch.target).sum()) for batch in batches)
        best = count * training_flops(work) / limit.gflops[work.model.precision] / 1e9
    else:
        batches = decoding_batches(work, SEARCHES.get(size, 3), rows=size)
        unit, count = "sentences_per_s", size * len(batches)
        best = _least_seconds(work, phase, size, limit) * len(batches)
    ours = Runner(work, phase, batches)
    theirs = TorchBaseline(work, phase, batches, style=config.style, python=config.python) if config.against else None
    try:
        turns = _turns(ours, theirs, config.rounds)
    finally:
        if theirs is not None:
            theirs.close()
    seconds = statistics.median(mine for mine, _ in turns)
    found: dict[str, Any] = {unit: count / seconds, "fraction_of_limit": best / seconds}
    if theirs is not None:
        ratios = [other / mine for mine, other in turns]
        found |= {
            "reference": count / statistics.median(other for _, other in turns),
            "ratio_min": min(ratios),
            "ratio_median": statistics.median(ratios),
            "ratio_max": max(ratios),
            "ratios": ratios,
            "style": config.style,
            "opponent": f"torch {theirs.name['torch']}",
        }
    if phase != "train":
        steps = len(batches) * work.steps
        found["microseconds_per_step"] = 1e6 * seconds / steps
        if jax.default_backend() != "cpu":
            found["kernels_per_step"] = kernels(ours.seconds) / steps
    return found | {"compile_seconds": ours.compile_seconds, "peak_megabytes": ours.peak_megabytes}


def _turns(ours: Runner, theirs: TorchBaseline | None, rounds: int) -> list[tuple[float, float]]:
    """The seconds of both, pair by pair, after one turn each that does not count."""
    take = lambda: (ours.seconds(), theirs.seconds() if theirs else 0.0)  # noqa: E731
    take()
    return [take() for _ in range(rounds)]


def _least_seconds(work: Workload, phase: str, size: int, limit: Roofline) -> float:
    """What a batch of a search takes at the limit: its products at full speed, or, if that is longer, the decoder's
    parameters read once a step at the speed of a copy."""
    width = int(phase.removeprefix("beam")) if phase != "greedy" else 1
    products = size * decoding_flops(work, width) / limit.gflops[work.model.precision] / 1e9
    abstract = jax.eval_shape(lambda: built(work)[1])
    used = sum(leaf.size for leaf in jax.tree.leaves({**abstract["decoder"], "embedding": ()}))
    reading = work.steps * used * PRECISIONS[work.model.precision](0).nbytes / limit.copy_gb_s / 1e9
    return max(products, reading)
