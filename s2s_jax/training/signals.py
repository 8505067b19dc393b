"""Stopping on signals: the first one saves and stops, the second stops at once.

SIGINT is Ctrl-C, SIGTERM what `kill` and schedulers send, SIGHUP a terminal that is closed, SIGUSR1 the warning that
Slurm sends before the time limit of a job (`--signal=USR1@60`).
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
POLL_SECONDS = 0.05
SAME_SECONDS = 0.1  # `timeout` and others send one signal to the process and to its group: one request, not two
SHOW_CURSOR = b"\x1b[?25h"


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """Training was stopped by a signal, after saving.

    `code` is the exit code of the process: 128 + the signal's number.
    """

    def __init__(self, number: int, step: int):
        self.code = 128 + number
        super().__init__(f"{signal.Signals(number).name}: saved at step {step}; the same command resumes from there.")


class SignalReceived(Exception):  # noqa: N818 - nothing went wrong
    """A signal was received while something else was computed, whose result is not waited for."""


class SignalGuard:
    """A context in which a first signal is recorded in `number` instead of stopping the process.

    A guard within another shares its record, so that a signal that came before the inner one was entered is not lost.
    """

    signals = tuple(getattr(signal, name) for name in SIGNALS if hasattr(signal, name))  # Windows has not all
    _outermost: "SignalGuard | None" = None
    _abandoned: threading.Thread | None = None

    def __init__(self, *, pass_on: Callable[[int], None] | None = None):
        """`pass_on` lets the other processes of a training know of a signal; jax itself catches SIGTERM then."""
        self._received, self._received_at, self._pass_on = 0, 0.0, pass_on
        self._before: dict[int, Any] = {}

    @property
    def number(self) -> int:
        """The signal that was received, 0 for none."""
        return (SignalGuard._outermost or self)._received

    def __enter__(self) -> "SignalGuard":
        if SignalGuard._outermost is not None or threading.current_thread() is not threading.main_thread():
            return self  # signals can be caught in the main thread alone
        for number in self.signals:
            if number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
                continue  # as `nohup` has it: training goes on when the terminal is closed
            if number == signal.SIGTERM and self._pass_on is not None:
                continue
            self._before[number] = signal.signal(number, self._receive)
        SignalGuard._outermost = self
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        if SignalGuard._outermost is self:
            SignalGuard._outermost = None

    def run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """The result of a function that may take long without returning to Python, such as compiling.

        It runs in another thread, since Python handles signals between two instructions of the main thread alone. When
        a signal is received it is left alone: it must not change anything that is used afterwards.

        Raises:
            SignalReceived: a signal was received before the function returned.
        """
        outermost = SignalGuard._outermost
        if outermost is None or threading.current_thread() is not threading.main_thread():
            return function(*arguments)
        if outermost._pass_on is not None:  # other processes wait for what it computes
            return function(*arguments)
        future: Future[Result] = Future()
        thread = threading.Thread(target=_fulfil, args=(future, function, *arguments), name="s2s-compute")
        thread.start()
        while not self.number:
            thread.join(POLL_SECONDS)
            if not thread.is_alive():
                return future.result()
        SignalGuard._abandoned = thread
        raise SignalReceived

    @staticmethod
    def is_active() -> bool:
        """Whether a guard receives the signals of this process now."""
        return SignalGuard._outermost is not None

    @staticmethod
    def is_still_computing() -> bool:
        """Whether a function that `run` left alone has not returned yet."""
        return SignalGuard._abandoned is not None and SignalGuard._abandoned.is_alive()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self._received:
            self._received, self._received_at = number, time.monotonic()
            if self._pass_on is not None:
                self._pass_on(number)
        elif time.monotonic() - self._received_at > SAME_SECONDS:
            _show_cursor()
            for other in self.signals:
                signal.signal(other, signal.SIG_DFL)
            signal.raise_signal(number)


def _fulfil(future: Future, function: Callable, *arguments: Any) -> None:
    try:
        future.set_result(function(*arguments))
    except BaseException as error:  # raised where the result is awaited
        future.set_exception(error)


def _show_cursor() -> None:
    """Give the terminal its cursor back, which the live table hides; the process ends without any clean-up."""
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            with contextlib.suppress(OSError):
                os.write(descriptor, SHOW_CURSOR)
