"""What does `s2s attention` show? The axes with their choices, and a choice's reference."""

import difflib
import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from s2s_jax.cli.arguments import Given, UsageError
from s2s_jax.model.attention.attention import axes
from s2s_jax.model.attention.catalogue import CatalogueEntry, choices, legal
from s2s_jax.model.attention.citations import REFERENCES


def attention(given: Given) -> None:
    """Show the product, or where one choice comes from."""
    if given.overrides:
        raise UsageError(f"attention takes no settings, got --{given.overrides[0]}")
    found = list(choices())
    if given.options.cite:
        found = _named(given.options.cite, found)
    if given.options.json:
        print(json.dumps([_record(choice) for choice in found], ensure_ascii=False))
    elif given.options.cite:
        print("\n".join(line for choice in found for line in _cited(choice)))
    else:
        _show(found)


def _named(name: str, found: list[CatalogueEntry]) -> list[CatalogueEntry]:
    matches = [choice for choice in found if choice.name == name]
    if not matches:
        names = sorted({choice.name for choice in found})
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no choice of attention is called {name!r}{hint} (s2s attention lists them)")
    return matches


def _record(choice: CatalogueEntry) -> dict[str, Any]:
    return choice._asdict() | {"papers": [REFERENCES[paper] for paper in choice.papers]}


def _cited(choice: CatalogueEntry) -> list[str]:
    papers = [REFERENCES[paper] for paper in choice.papers]
    return [f"{choice.axis} {choice.name}: {choice.formula}", *(papers or ["no paper is named for it"])]


def _show(found: list[CatalogueEntry]) -> None:
    console = Console(highlight=False)
    for axis in axes():
        table = Table("name", "formula", "paper", "goes with", title=f"model.attention.{axis}", title_justify="left")
        for choice in found:
            if choice.axis == axis:
                row = choice.name, choice.formula, ", ".join(choice.papers), _partners(choice)
                table.add_row(*(Text(cell) for cell in row))
        console.print(table)
    console.print("heads 1, 2, ... of any of them; values same, projected or split; query: the new state with")
    console.print("model.decoder.architecture=luong, the previous one with bahdanau. The four axes above have")
    console.print(f"{len(legal()):,} legal combinations; the others are refused with the reason.")


def _partners(choice: CatalogueEntry) -> str:
    """What a choice never goes with; or, where that is most of an axis, what alone it goes with."""
    words = []
    for axis, never in choice.never_with.items():
        rest = [name for name in axes()[axis] if name not in never]
        words.append(f"{axis}: not {', '.join(never)}" if len(never) <= len(rest) else f"{axis}: {', '.join(rest)}")
    return "; ".join(words) or "all"
