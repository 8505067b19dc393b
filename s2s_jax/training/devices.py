"""Devices, and how batches and parameters are placed on them. The only file that names devices."""

import ctypes
import dataclasses
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from s2s_jax.shapes import Batch
from s2s_jax.validation import at_least, check_fields, one_of

PlatformName = Literal["any", "cpu", "gpu", "tpu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """Devices that training runs on; none of these settings changes the result."""

    count: int = 0
    """Devices to use; 0 for all."""
    platform: PlatformName = "any"
    """Refuse to run on any other platform: any, cpu, gpu or tpu."""
    cache: str = "~/.cache/s2s_jax/compiled"
    """Directory in which compiled programs are kept for later runs; empty for none."""

    def __post_init__(self):
        check_fields(self, "device")
        at_least("device.count", self.count, 0)
        one_of("device.platform", self.platform, get_args(PlatformName))


def make_mesh(config: DeviceConfig, *, replicas: int = 1) -> Mesh:
    """The devices along two axes: `replica`, as many as divide the replicas, and `data`, the rest.

    Raises:
        ValueError: fewer devices than device.count, or of another platform.
    """
    check_platform(config)
    devices = jax.devices()
    kind = devices[0].platform
    if config.count > len(devices):
        raise ValueError(
            f"device.count={config.count}, but jax found {len(devices)} ({kind}); set a lower device.count."
        )
    count = config.count or len(devices)
    rows = math.gcd(count, replicas)
    types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((rows, count // rows), ("replica", "data"), axis_types=types, devices=devices[:count])


def check_platform(config: DeviceConfig) -> None:
    """Refuse to run on another platform than device.platform.

    Raises:
        ValueError: jax runs on another one.
    """
    kind = jax.devices()[0].platform
    if config.platform not in ("any", kind):
        raise ValueError(f"device.platform={config.platform}, but jax found {kind}; install jax for {config.platform}.")


def use_compilation_cache(config: DeviceConfig) -> None:
    """Keep compiled programs on disk, for the next process: a setting of the whole process."""
    if config.cache:
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
    """The number, kind and platform of the devices."""
    first = mesh.devices.flat[0]
    return f"{mesh.devices.size} x {first.device_kind} ({first.platform})"


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


def along(mesh: Mesh, axis: str) -> NamedSharding:
    """An array split by its first axis along an axis of the mesh."""
    return NamedSharding(mesh, PartitionSpec(axis))


def put(batch: Batch, mesh: Mesh) -> Batch:
    """A batch split by rows over the devices; rows of padding are added where the devices do not divide it."""
    sharding, parts = along(mesh, "data"), mesh.shape["data"]

    def placed(rows: np.ndarray) -> jax.Array:
        missing = -len(rows) % parts
        return jax.device_put(np.pad(rows, ((0, missing), *[(0, 0)] * (rows.ndim - 1))), sharding)  # PAD is 0: no token

    return jax.tree.map(placed, batch)


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


def limit_memory_fraction(number: int, shares: int) -> None:
    """Restrict this process to its fraction of the machine: one GPU, or some of the cores where there is none.

    It must be called before jax initializes its devices.
    """
    if listed := gpus():
        os.environ["CUDA_VISIBLE_DEVICES"] = str(number % len(listed))
    elif shares > 1 and sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number % len(cores) :: shares])
