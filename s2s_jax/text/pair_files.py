"""Readers of whole files of pairs: TSV, JSON lines, parallel files, targets alone, and alignments in a separate file.

Each reader gives every pair with its place, `file:line`, and None for a line that `data.encoding_errors=skip` skips.
"""

import array
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from s2s_jax.text.data_report import DataReport
from s2s_jax.text.example import Example
from s2s_jax.text.files import read_lines
from s2s_jax.text.pairs import (
    example_of,
    parallel_files,
    parse_alignment,
    parse_json_line,
    parse_tsv_line,
    without_trailing_blank,
)

# what the first line of a TSV file has where it names the columns: names of sides, and codes and names of languages
_NAMES = (
    "source target src tgt trg input output x y question answer query response text summary sentence translation "
    "original reference word words pronunciation phonemes phones graphemes ipa command action lemma form inflection "
    "ar bg cs da de el en es et fa fi fr he hi hu id it ja ko lt lv nl no pl pt ro ru sk sl sv th tr uk vi zh "
    "arabic czech chinese dutch english finnish french german greek hindi italian japanese korean polish portuguese "
    "romanian russian spanish swedish turkish ukrainian vietnamese deutsch français español"
)
COLUMN_NAMES = frozenset(_NAMES.split())

Placed = tuple[Example, str]  # an example and its place, such as file:line
_END: Any = object()  # of a file; a line that is skipped is None


def read_tsv(
    path: Path, report: DataReport, *, encoding_errors: str, columns: tuple[int, ...], exact: bool
) -> Iterator[Placed | None]:
    """One pair per line, in two columns, counted from 1, and features in others; `exact` refuses lines of more."""
    if columns[0] == columns[1]:
        raise ValueError(f"source and target are both column {columns[0]} of {path}; set data.source=1 data.target=2.")
    if len(set(columns)) < len(columns):
        raise ValueError(
            f"source, target and features are columns {', '.join(map(str, columns))} of {path}; set data.source, "
            "data.target and data.features to different columns."
        )
    for number, line in _records(path, report, encoding_errors):
        place = f"{path}:{number}"
        pair = None if line is None else parse_tsv_line(line, place, columns=columns, exact=exact)
        if number == 1 and pair and _are_column_names(pair):
            report.add("first line that may be a header, used as a pair (remove it if it is one)", place)
        yield None if pair is None else (pair, place)


def read_json_lines(
    path: Path, report: DataReport, *, encoding_errors: str, names: tuple[str, ...]
) -> Iterator[Placed | None]:
    """One pair per line, in two fields of a JSON object, and features in others."""
    for number, line in _records(path, report, encoding_errors):
        place = f"{path}:{number}"
        yield None if line is None else (parse_json_line(line, place, names=names), place)


def _records(path: Path, report: DataReport, encoding_errors: str) -> Iterator[tuple[int, str | None]]:
    """The lines of TSV or JSON with their numbers; blank lines at the end are reported and left out."""
    lines = CountedLines(read_lines(path, report, encoding_errors=encoding_errors))
    number = 0
    for number, line in without_trailing_blank(lines):
        yield number, line
    for blank in range(number + 1, lines.count + 1):
        report.add("blank line at the end, ignored", f"{path}:{blank}")


class CountedLines:
    """Lines, and how many of them have been read."""

    def __init__(self, lines: Iterable[str | None]):
        self._lines, self.count = lines, 0

    def __iter__(self) -> Iterator[str | None]:
        for line in self._lines:
            self.count += 1
            yield line


def _are_column_names(pair: Example) -> bool:
    names = pair.source.strip().lower(), pair.target.strip().lower()
    return names[0] != names[1] and COLUMN_NAMES.issuperset(names)


