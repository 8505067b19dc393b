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


class Interrupt:
    """While it is entered, a signal is noted instead of obeyed; `number` says which one came."""

    signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interrupt":
        try:
            self._before = {number: signal.signal(number, self._note) for number in self.signals}
        except ValueError:  # not the main thread: whoever runs this in a thread has his own way of stopping
            self._before = {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            for other in self.signals:
                signal.signal(other, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number = number
