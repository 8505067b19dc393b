"""Devices, and how batches and parameters are placed on them. The only file that names devices."""

import ctypes
import dataclasses
import functools
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from s2s_jax.shapes import Batch
from s2s_jax.training import distributed
from s2s_jax.validation import at_least, check_fields, one_of

PlatformName = Literal["any", "cpu", "gpu", "tpu"]
ParallelName = Literal["mesh", "pmap"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Devices that training runs on; none of these settings changes the result, but for random numbers.

    Those are the same on all meshes whose devices divide the rows of a batch.
    """

    count: int = 0
    """Devices to use; 0 for all."""
    parallel: ParallelName = "mesh"
    """How devices share a step: mesh (one program over global arrays) or pmap (as mesh, up to random numbers)."""
    heartbeat: int = 100
    """Seconds without a sign of life after which a process of a distributed training counts as lost."""
    fsdp: int = 1
    """Devices that share one copy of parameters and optimizer state; 1 for a copy per device, 0 for all devices."""
    platform: PlatformName = "any"
    """Refuse to run on any other platform: any, cpu, gpu or tpu."""
    graphs: bool = False
    """On GPUs, record each training step, loops included, as one CUDA graph instead of one per turn of a loop."""
    deterministic: bool = False
    """On GPUs, compile no operation whose result may differ from run to run; what CPUs compute never does."""
    cache: str = "~/.cache/s2s_jax/compiled"
    """Directory in which compiled programs are kept for later runs; empty for none."""

    def __post_init__(self):
        check_fields(self, "device")
        at_least("device.count", self.count, 0)
        at_least("device.fsdp", self.fsdp, 0)
        at_least("device.heartbeat", self.heartbeat, 1)
        one_of("device.platform", self.platform, get_args(PlatformName))
        one_of("device.parallel", self.parallel, get_args(ParallelName))
        if self.parallel == "pmap" and self.fsdp != 1:
            raise ValueError(
                f"device.parallel=pmap copies the state to each device, and device.fsdp={self.fsdp} shards it; set "
                "device.fsdp=1, or device.parallel=mesh."
            )
        for name in ("graphs", "deterministic"):
            if self.parallel == "pmap" and getattr(self, name):
                raise ValueError(
                    f"device.parallel=pmap takes no options of the compiler, and device.{name}=true is one; set "
                    f"device.{name}=false, or device.parallel=mesh."
                )


# one CUDA graph for a whole program, its loops included; by default XLA records one per turn of a loop
ONE_GRAPH: dict[str, Any] = {
    "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE",
    "xla_gpu_command_buffer_unroll_loops": True,
}


def compiler_options(config: DeviceConfig) -> dict[str, Any]:
    """The options of XLA with which a program is compiled: on GPUs, those of device.graphs and device.deterministic."""
    if jax.default_backend() != "gpu":
        return {}
    exact = {"xla_gpu_exclude_nondeterministic_ops": True} if config.deterministic else {}
    return {**(ONE_GRAPH if config.graphs else {}), **exact}


ROWS = ("data", "fsdp")  # the axes of the mesh that the rows of a batch are split over
SHARDED_FROM = 1024  # elements; a smaller leaf costs more to gather than it saves


def make_mesh(config: DeviceConfig, *, replicas: int = 1) -> Mesh:
    """The devices along three axes: `fsdp`; `replica`, as many as divide the replicas; and `data`, the rest.

    Raises:
        ValueError: fewer devices than device.count, of another platform, or a number that device.fsdp does not divide.
    """
    check_platform(config)
    devices = jax.devices()
    kind = devices[0].platform
    if config.count > len(devices):
        raise ValueError(
            f"device.count={config.count}, but jax found {len(devices)} ({kind}); set a lower device.count."
        )
    count = config.count or len(devices)
    if count < len(devices) and distributed.is_shared():
        raise ValueError(f"device.count={count}: the processes share all {len(devices)} devices; leave it at 0.")
    if config.parallel == "pmap" and (replicas > 1 or distributed.is_shared()):
        raise ValueError("device.parallel=pmap trains one run in one process; set device.parallel=mesh.")
    shards = config.fsdp or count
    if count % shards:
        raise ValueError(f"device.fsdp={shards} does not divide the {count} devices; set it to a number that does.")
    rows = math.gcd(count // shards, replicas)
    shape = (rows, count // shards // rows, shards)
    return jax.make_mesh(shape, ("replica", *ROWS), axis_types=(AxisType.Auto,) * 3, devices=devices[:count])


def check_platform(config: DeviceConfig) -> None:
    """Refuse to run on another platform than device.platform.

    Raises:
        ValueError: jax runs on another one.
    """
    kind = jax.devices()[0].platform
    if config.platform not in ("any", kind):
        raise ValueError(f"device.platform={config.platform}, but jax found {kind}; install jax for {config.platform}.")


def use_compilation_cache(config: DeviceConfig) -> None:
    """Keep compiled programs on disk, for the next process: a setting of the whole process.

    Processes that share a training on CPUs compile anew: XLA runs the collective operations of a CPU program that was
    read from disk in no fixed order (jaxlib 0.10), and two processes of which each waits in another one stand still.
    """
    if distributed.is_shared() and jax.default_backend() == "cpu":
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # it asks for the setting once
    elif config.cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.cache).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_freed_memory() -> None:
    """Let glibc reuse memory that CPU programs free instead of returning it: a setting of the whole process.

    A train step of W1 takes 1.2 to 1.3 times as long without (`s2s bench W1`). The commands call this; library
    functions do not. Other systems' allocators are not changed. It must come before the first array: existing threads
    keep their heaps.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads, whichever runs the next step
        library.mallopt(-4, 0)  # M_MMAP_MAX: no separate mapping per large array
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: return nothing


def describe(mesh: Mesh) -> str:
    """The number, kind and platform of the devices, their processes, and how many of them share a state."""
    first, processes, shards = mesh.devices.flat[0], jax.process_count(), mesh.shape["fsdp"]
    shared = f", in {processes} processes" if processes > 1 else ""
    sharded = f", {shards} per copy of the state" if shards > 1 else ""
    return f"{mesh.devices.size} x {first.device_kind} ({first.platform}){shared}{sharded}"


def memory_limit() -> float | None:
    """The megabytes of a device's memory, or of this machine where the device is the CPU; None where unknown."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] / 1e6
    if jax.default_backend() == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    return None


def on_all(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def sharding_of(mesh: Mesh, shape: tuple[int, ...], *, replicas: bool = False) -> NamedSharding:
    """The sharding of a leaf of the state: its largest axis that `fsdp` divides is split over it; small leaves are not.

    Args:
        replicas: the first axis is that of replicas.
    """
    own, shards = shape[replicas:], mesh.shape["fsdp"]
    axes: list[str | None] = ["replica"] * replicas
    divided = [axis for axis, size in enumerate(own) if size % shards == 0]
    if shards > 1 and math.prod(own) >= SHARDED_FROM and divided:
        axes += [*[None] * max(divided, key=lambda axis: own[axis]), "fsdp"]
    return NamedSharding(mesh, PartitionSpec(*axes))


def shardings(tree: Any, mesh: Mesh) -> Any:
    """The sharding of each leaf of a state or of a part of it."""
    return jax.tree.map(lambda leaf: sharding_of(mesh, leaf.shape), tree)


def _put(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array on the devices; where processes share them each has a copy, and puts its part on its own ones."""
    if not distributed.is_shared():
        return jax.device_put(leaf, sharding)
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def put_like(value: np.ndarray, leaf: jax.Array) -> jax.Array:
    """An array on the devices of another one of its shape."""
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: value[index])


