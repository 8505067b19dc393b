"""Pairs parsed from lines of TSV and JSON, and streams of pairs from files that may be endless."""

import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
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
    features: Sequence[str] = (),
    encoding_errors: str = "strict",
    report: DataReport | None = None,
) -> Iterator[Example]:
    """The pairs of a TSV or JSON-lines file, or of parallel files as A,B, one at a time; TSV from stdin if empty.

    Args:
        source, target: columns of TSV by number, or fields of JSON, as in `data.source` and `data.target`.
        features: the same of each feature, as in `data.features`; parallel files need only have as many.
        encoding_errors: strict, replace or skip: what to do with a line that is not UTF-8.
        report: counts the lines that were replaced or skipped.

    Raises:
        FileNotFoundError, ValueError: with file and line where data is at fault.
    """

    def lines(raw: Iterable[bytes], name: str) -> Iterator[str | None]:
        return stream_lines(raw, name, encoding_errors=encoding_errors, report=report)

    if spec and is_parallel(spec):
        files = parallel_files(spec, features)
        return _stream_parallel([lines(raw_lines(Path(name)), name) for name in files], files)
    name, raw = (spec, raw_lines(Path(spec))) if spec else ("stdin", stdin)
    if spec and is_json(Path(spec)):
        parse = functools.partial(parse_json_line, names=field_names(source, target, features))
    else:
        columns = column_numbers(source, target, features)
        parse = functools.partial(parse_tsv_line, columns=columns, exact=not (source or target or features))
    numbered = without_trailing_blank(lines(raw, name))
    return (parse(line, f"{name}:{number}") for number, line in numbered if line is not None)


def _stream_parallel(sides: Sequence[Iterator[str | None]], names: Sequence[str]) -> Iterator[Example]:
    end = object()  # a line that is skipped is None
    for number, texts in enumerate(itertools.zip_longest(*sides, fillvalue=end), 1):
        if end in texts:
            others = "the other file does" if len(names) == 2 else "other files do"
            raise ValueError(
                f"{names[texts.index(end)]} ends before line {number}, {others} not; make them the same length."
            )
        if None not in texts:
            yield example_of(texts)  # type: ignore[arg-type]


def example_of(texts: Sequence[str]) -> Example:
    """The example of a source, its target, and its features."""
    return Example(texts[0], texts[1], features=tuple(texts[2:]))


def parallel_files(spec: str, features: Sequence[str] = ()) -> list[str]:
    """The files that a spec names: source, target, and one per feature.

    Raises:
        ValueError: there are more or fewer.
    """
    names = spec.split(",")
    if len(names) == 2 + len(features) and all(names):
        return names
    if len(names) > 2 and all(names):
        raise ValueError(
            f"{spec} names {len(names)} parallel files, {2 + len(features)} are wanted (source, target, and one per "
            f"name of data.features={','.join(features) or '[]'}); give data.features as many names."
        )
    more = f", and {len(features)} more for data.features={','.join(features)}" if features else ""
    raise ValueError(f"two parallel files are wanted as A,B{more}, got {spec!r}.")


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


def column_numbers(source: str, target: str, features: Sequence[str] = ()) -> tuple[int, ...]:
    """The columns of source, target and features in a TSV file.

    Raises:
        ValueError: one of them is no number of a column.
    """
    sides = column_number("source", source, 1), column_number("target", target, 2)
    return *sides, *(column_number("features", name, 3) for name in features)


def field_names(source: str, target: str, features: Sequence[str] = ()) -> tuple[str, ...]:
    """The fields of source, target and features in JSON lines."""
    return source or "source", target or "target", *features


def parse_tsv_line(line: str, place: str, *, columns: tuple[int, ...] = (1, 2), exact: bool = True) -> Example:
    """The pair in two columns of a line, counted from 1, with its features in further ones.

    Args:
        place: file and line, for errors.
        exact: whether a line with more than two columns is refused.

    Raises:
        ValueError: it has too few columns, or more than two.
    """
    cells = line.split("\t")
    if len(cells) < max(columns) and not exact:
        features = f", features {', '.join(map(str, columns[2:]))}" if columns[2:] else ""
        settings = "data.source, data.target and data.features" if features else "data.source and data.target"
        raise ValueError(
            f"{place}: {len(cells)} tab-separated column{'s' * (len(cells) > 1)}, and column {max(columns)} is wanted "
            f"(source is column {columns[0]}, target column {columns[1]}{features}); set {settings} to columns that "
            "every line has."
        )
    if len(cells) < max(columns) or (len(cells) > 2 and exact):
        raise ValueError(
            f"{place}: {len(cells)} tab-separated column{'s' * (len(cells) > 1)}, 2 are wanted (source, target); for "
            "other columns set data.source=1 data.target=3, for two parallel files name them as A,B."
        )
    return example_of([cells[column - 1] for column in columns])


def parse_json_line(line: str, place: str, *, names: tuple[str, ...] = ("source", "target")) -> Example:
    """The pair in two fields of a JSON object, its features in further ones, and its alignment where it has one.

    Raises:
        ValueError: the line is not a JSON object with these fields, or its alignment is no alignment.
    """
    record = _record(line, place)
    source, target = (_field(record, name, place) for name in names[:2])
    features = (_field(record, name, place, "data.features") for name in names[2:])
    links = parse_alignment(record.get("alignment"), source, target, place)
    return Example(source, target, links, tuple(features))


def parse_inputs(line: str, place: str, names: Sequence[str], *, is_json: bool) -> list[str]:
    """The source of a line without a target, and its features: columns of TSV, or fields of JSON with these names.

    Raises:
        ValueError: the line has another number of columns, or not all fields.
    """
    if is_json:
        record = _record(line, place)
        return [_field(record, name, place, "data.source and data.features") for name in names]
    cells = line.split("\t")
    if len(cells) != len(names):
        raise ValueError(
            f"{place}: {len(cells)} tab-separated column{'s' * (len(cells) > 1)}, {len(names)} are wanted: the source "
            f"and its features, in the order of data.features={','.join(names[1:])}."
        )
    return cells


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


def _field(record: dict[str, Any], name: str, place: str, settings: str = "data.source and data.target") -> str:
    text = record.get(name)
    if not isinstance(text, str):
        raise ValueError(f"{place}: no text field {name!r} (found: {', '.join(record)}); set {settings}.")
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