def read_parallel(
    spec: str, report: DataReport, *, encoding_errors: str, features: Sequence[str] = ()
) -> Iterator[Placed | None]:
    """One pair per line number of two files, named as A,B, and one feature of each further file."""
    paths = [Path(name) for name in parallel_files(spec, features)]
    place = str(paths[0])
    sides = [read_lines(path, report, encoding_errors=encoding_errors) for path in paths]
    for number, texts in enumerate(itertools.zip_longest(*sides, fillvalue=_END), 1):
        if _END in texts:
            ended = [text is _END for text in texts]
            first, second = sorted((ended.index(True), ended.index(False)))
            raise ValueError(_unequal([paths[first], paths[second]], encoding_errors))
        yield None if None in texts else (example_of(texts), f"{place}:{number}")  # type: ignore[arg-type]


def read_targets(path: Path, report: DataReport, *, encoding_errors: str) -> Iterator[Placed | None]:
    """One target per line, with an empty source."""
    for number, line in enumerate(read_lines(path, report, encoding_errors=encoding_errors), 1):
        yield None if line is None else (Example("", line), f"{path}:{number}")


def with_alignments(
    placed: Iterable[Placed | None], path: Path, report: DataReport, *, pairs_file: str
) -> Iterator[Placed | None]:
    """The pairs with links from a file of alignments, which has one line per line of the pairs' own file.

    Args:
        pairs_file: the setting of the pairs with its value, for errors.

    Raises:
        ValueError: the files differ in length, or a line is no alignment of its pair.
    """
    pairs, lines = iter(placed), read_lines(path, report)
    for number, (pair, line) in enumerate(itertools.zip_longest(pairs, lines, fillvalue=_END), 1):
        try:
            if pair is _END or line is _END:
                raise ValueError("one of the files has ended")
            if pair is None:
                yield None
            else:
                example, place = pair
                links = parse_alignment(line, example.source, example.target, f"{path}:{number}")
                yield example._replace(links=links), place
        except ValueError:
            counts = [number - (last is _END) + sum(1 for _ in rest) for last, rest in ((line, lines), (pair, pairs))]
            if counts[0] == counts[1]:
                raise
            raise ValueError(
                f"{path} has {counts[0]} lines, {pairs_file} has {counts[1]}; one line per pair is wanted, an empty "
                "one where nothing is aligned."
            ) from None


def _unequal(paths: list[Path], encoding_errors: str) -> str:
    """Why two files do not pair up: both counts, the probable start of the shift, and the usual cause."""
    sides = [_line_sizes(path, encoding_errors) for path in paths]
    counts = [len(side) for side in sides]
    if counts[0] == counts[1]:
        return f"{paths[0]} and {paths[1]} were changed while they were read, or are no files; start again on files."
    text = f"{paths[0]} has {counts[0]} lines, {paths[1]} has {counts[1]}; "
    pieces = [side[:, 1] for side in sides]
    if pieces[0].sum() == pieces[1].sum():
        first = min(int((side > 1).argmax()) + 1 if side.max(initial=0) > 1 else max(counts) for side in pieces)
        text += (
            f"from line {first} on, one was probably split elsewhere at U+2028 or the like; here only \\n ends a line"
        )
    else:
        text += f"the shift probably starts near line {_first_shift(*(side[:, 0] for side in sides))}"
    return text + "; make them the same length."


def _line_sizes(path: Path, encoding_errors: str) -> Int[np.ndarray, "N 2"]:
    """Of each line of a file the number of characters, and of lines that others would split it into."""
    sizes = array.array("q")
    for line in read_lines(path, DataReport(), encoding_errors=encoding_errors):
        sizes.extend((len(line or ""), len((line or "").splitlines()) or 1))
    return np.array(sizes, np.int64).reshape(-1, 2)


def _first_shift(left: Int[np.ndarray, " L"], right: Int[np.ndarray, " R"]) -> int:
    """The line where the longer side has extra ones: before it lengths fit line by line, after it with an offset."""
    longer, shorter = (1 + side for side in sorted((left, right), key=len, reverse=True))
    ratio = longer.sum() / max(1, shorter.sum())
    extra = len(longer) - len(shorter)
    unshifted = np.abs(np.log(longer[: len(shorter)] / shorter / ratio))
    shifted = np.abs(np.log(longer[extra:] / shorter / ratio))
    before, after = (np.concatenate([[0.0], np.cumsum(each)]) for each in (unshifted, shifted))
    return 1 + int((before + after[-1] - after).argmin())