def place(tree: Any, mesh: Mesh) -> Any:
    """A state, or a part of it, on the devices."""
    return jax.tree.map(lambda leaf: _put(leaf, sharding_of(mesh, leaf.shape)), tree)


def abstract(tree: Any, mesh: Mesh) -> Any:
    """The shapes of a state with the shardings of `place`, as an example for restoring one."""

    def on_mesh(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding_of(mesh, leaf.shape))

    return jax.tree.map(on_mesh, tree)


def place_replicas(tree: Any, mesh: Mesh) -> Any:
    """As `place`, for leaves [R, ...] that hold R replicas."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding_of(mesh, leaf.shape, replicas=True)), tree)


def gathered(tree: Any, mesh: Mesh) -> Any:
    """A tree with each leaf whole on every device."""
    if all(leaf.is_fully_replicated for leaf in jax.tree.leaves(tree)):
        return tree
    return _gather(mesh)(tree)


@functools.cache
def _gather(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda tree: tree, out_shardings=on_all(mesh))


def local(tree: Any) -> Any:
    """A tree whose leaves are whole on every device, on the first device of this process alone."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


class Layout(NamedTuple):
    """How a step lays the arrays that it computes over the devices."""

    gather: Callable[[Any], Any] = lambda tree: tree  # parameters, whole on every device
    shard: Callable[[Any], Any] = lambda tree: tree  # gradients and the state, as `sharding_of` has them
    total: Callable[[Any], Any] = lambda tree: tree  # sums over the rows of all devices
    own_key: Callable[[Any], Any] = lambda key: key  # of the random numbers of this device's rows


