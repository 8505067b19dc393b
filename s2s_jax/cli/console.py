"""The console of commands that print while they work."""

from typing import Any

from rich.console import Console

from s2s_jax.cli.output import errors_name


class OutputConsole(Console):
    """A console on which a reader that leaves early is an error as everywhere else, not the end of the process."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich prints; an error names the stream."""
        with errors_name("stderr" if self.stderr else "stdout"):
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        """Raise what rich has caught."""
        raise BrokenPipeError
