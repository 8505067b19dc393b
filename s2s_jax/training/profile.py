"""A profiler trace of some training steps, for TensorBoard, XProf or Perfetto."""

from collections.abc import Callable
from pathlib import Path

import jax

BEFORE = 10  # steps before the trace: the first ones compile
TRACED = 10  # steps in the trace


class Profile:
    """Traces steps BEFORE + 1 to BEFORE + TRACED of a loop; nothing without a directory."""

    def __init__(self, directory: Path | None, print_line: Callable[[str], None]):
        self.directory, self.print_line = directory, print_line
        self._steps = 0

    def __enter__(self) -> "Profile":
        return self

    def before_step(self) -> None:
        """Start or end the trace where the next step requires it."""
        self._steps += 1
        if self.directory is None:
            return
        if self._steps == BEFORE + 1:
            jax.profiler.start_trace(str(self.directory))
        elif self._steps == BEFORE + TRACED + 1:
            self._end()

    def __exit__(self, *error: object) -> None:
        if self.directory is not None and BEFORE < self._steps <= BEFORE + TRACED:
            self._end()

    def _end(self) -> None:
        jax.profiler.stop_trace()
        self.print_line(f"profile of {min(self._steps - BEFORE, TRACED)} steps: tensorboard --logdir {self.directory}")
