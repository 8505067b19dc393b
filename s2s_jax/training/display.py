"""What a training shows: a live table on a terminal, plain lines elsewhere."""

from typing import Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from s2s_jax.training.run_log import RunLog


class Display:
    """Rows of text by name: a table that changes in place on a terminal and stays when it is left, or lines."""

    def __init__(self, log: RunLog):
        """Every line goes into the log, also where only the table is shown."""
        self.log, console = log, log.console
        self._rows: dict[str, str] = {}
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._table)
        self._is_live = console.is_terminal and not console.is_dumb_terminal

    def __enter__(self) -> "Display":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.pop("now", None)
        if self._is_live:
            self._live.stop()

    def print(self, line: str) -> None:
        """Print a line, above the table where there is one."""
        self.log.print(line)

    def now(self, doing: str) -> None:
        """Say what takes long now; empty when it is over."""
        if not self._is_live:
            if doing:
                self.print(doing)
            return
        self._rows.pop("now", None)
        if doing:
            self.log.write(doing)
            self._rows["now"] = doing
        self._live.refresh()

    def show(self, *, sample: str = "", **rows: str) -> None:
        """Show rows, in the place of older ones with their names; `sample` is lines that show a translation."""
        lines = "; ".join(f"{name} {text}" for name, text in rows.items())
        lines = f"{lines}\n{sample}" if sample else lines
        if not self._is_live:
            self.print(lines)
            return
        self.log.write(lines)
        self._rows.update(rows, **({"sample": sample} if sample else {}))

    def _table(self) -> Any:
        table = Table.grid(padding=(0, 2))
        for name, text in self._rows.items():
            table.add_row(Text(name, style="bold"), Text(text))
        return table


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
