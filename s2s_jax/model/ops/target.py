"""The kind of device that a program is written for, where that changes how it is written."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_PLATFORM = contextvars.ContextVar("platform", default="")


@contextlib.contextmanager
def built_for(name: str) -> Iterator[None]:
    """Inside this context, models are traced for a platform: cpu, gpu or tpu; otherwise for that of jax.

    What they compute is the same everywhere, up to rounding. A function that was traced before stays as it is.
    """
    token = _PLATFORM.set(name)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


def platform() -> str:
    """The platform that models are traced for: cpu, gpu or tpu."""
    return _PLATFORM.get() or jax.default_backend()


def launches_cost() -> bool:
    """Whether a program is written to have few operations per step, since each costs a launch.

    On a GPU a small one takes 2 microseconds, whatever it computes; on a CPU what it computes and moves is what counts.
    """
    return platform() != "cpu"
