"""The accelerators that this process may use, and the share of the machine that each of several workers takes.

No device is initialized here: a share is taken by setting the variables that CUDA, ROCm and libtpu read when jax
initializes them.
"""

import os
import sys
from pathlib import Path
from typing import NamedTuple

from s2s_jax.training.devices import gpus

AMD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")  # of the driver, one per CPU or GPU
MEMORY_FRACTION = 0.9  # of a device's memory, for all workers on it together; jax takes 0.75 for one alone
# The bounds of so many TPU chips for one process of its own.
TPU_BOUNDS = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}


class Accelerators(NamedTuple):
    """Devices, as the variable of the environment names them that restricts a process to some of them."""

    variable: str = ""
    names: tuple[str, ...] = ()


def visible_accelerators() -> Accelerators:
    """The devices that this process may use: GPUs of NVIDIA or AMD, or TPU chips; none where jax is to use the CPU."""
    if os.environ.get("JAX_PLATFORMS", "").lower().split(",")[0] == "cpu":
        return Accelerators()
    for variable, given, count in (
        ("CUDA_VISIBLE_DEVICES", ("CUDA_VISIBLE_DEVICES",), len(gpus())),
        ("HIP_VISIBLE_DEVICES", ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"), _amd_gpus()),
        ("TPU_VISIBLE_CHIPS", ("TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"), _tpu_chips()),
    ):
        listed = next((os.environ[name] for name in given if name in os.environ), None)
        if names := _names(listed, count):
            return Accelerators(variable, names)
    return Accelerators()


def _names(listed: str | None, count: int) -> tuple[str, ...]:
    """The devices that a list names, of so many that there are; as for CUDA, the first wrong one ends the list."""
    if listed is None or not count:
        return tuple(map(str, range(count)))
    names = []
    for name in map(str.strip, listed.split(",")):
        if not (name.startswith(("GPU-", "MIG-")) or (name.isdecimal() and int(name) < count)):
            break
        names.append(name)
    return tuple(names)


def _amd_gpus() -> int:
    """The number of AMD GPUs, by the driver's list of compute nodes, CPUs included; ROCr may be given fewer."""
    nodes = [path.read_text().split() for path in AMD_NODES.glob("*/properties")]
    count = sum(dict(zip(node[::2], node[1::2], strict=False)).get("simd_count", "0") != "0" for node in nodes)
    return len(_names(os.environ.get("ROCR_VISIBLE_DEVICES"), count))


def _tpu_chips() -> int:
    """The number of TPU chips of this machine."""
    return len(list(Path("/dev").glob("accel[0-9]*"))) or len(list(Path("/dev/vfio").glob("[0-9]*")))


class Share(NamedTuple):
    """The part of a machine that one worker takes."""

    environment: dict[str, str]  # variables that are set
    cores: tuple[int, ...] = ()  # of the CPU; empty for all

    def take(self) -> None:
        """Restrict this process to its share; it must be called before jax initializes its devices."""
        if "XLA_CLIENT_MEM_FRACTION" in self.environment:
            os.environ.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)  # jax refuses to have both
        os.environ.update(self.environment)
        if self.cores and sys.platform == "linux":
            os.sched_setaffinity(0, self.cores)


def room(accelerators: Accelerators, *, per_device: int = 1, devices: int = 1) -> int:
    """The number of workers that the devices have room for; 1 where there is none.

    Args:
        per_device: workers that share one device.
        devices: that one worker takes.

    Raises:
        ValueError: they cannot be shared, or are fewer than one worker takes.
    """
    variable, names = accelerators
    if not names:
        return 1
    if per_device > 1 and (devices > 1 or variable == "TPU_VISIBLE_CHIPS"):
        why = "a TPU chip cannot be shared" if devices == 1 else f"each trial takes device.count={devices} of them"
        raise ValueError(f"--per-device {per_device}: {why}; leave it out.")
    if devices > len(names):
        raise ValueError(
            f"device.count={devices}, but a worker may use {len(names)} devices ({variable}={','.join(names)}); set a "
            "lower device.count."
        )
    return len(names) // devices * per_device


def shares(
    workers: int, accelerators: Accelerators, *, per_device: int = 1, devices: int = 1, cores: int = 0
) -> list[Share]:
    """The share of each of so many workers. Devices are filled one after the other, and none has more than its room.

    Args:
        per_device: workers that share one device, and its memory.
        devices: that one worker takes.
        cores: of the CPU that one worker takes; 0 for an equal part.

    Raises:
        ValueError: there are too few devices or cores.
    """
    if accelerators.names and workers > (most := room(accelerators, per_device=per_device, devices=devices)):
        raise ValueError(
            f"--jobs {workers}: the devices that may be used ({accelerators.variable}={','.join(accelerators.names)}) "
            f"have room for {most}; lower it, or let trials share a device: --per-device N."
        )
    every = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
    if every and cores > len(every):
        raise ValueError(f"--cores {cores}: this process may use {len(every)}; lower it.")
    return [
        Share(
            _environment(number, accelerators, per_device=per_device, devices=devices),
            _cores(number, workers, every, each=cores),
        )
        for number in range(workers)
    ]


def _environment(number: int, accelerators: Accelerators, *, per_device: int, devices: int) -> dict[str, str]:
    variable, names = accelerators
    if not names:
        return {}
    first = number % (len(names) // devices) * devices
    environment = {variable: ",".join(names[first : first + devices])}
    if variable == "TPU_VISIBLE_CHIPS":
        if devices not in TPU_BOUNDS:
            raise ValueError(f"device.count={devices}: a process takes {', '.join(map(str, TPU_BOUNDS))} TPU chips.")
        bounds = {"TPU_CHIPS_PER_PROCESS_BOUNDS": TPU_BOUNDS[devices], "TPU_PROCESS_BOUNDS": "1,1,1"}
        environment |= {**bounds, "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    return environment | (memory_fraction(1 / per_device) if per_device > 1 else {})


def memory_fraction(part: float) -> dict[str, str]:
    """The variable that restricts jax to a part of the memory that it would take of a GPU."""
    given = os.environ.get("XLA_CLIENT_MEM_FRACTION") or os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION")
    return {"XLA_CLIENT_MEM_FRACTION": f"{float(given or MEMORY_FRACTION) * part:.4g}"}


def _cores(number: int, workers: int, every: list[int], *, each: int) -> tuple[int, ...]:
    if not every or (workers == 1 and not each):
        return ()
    if not each:
        return tuple(every[number % len(every) :: workers])
    return tuple(every[(number * each + index) % len(every)] for index in range(each))
