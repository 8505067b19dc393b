"""Trials on a Ray cluster: one task per group, which takes what it needs of the cluster.

Where a worker sees the disk of the sweep, trials are trained in their directories. Elsewhere their files travel: those
of an interrupted trial with its task, new ones while it runs, so that a machine that dies costs little, and all of them
with its result.
"""

import contextlib
import importlib
import os
import shutil
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s2s_jax.run.launch import POLL_SECONDS, ray_cluster
from s2s_jax.sweep.executors.interface import ENDED, ExecutorConfig, Progress, names, to_retry
from s2s_jax.sweep.executors.shipping import Files, Mailbox, Message, Packer, unpack
from s2s_jax.sweep.heartbeat import BEAT_SECONDS, end_signs_of_life, show_sign_of_life
from s2s_jax.sweep.trial import TrialGroup, run_interruptible
from s2s_jax.sweep.trial_files import record_failure
from s2s_jax.training.accelerators import memory_fraction
from s2s_jax.training.signals import SignalGuard

NODE_DEATHS = 5  # of which a group is tried again without that it counts as a retry


def run_on_ray(groups: Sequence[TrialGroup], progress: Progress, config: ExecutorConfig, *, retries: int) -> int:
    """Run all groups, `config.jobs` at a time, or as many as the cluster has room for; as `Executor`.

    Raises:
        ValueError: Ray is not installed, or there is no cluster at the address.
    """
    ray = ray_cluster(config.address, runtime_env=config.environment())
    try:
        resources = _resources(ray.cluster_resources(), groups, config)
        _describe(ray.nodes(), resources, progress)
        with _disk_token(groups) as token:
            tasks = _Tasks(ray, progress, resources, token)
            absolute = [tuple(spec._replace(folder=spec.folder.absolute()) for spec in group) for group in groups]
            return tasks.run(absolute, retries=retries, most=config.jobs or len(groups))
    finally:
        ray.shutdown()


def _resources(cluster: Mapping[str, float], groups: Sequence[TrialGroup], config: ExecutorConfig) -> dict[str, float]:
    """What each trial takes of the cluster: a core, and a GPU or TPU chip where it has any, but for what is given."""
    devices = max([1, *(spec.experiment.device.count for group in groups for spec in group)])
    kind = next((name for name in ("GPU", "TPU") if cluster.get(name)), None)
    accelerators = {} if kind is None or {"GPU", "TPU"} & set(config.resources) else {kind: float(devices)}
    return {"CPU": float(config.cores or 1), **accelerators, **config.resources}


def _describe(nodes: Sequence[Mapping[str, Any]], resources: Mapping[str, float], progress: Progress) -> None:
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    wanted = ", ".join(f"{name} {amount:g}" for name, amount in resources.items())
    totals = ", ".join(f"{name} {sum(node.get(name, 0) for node in alive):g}" for name in resources)
    progress.note(f"each trial takes {wanted}; the Ray cluster has {totals} on {len(alive)} nodes")
    if not any(all(node.get(name, 0) >= amount for name, amount in resources.items()) for node in alive):
        progress.note(f"warning: no node of the cluster has {wanted}; trials wait until one joins it")


@contextlib.contextmanager
def _disk_token(groups: Sequence[TrialGroup]):
    """A file of the sweep's folder by whose content a worker knows whether it sees the same disk."""
    folder = groups[0][0].folder.absolute().parent if groups else Path.cwd()
    path, content = folder / f".disk-{uuid.uuid4().hex}", uuid.uuid4().hex
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    try:
        yield path, content
    finally:
        path.unlink(missing_ok=True)


class _Attempt(NamedTuple):
    """A group that was submitted."""

    group: TrialGroup
    retries: int  # that are left
    deaths: int  # of machines that ran it
    number: int


