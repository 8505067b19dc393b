"""The `attention` command: the axes of attention with their choices, and the papers of one choice."""

import difflib
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from s2s_jax.cli.arguments import Arguments, UsageError
from s2s_jax.cli.output import print_json, print_text
from s2s_jax.model.attention.catalogue import ARCHITECTURE, CatalogueEntry, catalogue, legal_combinations
from s2s_jax.model.attention.citations import REFERENCES
from s2s_jax.model.compatibility import axis_names


def attention_command(arguments: Arguments) -> None:
    """Show all choices, or the papers of one (`--cite`)."""
    if arguments.overrides:
        raise UsageError(f"attention takes no settings, got --{arguments.overrides[0]}")
    entries = list(catalogue())
    if arguments.options.cite:
        entries = _with_name(arguments.options.cite, entries)
    if arguments.options.json:
        print_json({"choices": [_record(entry) for entry in entries]})
    elif arguments.options.cite:
        print_text("\n".join(line for entry in entries for line in _citation(entry)))
    else:
        console = Console(highlight=False)
        with console.capture() as captured:
            _show(entries, console)
        print_text(captured.get())


def _with_name(name: str, entries: list[CatalogueEntry]) -> list[CatalogueEntry]:
    matches = [entry for entry in entries if entry.name == name]
    if not matches:
        names = sorted({entry.name for entry in entries})
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no choice of attention is called {name!r}{hint} (s2s attention lists them)")
    return matches


def _record(entry: CatalogueEntry) -> dict[str, Any]:
    return entry._asdict() | {"papers": [REFERENCES[paper] for paper in entry.papers]}


def _citation(entry: CatalogueEntry) -> list[str]:
    papers = [REFERENCES[paper] for paper in entry.papers]
    return [f"{entry.axis} {entry.name}: {entry.formula}", *(papers or ["no paper is cited for it"])]


def _show(entries: list[CatalogueEntry], console: Console) -> None:
    groups = dict.fromkeys(axis_names(), "attention") | {ARCHITECTURE: "decoder"}
    for axis, group in groups.items():
        table = Table("name", "formula", "paper", "combines with", title=f"model.{group}.{axis}", title_justify="left")
        for entry in entries:
            if entry.axis == axis:
                row = entry.name, entry.formula, ", ".join(entry.papers), _partners(entry)
                table.add_row(*(Text(cell) for cell in row))
        console.print(table)
    console.print(
        "Any number of heads (one where the alignment is summed out: hard, hard-first-order, hard-monotonic);"
    )
    console.print("values same, projected or split. The four axes of model.attention have")
    console.print(f"{len(legal_combinations()):,} legal combinations; others are refused with a reason and a remedy.")


def _partners(entry: CatalogueEntry) -> str:
    """What a choice cannot be combined with; or, where that is most of an axis, what it can be combined with."""
    parts = []
    for axis, never in entry.never_with.items():
        rest = [name for name in axis_names()[axis] if name not in never]
        parts.append(f"{axis}: not {', '.join(never)}" if len(never) <= len(rest) else f"{axis}: {', '.join(rest)}")
    return "; ".join(parts) or "all"
