"""All measurements that need a GPU, in one run of at most 8 minutes: `python3 experiments/bench/gpu.py LINES.jsonl`.

Each measurement is one or more JSON lines, appended to the file and flushed at once, the most wanted ones first, so
that a run that is cut off at any moment has left what it had. The measurements run in one process with one compilation
cache; where that process dies, as a captured loop may (openxla/xla#35760), the next one goes on behind the measurement
that killed it. `--page PAGE.md` writes a page from the lines instead of measuring; `--tiny` tries the script on a CPU.

It needs jax with GPU support, flax, optax, orbax-checkpoint, jaxtyping, NumPy and rich; and PyTorch to compare with.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

COMMANDS = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL"
# what becomes one CUDA graph: nothing, XLA's default (one turn of a loop), a whole loop, the whole program
GRAPHS: dict[str, dict[str, Any]] = {
    "none": {"xla_gpu_enable_command_buffer": ""},
    "default": {},
    "loops": {"xla_gpu_enable_command_buffer": f"{COMMANDS},WHILE"},
    "unrolled": {"xla_gpu_enable_command_buffer": f"{COMMANDS},WHILE", "xla_gpu_command_buffer_unroll_loops": True},
}
PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "flax", "optax", "numpy", "torch")
WARM_UPS = 3  # a CUDA graph is recorded at the second call and replayed from the third on
TINY = ("model.embedding=8", "model.encoder.size=4", "model.attention.size=8", "model.decoder.size=8")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    tiny: bool
    rounds: int  # measurements of each side
    steps: int  # training steps, or decoded batches, per round
    turns: int  # of a bare loop
    replicas: tuple[int, ...]
    batches: tuple[int, ...]  # sentences per decoded batch


FULL = Sizes(False, rounds=7, steps=10, turns=300, replicas=(1, 8, 16, 4, 2), batches=(100, 1))
SMALL = Sizes(True, rounds=1, steps=2, turns=4, replicas=(1, 2), batches=(2,))
Rows = Iterator[dict[str, Any]]


def workload(name: str, precision: str, sizes: Sizes):
    """A workload of the benchmarks, or one of its form that any machine runs at once."""
    from s2s_jax.bench.workloads import WORKLOADS
    from s2s_jax.config import override

    full = override(WORKLOADS[name], f"model.precision={precision}")
    if not sizes.tiny:
        return full
    return override(full, *TINY, "batch_size=4", "source_vocabulary=40", "target_vocabulary=40", "max_length=4")


@functools.cache
def runner(name: str, precision: str, phase: str, sizes: Sizes, *, graphs: str = "default", rows=0, replicas=0):
    """The compiled programs of a workload in one phase."""
    from s2s_jax.bench.runner import Runner

    work = workload(name, precision, sizes)
    return Runner(work, phase, batches(work, phase, sizes, rows), replicas=replicas, compiler_options=GRAPHS[graphs])


def batches(work, phase: str, sizes: Sizes, rows: int) -> list:
    """The batches of a round: the median one of training, or sources of the median length, again and again."""
    from s2s_jax.bench.workloads import decoding_batches, median_batch

    return (
        [median_batch(work)] * sizes.steps if phase == "train" else decoding_batches(work, 1, rows=rows) * sizes.steps
    )


def interleaved(sides: dict[str, Callable[[], float]], sizes: Sizes) -> dict[str, list[float]]:
    """The seconds of one step or one batch of each side, round by round, after the warm-up."""
    turns = [{name: seconds() / sizes.steps for name, seconds in sides.items()} for _ in range(WARM_UPS + sizes.rounds)]
    return {name: [turn[name] for turn in turns[WARM_UPS:]] for name in sides}


def compared(seconds: dict[str, list[float]], first: str) -> dict[str, Any]:
    """Medians in milliseconds, and how many times as fast each side is as the first, with the range over rounds."""
    ratios = {
        name: [before / after for before, after in zip(seconds[first], of_side, strict=True)]
        for name, of_side in seconds.items()
    }
    return {
        "milliseconds": {name: 1e3 * statistics.median(of_side) for name, of_side in seconds.items()},
        "times_as_fast": {
            name: [min(ratio), statistics.median(ratio), max(ratio)] for name, ratio in ratios.items() if name != first
        },
    }


def machine(sizes: Sizes) -> Rows:
    """Versions, the card, and the limit of the card on random data."""
    from s2s_jax.bench.measure import describe_machine

    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    yield {"date": date, "commit": _commit(), "versions": versions, **describe_machine()}
    if not sizes.tiny:
        from s2s_jax.bench.roofline import measure_roofline

        yield {"limit": measure_roofline()._asdict()}


def _commit() -> str:
    with contextlib.suppress(OSError):
        command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    return ""


def bare_loops(graphs: str, sizes: Sizes) -> Rows:
    """Microseconds per turn of a scan and of a while loop of unknown length, for bodies of 1, 5 and 27 kernels."""
    import jax
    import jax.numpy as jnp

    matrix = jax.random.normal(jax.random.key(0), (64, 64)) / 8

    def body(kernels: int, carry):
        for _ in range(kernels):
            carry = carry @ matrix  # a product is a kernel of its own
        return carry

    def scanned(kernels: int, carry, turns):
        return jax.lax.scan(lambda carry, _: (body(kernels, carry), None), carry, None, length=sizes.turns)[0]

    def looped(kernels: int, carry, turns):
        step = lambda state: (state[0] + 1, body(kernels, state[1]))  # noqa: E731
        return jax.lax.while_loop(lambda state: state[0] < turns, step, (0, carry))[1]

    for kernels in (1, 5, 27):
        for kind, loop in (("scan", scanned), ("while", looped)):
            arguments = jnp.zeros((64, 64)), jnp.int32(sizes.turns)
            program = jax.jit(functools.partial(loop, kernels)).lower(*arguments).compile(GRAPHS[graphs])
            seconds = []
            for _ in range(WARM_UPS + sizes.rounds):
                began = time.perf_counter()
                jax.block_until_ready(program(*arguments))
                seconds.append(time.perf_counter() - began)
            micro = 1e6 * statistics.median(seconds[WARM_UPS:]) / sizes.turns
            yield {"graphs": graphs, "loop": kind, "kernels": kernels, "microseconds_per_turn": micro}


def losses(sizes: Sizes) -> Rows:
    """The losses of the first steps of W1 here and on the CPU, from the same parameters and batch."""
    import jax
    import numpy as np

    from s2s_jax.bench.workloads import build_workload, median_batch
    from s2s_jax.training.objectives import make_loss
    from s2s_jax.training.optimizer import OptimizerConfig, make_optimizer
    from s2s_jax.training.step import initial_state, make_step

    work = workload("W1", "float32", sizes)
    model, params = build_workload(work)
    params = jax.tree.map(np.asarray, params)
    optimizer = make_optimizer(OptimizerConfig(), steps=1)
    batch, row = jax.tree.map(np.asarray, median_batch(work)), {}
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(device):
            state = initial_state(jax.device_put(params, device), optimizer, seed=0, ema=0.0)  # the step donates it
            step = make_step(make_loss(model, work.loss, work.scheduled_sampling), optimizer)
            row[device.platform] = []
            for _ in range(5):
                state, metrics = step(state, jax.device_put(batch, device))
                row[device.platform].append(float(metrics.sums.nats / metrics.sums.tokens))
    yield {"work": "W1", "precision": "float32", "losses": row}


def graphs_in_training(precision: str, graphs: str, sizes: Sizes) -> Rows:
    """W1's training step under a setting of CUDA graphs, interleaved with the default."""
    sides = {name: runner("W1", precision, "train", sizes, graphs=name).seconds for name in ("default", graphs)}
    yield {"work": "W1", "precision": precision, **compared(interleaved(sides, sizes), "default")}


