"""Training in many processes: how they find each other, how they agree, and how they end together.

All processes do the same, each with its devices; the first one alone writes. `jax.distributed` finds them, hears their
heartbeats and agrees on the step at which they stop.
"""

import contextlib
import signal
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

AGREED_EVERY = 10  # steps between two looks at the clock of process 0, each of which costs a broadcast


class ProcessLost(ConnectionError):  # noqa: N818
    """Another process of this training was killed, or cannot be reached."""


class ProcessFailed(OSError):  # noqa: N818
    """Another process of this training ends with an error, and this one with it."""


def start(coordinator: str = "", processes: int = 0, process: int = -1, *, heartbeat: int) -> None:
    """Join the processes of a training, unless this one has; it must come before jax is used.

    Args:
        coordinator: host and port of process 0; empty for what Slurm, Open MPI, Kubernetes or a TPU pod says.
        processes: how many there are.
        process: the number of this one.
        heartbeat: seconds without a sign of life after which a process counts as lost.

    Raises:
        ValueError: nothing says where the other processes are, or the port of process 0 is not free.
    """
    if jax.distributed.is_initialized():  # by Ray, for example
        return
    given = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    try:
        jax.distributed.initialize(
            **(given if coordinator else {}), heartbeat_timeout_seconds=heartbeat, shutdown_timeout_seconds=heartbeat
        )
    except ValueError as error:
        if coordinator:
            raise
        raise ValueError(
            "--distributed finds no Slurm, Open MPI, Kubernetes or TPU pod around this process; give "
            "--coordinator HOST:PORT --processes N --process-id I."
        ) from error
    except jax.errors.JaxRuntimeError as error:
        where = f"--coordinator {coordinator}" if coordinator else "the address of process 0"
        reason = str(error).splitlines()[0]
        raise ValueError(f"{where} cannot be used ({reason}); choose another host or a free port.") from error


def is_shared() -> bool:
    """Whether a training is shared by several processes; no device is initialized where it is not."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not is_shared() or jax.process_index() == 0


def suffix() -> str:
    """What distinguishes a file of this process from those of the others: `.process1`; nothing in a single process."""
    return f".process{jax.process_index()}" if is_shared() else ""


def of_first(value: float) -> float:
    """The value that process 0 has."""
    if not is_shared():
        return value
    words = np.frombuffer(np.float64(value).tobytes(), np.uint32)  # jax would round it to 32 bits
    return float(np.asarray(multihost_utils.broadcast_one_to_all(words)).view(np.float64)[0])


def of_first_now_and_then(step: int, value: float, *, otherwise: float) -> float:
    """The value that process 0 has, at every tenth step; `otherwise` at the others. Its own in a single process."""
    if not is_shared():
        return value
    return otherwise if step % AGREED_EVERY else of_first(value)


def stops_after(step: int) -> bool:
    """Whether all processes stop after this step, since one of them has received SIGTERM; called after each step."""
    return is_shared() and multihost_utils.reached_preemption_sync_point(step)


def pass_on(number: int) -> None:
    """Let all processes know of a signal: SIGTERM is the one that jax tells the others of."""
    if is_shared():
        signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A context that all processes leave at the same time; an error of one is an error of all.

    Raises:
        ProcessFailed: another process has left it with an error.
    """
    if not is_shared():
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = np.flatnonzero(multihost_utils.process_allgather(np.bool_(failure is not None)))
    if failure is not None:
        raise failure
    if len(failed):
        raise ProcessFailed(f"process {failed[0]} of {jax.process_count()} has ended with an error, see its output.")


def check_same(value: float, what: str) -> None:
    """Check that a number is the same in all processes.

    Raises:
        ValueError: it is not.
        ProcessFailed: it is here, and not in another process.
    """
    expected = of_first(value)
    with together():
        if value != expected:
            raise ValueError(
                f"{what} is {value:g} here and {expected:g} for process 0; all processes must see the same files."
            )


@contextlib.contextmanager
def losses_named() -> Iterator[None]:
    """A context in which a collective operation that fails says that a process was lost.

    Raises:
        ProcessLost: it was.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_shared() or "RESOURCE_EXHAUSTED" in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ProcessLost(
            f"another process of this training has ended ({reason}); start all of them again with the same command, "
            "and the run is resumed from its newest checkpoint."
        ) from error