class _Tasks:
    """Groups that wait, and groups that were submitted."""

    def __init__(self, ray: Any, progress: Progress, resources: Mapping[str, float], token: tuple[Path, str]):
        self._ray, self._progress, self._token, self._resources = ray, progress, token, dict(resources)
        own = {name: amount for name, amount in resources.items() if name not in ("CPU", "GPU")}
        options = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0), "resources": own}
        reused = {} if len(resources) == 1 else {"max_calls": 1}  # jax stays on the devices of its first task
        self._task = ray.remote(max_retries=0, **options, **reused)(_attempt)
        self._mailbox = ray.remote(num_cpus=0, max_restarts=-1)(Mailbox).remote()
        self._waiting: list[_Attempt] = []
        self._running: dict[Any, _Attempt] = {}
        self._places: dict[int, dict[str, Any]] = {}  # attempt -> where it runs

    def run(self, groups: Sequence[TrialGroup], *, retries: int, most: int) -> int:
        """Keep `most` groups submitted until none is left, or a signal asks for an end."""
        self._waiting = [_Attempt(group, retries, 0, 0) for group in reversed(groups)]
        numbers = iter(range(1, sys.maxsize))
        with SignalGuard() as interrupt:
            stopping = False
            while self._running or (self._waiting and not stopping):
                while self._waiting and len(self._running) < most and not interrupt.number:
                    self._submit(self._waiting.pop()._replace(number=next(numbers)))
                if interrupt.number and not stopping:
                    stopping = True
                    for reference in self._running:
                        self._ray.cancel(reference)  # as Ctrl-C in the worker: it saves its state and stops
                for reference in self._ray.wait(list(self._running), timeout=POLL_SECONDS)[0]:
                    self._collect(reference, self._running.pop(reference), stopping=stopping)
                self._read_messages()
            return interrupt.number

    def _submit(self, attempt: _Attempt) -> None:
        packed = tuple(Packer(spec.folder).pack() for spec in attempt.group)
        given = [self._ray.put(packed)] if any(files.names for files in packed) else []
        gpus, directory = self._resources.get("GPU", 0), str(Path.cwd())
        fixed = (directory, self._token, self._mailbox, attempt.number, gpus, BEAT_SECONDS)
        self._running[self._task.remote(attempt.group, given, *fixed)] = attempt

    def _read_messages(self) -> None:
        running = {attempt.number: attempt for attempt in self._running.values()}
        with contextlib.suppress(self._ray.exceptions.RayError):  # the next message comes soon
            for message in self._ray.get(self._mailbox.take.remote(), timeout=30):
                if message.attempt not in running:
                    continue
                group = running[message.attempt].group
                if message.attempt not in self._places:
                    self._places[message.attempt] = message.place
                    self._progress.note(f"{names(group)}: runs on {_place_text(message.place)}")
                for spec, files in zip(group, message.files, strict=False):
                    unpack(files, spec.folder)
                    show_sign_of_life(spec.folder, message.place["host"], message.place["pid"])

    def _collect(self, reference: Any, attempt: _Attempt, *, stopping: bool) -> None:
        group, exceptions = attempt.group, self._ray.exceptions
        died, on_dead_node = "", False
        try:
            status, packed = self._ray.get(reference)
            for spec, files in zip(group, packed, strict=False):
                unpack(files, spec.folder)
        except exceptions.TaskCancelledError:
            status = "stopped"
        except exceptions.RayTaskError as error:
            status, died = "failed", f"its Ray task failed: {str(error).strip().splitlines()[-1]}"
        except exceptions.RayError as error:
            status, on_dead_node = "failed", isinstance(error, exceptions.NodeDiedError)
            what = "node" if on_dead_node else "Ray worker"
            died = f"its {what} died ({type(error).__name__}){self._place(attempt.number)}"
        if died:
            for spec in to_retry(group):
                record_failure(spec.folder, RuntimeError(died))
        for spec in group:
            end_signs_of_life(spec.folder)
        self._conclude(attempt, status, died, on_dead_node=on_dead_node, stopping=stopping)

    def _conclude(self, attempt: _Attempt, status: str, died: str, *, on_dead_node: bool, stopping: bool) -> None:
        """Report a group, or let it wait for another attempt."""
        free = on_dead_node and attempt.deaths < NODE_DEATHS
        if status in ENDED or stopping or not (free or attempt.retries):
            self._progress.finished(attempt.group, status)
            return
        self._progress.note(f"{names(attempt.group)}: {died or status}; tried again")
        left, deaths = attempt.retries - (not free), attempt.deaths + on_dead_node
        self._waiting.append(_Attempt(to_retry(attempt.group), left, deaths, 0))

    def _place(self, number: int) -> str:
        return f", on {_place_text(self._places[number])}" if number in self._places else ""


def _place_text(place: Mapping[str, Any]) -> str:
    return f"{place['host']} (pid {place['pid']}{place['devices']})"


def _attempt(
    group: TrialGroup,
    given: Sequence[Any],
    directory: str,
    token: tuple[Path, str],
    mailbox: Any,
    number: int,
    gpus: float,
    seconds: float,
) -> tuple[str, tuple[Files, ...]]:
    """Run a group in a Ray worker: its status and, where the disk is another one, its files.

    Args:
        given: a reference to the files of an interrupted group; empty for a new one.
        directory: where the sweep was started; relative paths and modules of the user are found there.
        seconds: between two messages.
    """
    if Path(directory).is_dir():
        os.chdir(directory)
        sys.path[:0] = [directory] * (directory not in sys.path)
    if 0 < gpus < 1:
        os.environ |= memory_fraction(gpus)
    if _sees(*token):
        with _Reports(mailbox, number, (), seconds):
            return run_interruptible(group), ()
    scratch = Path(tempfile.mkdtemp(prefix="s2s-trials-"))
    try:
        moved = tuple(spec._replace(folder=scratch / spec.folder.name) for spec in group)
        for spec, files in zip(moved, _fetched(given), strict=False):
            unpack(files, spec.folder)
        with _Reports(mailbox, number, [spec.folder for spec in moved], seconds):
            status = run_interruptible(moved)
        return status, tuple(Packer(spec.folder).pack() for spec in moved)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sees(path: Path, content: str) -> bool:
    """Whether this machine has the disk of the sweep."""
    try:
        return path.read_text() == content
    except OSError:
        return False


def _fetched(given: Sequence[Any]) -> tuple[Files, ...]:
    return _ray().get(given[0]) if given else ()


def _ray() -> Any:
    """The module `ray`, which not every installation has."""
    return importlib.import_module("ray")


class _Reports:
    """A `with` block in which a thread sends signs of life, and the files of folders as they change."""

    def __init__(self, mailbox: Any, number: int, folders: Sequence[Path], seconds: float):
        context = _ray().get_runtime_context()
        ids = [f", {kind} {', '.join(each)}" for kind, each in context.get_accelerator_ids().items() if each]
        here = {"host": socket.gethostname(), "pid": os.getpid()}
        self._place = {**here, "devices": "".join(ids)}
        self._mailbox, self._number, self._packers = mailbox, number, [Packer(folder) for folder in folders]
        self._seconds, self._ended = seconds, threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _send(self) -> None:
        ray = _ray()
        while True:
            files = tuple(packer.pack() for packer in self._packers)
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(self._mailbox.put.remote(Message(self._number, self._place, files)))
            if self._ended.wait(self._seconds):
                return