def against_torch(name: str, precision: str, phase: str, graphs: Sequence[str], rows: int, sizes: Sizes) -> Rows:
    """A phase of a workload here and in PyTorch, interleaved."""
    from s2s_jax.bench.torch_baseline import TorchBaseline

    work = workload(name, precision, sizes)
    sides = {f"graphs {of}": runner(name, precision, phase, sizes, graphs=of, rows=rows) for of in graphs}
    torch = TorchBaseline(work, phase, batches(work, phase, sizes, rows), style="fast")
    try:
        both = {"torch": torch.seconds, **{side: ours.seconds for side, ours in sides.items()}}
        row = compared(interleaved(both, sizes), "torch")
    finally:
        torch.close()
    sentences = {"sentences": rows} if rows else {}
    yield {"work": name, "precision": precision, "phase": phase, **sentences, **row, "opponent": torch.versions}


def replicas(sizes: Sizes) -> Rows:
    """A step of several seeds of W1 in one program, against as many steps of one seed."""
    alone = runner("W1", "bfloat16", "train", sizes)
    for count in sizes.replicas:
        together = runner("W1", "bfloat16", "train", sizes, replicas=count)
        row = compared(interleaved({"alone": alone.seconds, "together": together.seconds}, sizes), "alone")
        throughput = [count * ratio for ratio in row["times_as_fast"]["together"]]
        yield {"work": "W1", "precision": "bfloat16", "replicas": count, "throughput": throughput, **row}