WHOLE = Layout()  # global arrays, a copy of the state on every device
PMAP_AXIS = "devices"
PMAPPED = Layout(
    total=lambda tree: jax.lax.psum(tree, PMAP_AXIS),
    own_key=lambda key: jax.random.fold_in(key, jax.lax.axis_index(PMAP_AXIS)),
)


def layout_of(config: DeviceConfig, mesh: Mesh) -> Layout:
    """The layout of a step.

    Sharded parameters are gathered once per step, since a recurrent network reads all of them at each token.
    """
    if config.parallel == "pmap":
        return PMAPPED
    if mesh.shape["fsdp"] == 1:
        return WHOLE
    constrain = jax.lax.with_sharding_constraint
    return Layout(lambda tree: constrain(tree, on_all(mesh)), lambda tree: constrain(tree, shardings(tree, mesh)))


def put(batch: Batch, mesh: Mesh) -> Batch:
    """A batch split by rows over the devices; rows of padding are added where the devices do not divide it."""
    rows = NamedSharding(mesh, PartitionSpec(ROWS))
    return jax.tree.map(lambda leaf: _put(leaf, rows), filled(batch, mesh))


def own_rows(mesh: Mesh) -> Callable[[int], slice]:
    """The function that says which of so many rows of a batch this process has on its devices."""
    sharding, parts = NamedSharding(mesh, PartitionSpec(ROWS)), math.prod(mesh.shape[name] for name in ROWS)

    @functools.cache
    def own(rows: int) -> slice:
        if not distributed.is_shared():
            return slice(0, rows)
        places = sharding.addressable_devices_indices_map((rows + -rows % parts,)).values()
        parts_of_rows = [place[0].indices(rows) for place in places if place is not None]
        return slice(min(start for start, _, _ in parts_of_rows), max(stop for _, stop, _ in parts_of_rows))

    return own


def put_replicas(batches: Batch, mesh: Mesh) -> Batch:
    """Batches [R, B, ...] of R replicas, split by replica and by rows."""
    return jax.device_put(filled(batches, mesh, axis=1), NamedSharding(mesh, PartitionSpec("replica", ROWS)))


def filled(batch: Batch, mesh: Mesh, *, axis: int = 0) -> Batch:
    """A batch with as many rows, along an axis, as the devices divide."""
    parts = math.prod(mesh.shape[name] for name in ROWS)

    def padded(rows: np.ndarray) -> np.ndarray:
        missing = -rows.shape[axis] % parts
        return np.pad(rows, [(0, missing * (axis == each)) for each in range(rows.ndim)])  # PAD is 0: no token

    return jax.tree.map(padded, batch)


def accelerator_left_idle() -> str | None:
    """A warning where this machine has an NVIDIA GPU that jax does not use, else None."""
    unused = [] if jax.default_backend() != "cpu" else gpus()
    return f"running on the CPU although there is a {unused[0]}; install jax[cuda13]." if unused else None


def gpus() -> list[str]:
    """The names of this machine's NVIDIA GPUs, whether jax uses them or not; none is initialized."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=5, check=True).stdout  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return []
    return [name.strip() for name in re.findall(r"GPU \d+: ([^(]+)", listed)]
