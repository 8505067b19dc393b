"""Which pair does a line of a file say, and which pairs come in from a file that may never end?"""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from s2s_jax.text.example import Example, WordLinks
from s2s_jax.text.files import raw_lines, stream_lines


def stream_pairs(spec: str, *, stdin: Iterable[bytes]) -> Iterator[Example]:
    """The pairs of a TSV or JSON-lines file, or of two parallel files as A,B, one by one; TSV of stdin without a spec.

    Raises:
        FileNotFoundError, ValueError: with file and line where data is at fault.
    """
    if not spec:
        return (tsv_pair(line, f"stdin:{number}") for number, line in enumerate(stream_lines(stdin, "stdin"), 1))
    if is_parallel(spec):
        return _parallel(*spec.split(",", 1))
    read = json_pair if is_json(Path(spec)) else tsv_pair
    return (read(line, f"{spec}:{number}") for number, line in enumerate(_lines(spec), 1))


def _lines(name: str) -> Iterator[str]:
    return stream_lines(raw_lines(Path(name)), name)


def _parallel(source: str, target: str) -> Iterator[Example]:
    for number, sides in enumerate(itertools.zip_longest(_lines(source), _lines(target)), 1):
        if None in sides:
            shorter = source if sides[0] is None else target
            raise ValueError(f"{shorter} ends before line {number}, the other file goes on; make them the same length.")
        yield Example(*sides)


def is_parallel(spec: str) -> bool:
    """Whether two files are named as A,B."""
    return "," in spec and not Path(spec).exists()


def is_json(path: Path) -> bool:
    """Whether a file holds JSON lines, by its name."""
    return path.name.removesuffix(".gz").endswith((".jsonl", ".json"))


def tsv_pair(line: str, place: str, *, columns: tuple[int, int] = (1, 2), exact: bool = True) -> Example:
    """The pair in two columns of a line, counted from 1.

    Args:
        exact: whether a line of more columns than two is refused.
    """
    cells = line.split("\t")
    if len(cells) < max(columns) or (len(cells) > 2 and exact):
        raise ValueError(
            f"{place}: {len(cells)} tab-separated columns, 2 are wanted (source, target); for other "
            "columns say data.source=1 data.target=3, for two parallel files A,B."
        )
    return Example(cells[columns[0] - 1], cells[columns[1] - 1])


def json_pair(line: str, place: str, *, names: tuple[str, str] = ("source", "target")) -> Example:
    """The pair in two fields of a JSON object, and its alignment where it has one."""
    record = _record(line, place)
    source, target = (_field(record, name, place) for name in names)
    return Example(source, target, links_of(record.get("alignment"), source, target, place))


def _record(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # RecursionError: ten thousand brackets
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise ValueError(f"{place}: not JSON ({why}); one object a line is wanted.") from None
    if not isinstance(record, dict):
        raise ValueError(f"{place}: a JSON {type(record).__name__}, one object a line is wanted.")
    return record


def _field(record: dict[str, Any], name: str, place: str) -> str:
    text = record.get(name)
    if not isinstance(text, str):
        raise ValueError(
            f"{place}: no text field {name!r} (found: {', '.join(record)}); say data.source and data.target."
        )
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(
            f"{place}: field {name!r} holds half a surrogate pair, which is no character; write all of it."
        )
    return text


def links_of(written: Any, source: str, target: str, place: str) -> WordLinks | None:
    """Pharaoh's `i-j` over space-separated words, counted from 0, as links; None where nothing is written."""
    if written is None:
        return None
    sides = [_word_spans(source), _word_spans(target)]
    words = []
    for pair in str(written).split():
        i, _, j = pair.partition("-")
        if not (i.isdecimal() and j.isdecimal() and int(i) < len(sides[0]) and int(j) < len(sides[1])):
            raise ValueError(f"{place}: alignment {pair!r} is no i-j inside {len(sides[0])} and {len(sides[1])} words.")
        words.append((*sides[0][int(i)], *sides[1][int(j)]))
    return WordLinks(np.array(words, np.int32).reshape(-1, 4))


def _word_spans(line: str) -> list[tuple[int, int]]:
    spans, start = [], 0
    for word in line.split(" "):
        if word:
            spans.append((start, start + len(word)))
        start += len(word) + 1
    return spans
