"""Stopping on signals: the first SIGINT or SIGTERM saves and stops, the second stops at once."""

import signal
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """Training was stopped by a signal, after saving.

    `code` is the exit code of the process: 128 + the signal's number.
    """

    def __init__(self, number: int, step: int):
        self.code = 128 + number
        super().__init__(f"{signal.Signals(number).name}: saved at step {step}; the same command resumes from there.")


class SignalGuard:
    """A context in which a first signal is recorded in `number` instead of stopping the process.

    A guard within another shares its record, so that a signal that came before the inner one was entered is not lost.
    """

    signals = (signal.SIGINT, signal.SIGTERM)
    _outermost: "SignalGuard | None" = None

    def __init__(self):
        self._received = 0
        self._before: dict[int, object] = {}

    @property
    def number(self) -> int:
        """The signal that was received, 0 for none."""
        return (SignalGuard._outermost or self)._received

    def __enter__(self) -> "SignalGuard":
        if SignalGuard._outermost is not None:
            return self
        try:
            self._before = {number: signal.signal(number, self._receive) for number in self.signals}
            SignalGuard._outermost = self
        except ValueError:  # not the main thread, where signals cannot be caught
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        if SignalGuard._outermost is self:
            SignalGuard._outermost = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            for other in self.signals:
                signal.signal(other, signal.SIG_DFL)
            signal.raise_signal(number)
        self._received = number