def alone(name: str, precision: str, phase: str, sizes: Sizes) -> Rows:
    """A phase of a workload here alone."""
    ours = runner(name, precision, phase, sizes)
    seconds = interleaved({"default": ours.seconds}, sizes)["default"]
    about = {"compile_seconds": ours.compile_seconds, "peak_megabytes": ours.peak_megabytes}
    yield {
        "work": name,
        "precision": precision,
        "phase": phase,
        "milliseconds": {"default": 1e3 * statistics.median(seconds)},
        **about,
    }


def measurements(sizes: Sizes, only: Sequence[str] = ()) -> dict[str, Callable[[], Rows]]:
    """The measurements by name, the most wanted first; those that may kill the process come late.

    Args:
        only: parts of the names of the wanted ones; empty for all.
    """
    of = functools.partial
    listed: dict[str, Callable[[], Rows]] = {"machine": of(machine, sizes), "losses": of(losses, sizes)}
    for precision in ("float32", "bfloat16"):
        listed[f"W1 train {precision}, torch"] = of(
            against_torch, "W1", precision, "train", ("default",), rows=0, sizes=sizes
        )
    listed |= {f"bare loops, graphs {name}": of(bare_loops, name, sizes) for name in GRAPHS}
    for precision in ("float32", "bfloat16"):
        for name in ("unrolled", "loops", "none"):
            listed[f"W1 train {precision}, graphs {name}"] = of(graphs_in_training, precision, name, sizes)
    listed["replicas"] = of(replicas, sizes)
    for phase in ("beam5", "greedy"):
        for rows in sizes.batches:
            listed[f"W1 {phase} of {rows}, torch"] = of(
                against_torch, "W1", "bfloat16", phase, ("default", "unrolled"), rows=rows, sizes=sizes
            )
    listed["W3 train bfloat16"] = of(alone, "W3", "bfloat16", "train", sizes)
    listed["W1 train bfloat16, torch, unrolled"] = of(
        against_torch, "W1", "bfloat16", "train", ("default", "unrolled"), rows=0, sizes=sizes
    )
    listed["W3 train bfloat16, torch"] = of(against_torch, "W3", "bfloat16", "train", ("default",), rows=0, sizes=sizes)
    return {name: measure for name, measure in listed.items() if not only or any(part in name for part in only)}


