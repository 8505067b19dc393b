"""`s2s checkpoint verify`: checks every file of a run, and prints a table."""

from rich.table import Table
from rich.text import Text

from s2s_jax.cli.arguments import Arguments
from s2s_jax.cli.console import OutputConsole
from s2s_jax.cli.inputs import check_not_exported
from s2s_jax.cli.output import formatted, print_json
from s2s_jax.run.verify import VerifiedRun, verify

DAMAGED = 1  # the exit code where something is


def checkpoint_command(arguments: Arguments) -> int:
    """Verify a run; returns 1 where a checkpoint or another file of it is damaged."""
    check_not_exported(arguments.options.run)
    verified = verify(arguments.options.run)
    if arguments.options.json:
        files = {part.name: part.problems for part in verified.files}
        checkpoints = [checkpoint._asdict() for checkpoint in verified.checkpoints]
        print_json(
            {"run": arguments.options.run, "whole": verified.is_whole, "files": files, "checkpoints": checkpoints}
        )
    else:
        OutputConsole(soft_wrap=True, highlight=False).print(_table(verified))
        problems = [line for part in (*verified.files, *verified.checkpoints) for line in part.problems]
        print("\n".join(problems) or ("every bit is as it was written" if verified.is_whole else "no checkpoint"))
    return 0 if verified.is_whole else DAMAGED


def _table(verified: VerifiedRun) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row(*(Text(title, style="bold") for title in ("part", "MB", "loss", "")))
    for part in verified.files:
        table.add_row(part.name, "", "", _verdict(part.problems))
    for step, megabytes, loss, problems in verified.checkpoints:
        cost = "" if loss is None else formatted(loss)
        table.add_row(f"checkpoint {step}", f"{megabytes:.1f}", cost, _verdict(problems))
    return table


def _verdict(problems: list[str]) -> Text:
    return Text("damaged", style="red") if problems else Text("whole", style="green")
