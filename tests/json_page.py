"""docs/json.md as data: the keys of each command, for tests that compare them with what the command prints."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "json.md"


@functools.cache
def sections() -> dict[str, dict[str, bool]]:
    """For each command, such as `sweep plan`, its keys, and whether each is always there."""
    text = PAGE.read_text(encoding="utf-8")
    found = {}
    for command, body in re.findall(r"^## `s2s ([a-z ]+)`\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE):
        rows = re.findall(r"^\| (`.*?`) \| (.*) \|$", body, re.MULTILINE)
        found[command] = {
            key: not meaning.startswith("Only") for keys, meaning in rows for key in re.findall(r"`([^`]+)`", keys)
        }
    return found


def check_keys(command: str, record: dict[str, Any]) -> None:
    """Fail unless a record has exactly the keys of the page; elements of objects that it does not list are free."""
    _check(record, sections()[command], "")


def _check(record: dict[str, Any], known: dict[str, bool], prefix: str) -> None:
    level = {key.removeprefix(prefix): always for key, always in known.items() if key.startswith(prefix)}
    here = {key: always for key, always in level.items() if "." not in key}
    assert set(record) <= set(here), f"not in docs/json.md: {prefix}{sorted(set(record) - set(here))}"
    missing = {key for key, always in here.items() if always} - set(record)
    assert not missing, f"in docs/json.md, but not printed: {prefix}{sorted(missing)}"
    for name, value in record.items():
        for child in _elements(value):
            inner = f"{prefix}{name}{'[]' if isinstance(value, list) else ''}."
            if any(key.startswith(inner) for key in known):
                _check(child, known, inner)


def _elements(value: Any) -> Iterator[dict[str, Any]]:
    yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict))
