"""What a training prints: on its console, and in the log.txt of its run with the time of each line."""

import time
from pathlib import Path
from types import TracebackType
from typing import IO

from rich.console import Console
from rich.text import Text

LOG_FILE = "log.txt"


class RunLog:
    """Prints lines, and keeps them until there is a directory in which log.txt may be written."""

    def __init__(self, console: Console):
        self.console = console
        self._waiting: list[str] = []
        self._file: IO[str] | None = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._file is None:
            return
        if error is not None:
            self.write(f"ended by {type(error).__name__}: {error}")
        self._file.close()

    def open(self, directory: Path) -> None:
        """Write what was printed so far, and all that follows, into the log of a run."""
        self._file = (directory / LOG_FILE).open("a", encoding="utf-8", buffering=1)
        for line in self._waiting:
            self._file.write(line)
        self._waiting.clear()

    def print(self, line: str) -> None:
        """Print a line, and log it."""
        self.console.print(Text(line), soft_wrap=True)
        self.write(line)

    def write(self, text: str) -> None:
        """Log one or several lines without printing them."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        lines = "".join(f"{now} {line}\n" for line in text.splitlines())
        if self._file is None:
            self._waiting.append(lines)
        else:
            self._file.write(lines)