def write_line(path: Path, row: dict[str, Any]) -> None:
    """Append one JSON line, which is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(row) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def work_through(path: Path, sizes: Sizes, only: Sequence[str], first: int) -> None:
    """The measurements from the given one on; one that fails leaves a line that says why."""
    began = time.monotonic()
    for name, measure in list(measurements(sizes, only).items())[first:]:
        write_line(path, {"begins": name})
        try:
            for row in measure():
                write_line(path, {"measurement": name, **row, "at_seconds": round(time.monotonic() - began, 1)})
        except Exception as error:  # the next measurement may still succeed
            lines = str(error).strip().splitlines()
            write_line(path, {"measurement": name, "error": f"{type(error).__name__}: {lines[0] if lines else ''}"})
            traceback.print_exc()


def drive(path: Path, minutes: float, only: Sequence[str], *, tiny: bool) -> None:
    """Start the process that measures, and another one behind the measurement at which it dies, until time is up."""
    names = list(measurements(SMALL if tiny else FULL, only))
    end = time.monotonic() + 60 * minutes
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("", encoding="utf-8")
    cache = path.parent / "compiled"
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_COMPILATION_CACHE_DIR": str(cache)}
    first = 0
    while first < len(names):
        command = [sys.executable, __file__, str(path), "--from", str(first), *(["--tiny"] if tiny else [])]
        command += [f"--only={part}" for part in only]
        process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
        try:
            status = process.wait(timeout=max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # with the PyTorch process that it may have started
            write_line(path, {"error": f"{minutes:g} minutes were over"})
            return
        if status == 0:
            return
        begun = [row["begins"] for row in read_lines(path) if "begins" in row]
        last = names.index(begun[-1]) if begun else first
        write_line(path, {"measurement": names[last], "error": f"the process ended with status {status}"})
        first = last + 1


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def page(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown page with a table per kind of measurement."""
    about = next((row for row in rows if "versions" in row), {})
    limit = next((row["limit"] for row in rows if "limit" in row), None)
    versions = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    text = [
        "# Performance on a GPU",
        "",
        f"Measured on {about.get('date', 'an unknown date')} at commit {about.get('commit', 'unknown')} on "
        f"{about.get('device', 'an unknown device')} with {versions}, by "
        "`python3 experiments/bench/gpu.py gpu.jsonl`, which wrote the lines of which this page is made.",
    ]
    if limit:
        rates = ", ".join(f"{name} {rate / 1e3:,.0f} TFLOP/s" for name, rate in limit["gflops"].items())
        text += ["", f"Fastest matrix products: {rates}; fastest copy {limit['copy_gb_s']:,.0f} GB/s."]
    if loops := [row for row in rows if "microseconds_per_turn" in row]:
        text += ["", "## A turn of a bare loop", "", "| graphs | loop | kernels | microseconds |", "|---|---|---|---|"]
        text += [
            f"| {row['graphs']} | {row['loop']} | {row['kernels']} | {row['microseconds_per_turn']:.2f} |"
            for row in loops
        ]
    if timed := [row for row in rows if "milliseconds" in row]:
        text += ["", "## Training and search", "", "Milliseconds per step or batch; ratios with their range.", ""]
        text += ["| measurement | milliseconds | times as fast |", "|---|---|---|"]
        for row in timed:
            milliseconds = ", ".join(f"{side} {value:.2f}" for side, value in row["milliseconds"].items())
            ratios = ", ".join(
                f"{side} {middle:.2f} ({low:.2f} to {high:.2f})"
                for side, (low, middle, high) in row.get("times_as_fast", {}).items()
            )
            name = f"{row['measurement']} {row['replicas']}" if "replicas" in row else row["measurement"]
            text.append(f"| {name} | {milliseconds} | {ratios} |")
    for row in rows:
        if "losses" in row:
            first = "; ".join(
                f"{platform} {', '.join(f'{loss:.5f}' for loss in of)}" for platform, of in row["losses"].items()
            )
            text += ["", f"Losses of the first steps of {row['work']}: {first}."]
    if failed := [row for row in rows if "error" in row]:
        text += ["", "## Not measured", ""]
        text += [f"- {row.get('measurement', 'the rest')}: {row['error']}" for row in failed]
    return "\n".join(text) + "\n"


def main() -> None:
    """Measure, or write the page of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=Path, help="the file of JSON lines")
    parser.add_argument("--minutes", type=float, default=8.0, help="when to stop, whatever is left (default: 8)")
    parser.add_argument("--page", type=Path, help="write this page from the lines instead of measuring")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the script without a GPU")
    parser.add_argument("--only", action="append", default=[], help="only measurements whose names have this part")
    parser.add_argument("--from", type=int, dest="first", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.page:
        options.page.write_text(page(read_lines(options.lines)), encoding="utf-8")
    elif options.first is None:
        drive(options.lines, options.minutes, options.only, tiny=options.tiny)
    else:
        work_through(options.lines, SMALL if options.tiny else FULL, options.only, options.first)


if __name__ == "__main__":
    main()
