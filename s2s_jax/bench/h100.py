"""What a workload launches on an H100, found by compiling for one on a machine that has none.

XLA's CUDA plugin compiles for a described device without a driver. It does not autotune there, so that the tiles of
matrix products differ from those on the card; kernels, copies and CUDA graphs do not.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from s2s_jax.bench.kernels import read_program
from s2s_jax.bench.measure import BenchConfig
from s2s_jax.bench.runner import search_program, training_program
from s2s_jax.bench.workloads import Workload, abstract_workload, decoding_batches, median_batch
from s2s_jax.model.ops.target import built_for
from s2s_jax.training.devices import ONE_GRAPH

PACKAGES = ("jax-cuda13-plugin", "jax-cuda13-pjrt")
SENTENCES = 32  # that a search decodes
# Without the versions of driver and CUDA, XLA assumes old ones, and captures neither loops nor branches.
DEVICE = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
  kernel_mode_driver_version: "580.159.4"
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 12 } runtime_version { major: 13 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def prepare_process() -> None:
    """Keep jax on the CPU, and compile anew each time: a setting of the whole process, before its first array.

    Raises:
        ValueError: the CUDA plugin is missing, or is not of jaxlib's version.
    """
    check_plugin()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program from the cache leaves no list of its graphs


def check_plugin() -> None:
    """Refuse to go on without the CUDA plugin of jaxlib's version.

    Raises:
        ValueError: with the command that installs it.
    """
    wanted = metadata.version("jaxlib")
    found = {name: _version(name) for name in PACKAGES}
    if set(found.values()) == {wanted}:
        return
    problem = ", ".join(f"{name} {version or 'is not installed'}" for name, version in found.items())
    packages = " ".join(f"{name}=={wanted}" for name in PACKAGES)
    raise ValueError(
        f"--target h100 needs the CUDA plugin of jaxlib's version {wanted} ({problem}); pip install --no-deps "
        f"--upgrade --target h100-wheels {packages}, and run the command with PYTHONPATH=h100-wheels."
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def count_workload(name: str, workload: Workload, config: BenchConfig) -> Iterator[dict[str, Any]]:
    """One row per phase and precision, as soon as it is compiled."""
    for precision, phase in itertools.product(config.precisions, config.phases):
        exact = dataclasses.replace(workload, model=dataclasses.replace(workload.model, precision=precision))
        yield {"work": name, "phase": phase, "precision": precision, **_count_phase(exact, phase)}


def _count_phase(workload: Workload, phase: str) -> dict[str, Any]:
    model, params = abstract_workload(workload)
    if phase == "train":
        step, first_state = training_program(workload, model)
        compiled, graphs = compile_for_h100(step, jax.eval_shape(first_state, params), median_batch(workload))
    else:
        (batch,) = decoding_batches(workload, 1, rows=SENTENCES)
        compiled, graphs = compile_for_h100(search_program(workload, phase, model), params, batch.source)
    found = read_program(compiled.as_text(), unknown_turns=workload.max_length)
    return {
        "kernels": found.kernels,
        "loops": [loop._asdict() for loop in found.loops],
        "copied_megabytes": found.copied_bytes / 1e6,
        "graphs": graphs,
        "temporary_megabytes": compiled.memory_analysis().temp_size_in_bytes / 1e6,
    }


def compile_for_h100(function: Any, *arguments: Any) -> tuple[Any, int]:
    """The program of a jitted function for one H100, and how many CUDA graphs it records.

    Args:
        function: as `jax.jit` returns it, not called yet.
        arguments: arrays or shapes; nothing is computed.
    """
    topology = topologies.get_topology_desc(platform="cuda", target_config=DEVICE, topology="1x1x1")
    on_h100 = NamedSharding(topologies.make_mesh(topology, (1,), ("device",)), PartitionSpec())
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on_h100), arguments)
    with tempfile.TemporaryDirectory() as folder:
        options = {**ONE_GRAPH, "xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        with built_for("gpu"):
            compiled = function.lower(*shapes).compile(options)
        # written only where XLA found something to record
        sequences = list(Path(folder).glob("*.thunk_sequence_after_thunk_passes.txt"))
        return compiled, sum(path.read_text(encoding="utf-8").count("kCommandBuffer") for path in sequences)
