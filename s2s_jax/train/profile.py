"""What did the device do in some training steps? A trace of them, for TensorBoard, XProf or Perfetto."""

from collections.abc import Callable
from pathlib import Path

import jax

BEFORE = 10  # steps that are let pass: the first ones compile
TRACED = 10


class Profile:
    """Traces steps BEFORE + 1 to BEFORE + TRACED of those that it is told of; without a directory, none."""

    def __init__(self, directory: Path | None, say: Callable[[str], None]):
        self.directory, self.say = directory, say
        self._passed = 0

    def __enter__(self) -> "Profile":
        return self

    def before_step(self) -> None:
        """Start or end the trace where the step to come says so."""
        self._passed += 1
        if self.directory is None:
            return
        if self._passed == BEFORE + 1:
            jax.profiler.start_trace(str(self.directory))
        elif self._passed == BEFORE + TRACED + 1:
            self._end()

    def __exit__(self, *error: object) -> None:
        if self.directory is not None and BEFORE < self._passed <= BEFORE + TRACED:
            self._end()

    def _end(self) -> None:
        jax.profiler.stop_trace()
        self.say(f"profile of {min(self._passed - BEFORE, TRACED)} steps: tensorboard --logdir {self.directory}")
