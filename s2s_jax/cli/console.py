"""The console of commands that print while they work."""

from rich.console import Console


class OutputConsole(Console):
    """A console on which a reader that leaves early is an error as everywhere else, not the end of the process."""

    def on_broken_pipe(self) -> None:
        """Raise what rich has caught."""
        raise BrokenPipeError
