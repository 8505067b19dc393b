"""Which devices take part, and how do batches and parameters lie on them? The only file that names devices."""

import ctypes
import dataclasses
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from s2s_jax.shapes import Batch
from s2s_jax.validation import at_least, check_fields, one_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Where training runs; nothing here changes its result."""

    count: int = 0
    """Devices to use; 0 for all there are."""
    platform: str = "any"
    """Refuse to run on anything else: any, cpu, gpu or tpu."""
    cache: str = "~/.cache/s2s_jax/compiled"
    """Folder in which compiled programs are kept for the next run; empty for none."""

    def __post_init__(self):
        check_fields(self, "device")
        at_least("device.count", self.count, 0)
        one_of("device.platform", self.platform, ("any", "cpu", "gpu", "tpu"))


def make_mesh(config: DeviceConfig, *, replicas: int = 1) -> Mesh:
    """The devices along two axes: `replica`, as many as divide the replicas, and `data`, the others.

    Raises:
        ValueError: fewer devices than asked for, or of another kind.
    """
    devices = jax.devices()
    kind = devices[0].platform
    if config.platform not in ("any", kind):
        raise ValueError(f"device.platform={config.platform}, but jax found {kind}; install jax for {config.platform}.")
    if config.count > len(devices):
        raise ValueError(f"device.count={config.count}, but there are {len(devices)} ({kind}); ask for fewer.")
    count = config.count or len(devices)
    apart = math.gcd(count, replicas)
    types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((apart, count // apart), ("replica", "data"), axis_types=types, devices=devices[:count])


def use_compilation_cache(config: DeviceConfig) -> None:
    """Keep compiled programs on disk, so that the next start need not compile them again."""
    if config.cache:
        jax.config.update("jax_compilation_cache_dir", str(Path(config.cache).expanduser()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def keep_freed_memory() -> None:
    """Let glibc keep what the CPU's programs free, for the next step; it would fetch fresh pages for each.

    A train step of W1 takes 1.2 to 1.3 times as long without (`s2s bench W1`). Other systems' allocators are left
    alone. Call it before the first array is made: threads that exist keep the heaps that they have.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(-8, 1)  # M_ARENA_MAX: one heap for all threads, whoever runs the next step
        library.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of its own for a large array
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: give nothing back


def describe(mesh: Mesh) -> str:
    """The devices in words, loudly where there is no accelerator though the machine has one."""
    first = mesh.devices.flat[0]
    return f"{mesh.devices.size} x {first.device_kind} ({first.platform})"


def on_all(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def along(mesh: Mesh, axis: str) -> NamedSharding:
    """An array's first axis cut along one of the mesh's."""
    return NamedSharding(mesh, PartitionSpec(axis))


def put(batch: Batch, mesh: Mesh) -> Batch:
    """A batch cut along its rows over the devices; rows of padding fill it up where the devices do not divide it."""
    cut, parts = along(mesh, "data"), mesh.shape["data"]

    def placed(rows: np.ndarray) -> jax.Array:
        missing = -len(rows) % parts
        return jax.device_put(np.pad(rows, ((0, missing), *[(0, 0)] * (rows.ndim - 1))), cut)  # PAD is 0: no token

    return jax.tree.map(placed, batch)


def accelerator_left_idle() -> str | None:
    """A line of warning when this machine has an NVIDIA GPU that jax does not use."""
    found = [] if jax.default_backend() != "cpu" else gpus()
    return f"running on the CPU although there is a {found[0]}; install jax[cuda13]." if found else None


def gpus() -> list[str]:
    """The NVIDIA GPUs of this machine, whether jax uses them or not; asking takes none of them into use."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=5, check=True).stdout  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return []
    return [name.strip() for name in re.findall(r"GPU \d+: ([^(]+)", listed)]


def limit_memory_fraction(number: int, shares: int) -> None:
    """Leave all but this process's share of the machine to others: its GPU, or its cores where there is none.

    Call it before jax is asked for a device.
    """
    if listed := gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % len(listed))
    elif shares > 1 and sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number % len(cores) :: shares])
