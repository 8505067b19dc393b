"""One training as several processes on a Slurm or Ray cluster, all of which see the same disk.

Each process is an `s2s train` of its own with `--coordinator`, `--processes` and `--process-id`. Ray Train's
`JaxTrainer` (alpha in Ray 2.60) would call `jax.distributed.initialize` for GPUs and TPUs alone, with jax's default
heartbeat, and train in a thread, where Python receives no signal: plain actors serve CPUs too, and keep all of that.
"""

import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s_jax.extras import needs_extra
from s2s_jax.training.signals import SignalGuard

POLL_SECONDS = 0.5
# Slurm's job number decides the port, as in jax: in the range that no service has, but a client may
FIRST_PORT, PORTS = 61_440, 4_096


class Process:
    """One of the processes of a training, started by the executor where it shall run; a Ray actor, or in a job."""

    def __init__(self):
        self._child: subprocess.Popen | None = None

    def address(self) -> str:
        """This host and a port that is free on it."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{socket.gethostbyname(socket.gethostname())}:{free.getsockname()[1]}"

    def train(self, words: Sequence[str], coordinator: str, processes: int, number: int, folder: str) -> int:
        """Run `s2s` with these words in a folder; its exit code. SIGTERM and the like are passed on to it."""
        shared = ["--coordinator", coordinator, "--processes", str(processes), "--process-id", str(number)]
        paths = os.pathsep.join(path for path in (os.environ.get("PYTHONPATH", ""), *sys.path) if path)
        self._child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "s2s_jax", *words, *shared], cwd=folder, env={**os.environ, "PYTHONPATH": paths}
        )
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
                signal.signal(getattr(signal, name), lambda number, _: self.stop(number))
        return self._child.wait()

    def stop(self, number: int) -> None:
        """Send a signal to the training; SIGUSR2, which submitit sends before a job's time is over, as SIGUSR1."""
        if self._child is not None:
            self._child.send_signal(signal.SIGUSR1 if number == signal.SIGUSR2 else number)


def train_in_job(words: Sequence[str], folder: str) -> int:
    """The process of a training that this task of a submitit job is; its exit code."""
    import submitit

    job = submitit.JobEnvironment()
    port = FIRST_PORT + int(job.raw_job_id) % PORTS
    if job.cluster == "local" and os.environ.get("CUDA_VISIBLE_DEVICES"):
        os.environ["JAX_LOCAL_DEVICE_IDS"] = str(job.local_rank)  # a GPU of its own, as jax gives one under Slurm
    return Process().train(words, f"{job.hostnames[0]}:{port}", job.num_tasks, job.global_rank, folder)


def train_on_slurm(words: Sequence[str], options: Mapping[str, str], logs: Path) -> tuple[list[int], int]:
    """Run `s2s` with these words in each task of one job, and wait for it.

    Args:
        options: of submitit's `update_parameters`, such as nodes, tasks_per_node, gpus_per_node or slurm_partition;
            and `cluster`, which may be `local` (processes on this machine).
        logs: directory of what the tasks print.

    Returns:
        the exit code of each task, and the signal that asked for an end, or 0.

    Raises:
        ValueError: submitit is not installed, there is no Slurm, or an option is unknown.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError(needs_extra("--executor slurm", "slurm")) from None
    parameters = {name: parsed_option(value) for name, value in options.items()}
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=parameters.pop("cluster", "slurm"))
        executor.update_parameters(**{"name": "s2s", "timeout_min": 60 * 24, **parameters})
    except (RuntimeError, NameError, ValueError) as error:  # submitit has NameError for an unknown option
        raise ValueError(f"--executor slurm: {error}") from None
    job = executor.submit(train_in_job, list(words), str(Path.cwd()))
    with SignalGuard() as interrupt:
        while not job.done():
            if interrupt.number:
                job.cancel()
                break
            time.sleep(POLL_SECONDS)
        return _results(job), interrupt.number


def parsed_option(value: str) -> Any:
    """The value of an option of Slurm: what it means as JSON, such as a number, else the text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _results(job: Any) -> list[int]:
    """The exit code of each task; 1 for one that has left none."""
    codes = []
    for task in range(job.num_tasks):
        codes.append(1)
        with contextlib.suppress(Exception):  # of submitit's own, where a task was cancelled or died
            codes[-1] = job.task(task).result()
    return codes


def train_on_ray(words: Sequence[str], processes: int, address: str, *, show: bool = True) -> tuple[list[int], int]:
    """Run `s2s` with these words in as many actors, with a GPU each where there are any, and wait for them.

    Args:
        show: whether to print what they print.

    Returns:
        the exit code of each process, and the signal that asked for an end, or 0.

    Raises:
        ValueError: Ray is not installed, there is no cluster at the address, or it has no room.
    """
    ray = ray_cluster(address, show=show)
    try:
        resources = ray.cluster_resources()
        needed = {"CPU": 1.0, **({"GPU": 1.0} if resources.get("GPU") else {})}
        _check_room(resources, needed, processes)
        actor = ray.remote(num_cpus=1, num_gpus=needed.get("GPU", 0), max_concurrency=2)(Process)
        actors = [actor.remote() for _ in range(processes)]
        coordinator = ray.get(actors[0].address.remote())
        given = (list(words), coordinator, processes)
        running = [each.train.remote(*given, number, str(Path.cwd())) for number, each in enumerate(actors)]
        return _await_actors(ray, actors, running)
    finally:
        ray.shutdown()


def ray_cluster(address: str, *, show: bool = False, runtime_env: Mapping[str, Any] | None = None) -> Any:
    """The module `ray`, connected with a cluster; without an address with one that it starts on this machine.

    Args:
        show: whether to print what the workers print.
        runtime_env: the environment of the workers, as Ray has it.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise ValueError(needs_extra("--executor ray", "ray")) from None
    _check_listener(address)
    try:
        options = {"include_dashboard": False, "logging_level": logging.ERROR, "runtime_env": dict(runtime_env or {})}
        ray.init(address=address or None, log_to_driver=show, **options)
    except ConnectionError as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there ({error}).") from None
    return ray


def _check_listener(address: str) -> None:
    """Refuse an address without a listener; Ray itself would wait a minute for it and then print many lines."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(f"--address {address}: no Ray cluster answers there ({error}).") from None


def _check_room(resources: Mapping[str, float], needed: Mapping[str, float], processes: int) -> None:
    """Refuse more processes than the cluster can run at once: those that run would wait for the others."""
    room = min(int(resources.get(name, 0) / count) for name, count in needed.items())
    if processes > room:
        what = " and ".join(f"a {name}" for name in needed)
        raise ValueError(f"--processes {processes}: each takes {what}, and the Ray cluster has room for {room}.")


def _await_actors(ray: Any, actors: Sequence[Any], running: Sequence[Any]) -> tuple[list[int], int]:
    with SignalGuard() as interrupt:
        stopping = False
        waiting = list(running)
        while waiting:
            if interrupt.number and not stopping:
                stopping = True
                actors[0].stop.remote(int(signal.SIGTERM))  # of which all processes come to know
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS)
        codes = []
        for reference in running:
            try:
                codes.append(ray.get(reference))
            except ray.exceptions.RayError:
                codes.append(1)
        return codes, interrupt.number
