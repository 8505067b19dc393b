"""How does a run stop when it is asked to? The first SIGINT or SIGTERM saves and stops, the second stops now."""

import signal
from types import FrameType


class Interrupted(Exception):  # noqa: N818 - nothing went wrong
    """Training stopped because it was asked to, after saving.

    `code` is the exit code that says so: 128 + the signal's number.
    """

    def __init__(self, number: int, step: int):
        self.code = 128 + number
        super().__init__(f"{signal.Signals(number).name}: saved at step {step}; the same command goes on from there.")


class SignalGuard:
    """While it is entered, a signal is noted instead of obeyed; `number` says which one came.

    One inside another is the same one: what came before the inner was entered is not lost.
    """

    signals = (signal.SIGINT, signal.SIGTERM)
    _outermost: "SignalGuard | None" = None

    def __init__(self):
        self._noted = 0
        self._before: dict[int, object] = {}

    @property
    def number(self) -> int:
        """The signal that came, 0 for none."""
        return (SignalGuard._outermost or self)._noted

    def __enter__(self) -> "SignalGuard":
        if SignalGuard._outermost is not None:
            return self
        try:
            self._before = {number: signal.signal(number, self._note) for number in self.signals}
            SignalGuard._outermost = self
        except ValueError:  # not the main thread: whoever runs this in a thread has his own way of stopping
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        if SignalGuard._outermost is self:
            SignalGuard._outermost = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted:
            for other in self.signals:
                signal.signal(other, signal.SIG_DFL)
            signal.raise_signal(number)
        self._noted = number
