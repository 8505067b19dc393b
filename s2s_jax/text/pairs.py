"""Pairs parsed from lines of TSV and JSON, and streams of pairs from files that may be endless."""

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from s2s_jax.text.data_report import DataReport
from s2s_jax.text.example import Example, WordLinks
from s2s_jax.text.files import is_blank, raw_lines, stream_lines

LINK = re.compile("(?P<source>[0-9]{1,9})(?P<kind>[-p])(?P<target>[0-9]{1,9})")
_Line = TypeVar("_Line", str, str | None)


def stream_pairs(
    spec: str,
    *,
    stdin: Iterable[bytes],
    source: str = "",
    target: str = "",
    encoding_errors: str = "strict",
    report: DataReport | None = None,
) -> Iterator[Example]:
    """The pairs of a TSV or JSON-lines file, or of two parallel files as A,B, one at a time; TSV from stdin if empty.

    Args:
        source, target: columns of TSV by number, or fields of JSON, as in `data.source` and `data.target`.
        encoding_errors: strict, replace or skip: what to do with a line that is not UTF-8.
        report: counts the lines that were replaced or skipped.

    Raises:
        FileNotFoundError, ValueError: with file and line where data is at fault.
    """

    def lines(raw: Iterable[bytes], name: str) -> Iterator[str | None]:
        return stream_lines(raw, name, encoding_errors=encoding_errors, report=report)

    if spec and is_parallel(spec):
        first, second = spec.split(",", 1)
        sides = [lines(raw_lines(Path(name)), name) for name in (first, second)]
        return _stream_parallel(*sides, names=(first, second))
    name, raw = (spec, raw_lines(Path(spec))) if spec else ("stdin", stdin)
    if spec and is_json(Path(spec)):
        parse = functools.partial(parse_json_line, names=(source or "source", target or "target"))
    else:
        columns = column_number("source", source, 1), column_number("target", target, 2)
        parse = functools.partial(parse_tsv_line, columns=columns, exact=not (source or target))
    numbered = without_trailing_blank(lines(raw, name))
    return (parse(line, f"{name}:{number}") for number, line in numbered if line is not None)


def _stream_parallel(
    source: Iterator[str | None], target: Iterator[str | None], *, names: tuple[str, str]
) -> Iterator[Example]:
    end = object()  # a line that is skipped is None
    for number, sides in enumerate(itertools.zip_longest(source, target, fillvalue=end), 1):
        if end in sides:
            raise ValueError(
                f"{names[sides.index(end)]} ends before line {number}, the other file does not; make them the same "
                "length."
            )
        if None not in sides:
            yield Example(*sides)  # type: ignore[arg-type]


def without_trailing_blank(lines: Iterable[_Line]) -> Iterator[tuple[int, _Line]]:
    """Each line of TSV or JSON with its number; blank ones at the end of a file are no records and are left out."""
    waiting = []
    for numbered in enumerate(lines, 1):
        waiting.append(numbered)
        if not is_blank_record(numbered[1]):
            yield from waiting
            waiting = []


def is_blank_record(line: str | None) -> bool:
    """Whether a line holds nothing; a tab alone is a pair with blank sides, and a skipped line is None."""
    return line is not None and "\t" not in line and is_blank(line)


def is_parallel(spec: str) -> bool:
    """Whether a spec names two files as A,B: it has a comma and is not itself a file."""
    return "," in spec and not Path(spec).exists()


def is_json(path: Path) -> bool:
    """Whether a file has the name of JSON lines: .json or .jsonl, perhaps with .gz."""
    return path.name.removesuffix(".gz").endswith((".jsonl", ".json"))


def column_number(side: str, value: str, default: int) -> int:
    """The column of TSV, from 1, that `data.source` or `data.target` names.

    Raises:
        ValueError: it is no number of a column.
    """
    if value and not (value.isdecimal() and int(value) > 0):
        raise ValueError(f"data.{side} names a column of a TSV file by number (1 is the first), got {value!r}")
    return int(value or default)


def parse_tsv_line(line: str, place: str, *, columns: tuple[int, int] = (1, 2), exact: bool = True) -> Example:
    """The pair in two columns of a line, counted from 1.

    Args:
        place: file and line, for errors.
        exact: whether a line with more than two columns is refused.

    Raises:
        ValueError: it has too few columns, or more than two.
    """
    cells = line.split("\t")
    if len(cells) < max(columns) and not exact:
        raise ValueError(
            f"{place}: {len(cells)} tab-separated column{'s' * (len(cells) > 1)}, and column {max(columns)} is wanted "
            f"(source is column {columns[0]}, target column {columns[1]}); set data.source and data.target to columns "
            "that every line has."
        )
    if len(cells) < max(columns) or (len(cells) > 2 and exact):
        raise ValueError(
            f"{place}: {len(cells)} tab-separated column{'s' * (len(cells) > 1)}, 2 are wanted (source, target); for "
            "other columns set data.source=1 data.target=3, for two parallel files name them as A,B."
        )
    return Example(cells[columns[0] - 1], cells[columns[1] - 1])


def parse_json_line(line: str, place: str, *, names: tuple[str, str] = ("source", "target")) -> Example:
    """The pair in two fields of a JSON object, and its alignment where it has one.

    Raises:
        ValueError: the line is not a JSON object with these fields, or its alignment is no alignment.
    """
    record = _record(line, place)
    source, target = (_field(record, name, place) for name in names)
    return Example(source, target, parse_alignment(record.get("alignment"), source, target, place))


def _record(line: str, place: str) -> dict[str, Any]:
    if is_blank_record(line):
        raise ValueError(f"{place}: a blank line, one object per line is wanted; remove it.")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # RecursionError: ten thousand brackets
        why = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise ValueError(f"{place}: not JSON ({why}); one object per line is wanted.") from None
    if not isinstance(record, dict):
        raise ValueError(f"{place}: a JSON {type(record).__name__}, one object per line is wanted.")
    return record


def _field(record: dict[str, Any], name: str, place: str) -> str:
    text = record.get(name)
    if not isinstance(text, str):
        raise ValueError(
            f"{place}: no text field {name!r} (found: {', '.join(record)}); set data.source and data.target."
        )
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(
            f"{place}: field {name!r} holds half a surrogate pair, which is not a character; write both halves."
        )
    return text


def parse_alignment(alignment: Any, source: str, target: str, place: str) -> WordLinks | None:
    """The links of an alignment over space-separated words, counted from 0; None for None.

    `i-j` (Pharaoh) is a sure link of source word i and target word j, `ipj` a possible one.

    Raises:
        ValueError: it has another form, or names words that are not there.
    """
    if alignment is None:
        return None
    sides = [word_spans(source), word_spans(target)]
    words, sure = [], []
    for link in str(alignment).split():
        match = LINK.fullmatch(link)
        if match is None or not (int(match["source"]) < len(sides[0]) and int(match["target"]) < len(sides[1])):
            raise ValueError(
                f"{place}: alignment {link!r} is no i-j (sure) or ipj (possible) inside {len(sides[0])} and "
                f"{len(sides[1])} words."
            )
        words.append((*sides[0][int(match["source"])], *sides[1][int(match["target"])]))
        sure.append(match["kind"] == "-")
    return WordLinks(np.array(words, np.int32).reshape(-1, 4), np.array(sure, bool))


def word_spans(line: str) -> list[tuple[int, int]]:
    """The first character of each space-separated word, and the one after its last."""
    spans, start = [], 0
    for word in line.split(" "):
        if word:
            spans.append((start, start + len(word)))
        start += len(word) + 1
    return spans
