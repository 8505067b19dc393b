"""Readers of whole files of pairs: TSV, JSON lines, parallel files, targets alone, and alignments in a separate file.

Each reader gives every pair with its place, `file:line`, and None for a line that `data.encoding_errors=skip` skips.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from s2s_jax.text.data_report import DataReport
from s2s_jax.text.example import Example
from s2s_jax.text.files import read_lines
from s2s_jax.text.pairs import parse_alignment, parse_json_line, parse_tsv_line, without_trailing_blank

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


def read_tsv(
    path: Path, report: DataReport, *, encoding_errors: str, columns: tuple[int, int], exact: bool
) -> Iterator[Placed | None]:
    """One pair per line, in two columns, counted from 1; `exact` refuses lines of more than two columns."""
    if columns[0] == columns[1]:
        raise ValueError(f"source and target are both column {columns[0]} of {path}; set data.source=1 data.target=2.")
    for number, line in _records(path, report, encoding_errors):
        place = f"{path}:{number}"
        pair = None if line is None else parse_tsv_line(line, place, columns=columns, exact=exact)
        if number == 1 and pair and _are_column_names(pair):
            report.add("first line that may be a header, used as a pair (remove it if it is one)", place)
        yield None if pair is None else (pair, place)


def read_json_lines(
    path: Path, report: DataReport, *, encoding_errors: str, names: tuple[str, str]
) -> Iterator[Placed | None]:
    """One pair per line, in two fields of a JSON object."""
    for number, line in _records(path, report, encoding_errors):
        place = f"{path}:{number}"
        yield None if line is None else (parse_json_line(line, place, names=names), place)


def _records(path: Path, report: DataReport, encoding_errors: str) -> Iterator[tuple[int, str | None]]:
    """The lines of TSV or JSON with their numbers; blank lines at the end are reported and left out."""
    lines = read_lines(path, report, encoding_errors=encoding_errors)
    number = 0
    for number, line in without_trailing_blank(lines):
        yield number, line
    for blank in range(number + 1, len(lines) + 1):
        report.add("blank line at the end, ignored", f"{path}:{blank}")


def _are_column_names(pair: Example) -> bool:
    names = pair.source.strip().lower(), pair.target.strip().lower()
    return names[0] != names[1] and COLUMN_NAMES.issuperset(names)


def read_parallel(spec: str, report: DataReport, *, encoding_errors: str) -> Iterator[Placed | None]:
    """One pair per line number of two files, named as A,B."""
    names = spec.split(",")
    if len(names) != 2 or not all(names):
        raise ValueError(f"two parallel files are wanted as A,B, got {spec!r}.")
    paths = [Path(name) for name in names]
    sides = [read_lines(path, report, encoding_errors=encoding_errors) for path in paths]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(_unequal(paths, sides))
    for number, (source, target) in enumerate(zip(*sides, strict=True), 1):
        if source is None or target is None:
            yield None
        else:
            yield Example(source, target), f"{paths[0]}:{number}"


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
    pairs, lines = list(placed), read_lines(path, report)
    if len(pairs) != len(lines):
        raise ValueError(
            f"{path} has {len(lines)} lines, {pairs_file} has {len(pairs)}; one line per pair is wanted, an empty one "
            "where nothing is aligned."
        )
    for number, (pair, line) in enumerate(zip(pairs, lines, strict=True), 1):
        if pair is None:
            yield None
        else:
            example, place = pair
            links = parse_alignment(line, example.source, example.target, f"{path}:{number}")
            yield example._replace(links=links), place


def _unequal(paths: list[Path], sides: list[list[str | None]]) -> str:
    """Why two files do not pair up: both counts, the probable start of the shift, and the usual cause."""
    counts = [len(side) for side in sides]
    text = f"{paths[0]} has {counts[0]} lines, {paths[1]} has {counts[1]}; "
    pieces = [[len((line or "").splitlines()) or 1 for line in side] for side in sides]
    if sum(pieces[0]) == sum(pieces[1]):
        first = min(next((n for n, count in enumerate(side, 1) if count > 1), max(counts)) for side in pieces)
        text += (
            f"from line {first} on, one was probably split elsewhere at U+2028 or the like; here only \\n ends a line"
        )
    else:
        text += f"the shift probably starts near line {_first_shift(*sides)}"
    return text + "; make them the same length."


def _first_shift(left: list[str | None], right: list[str | None]) -> int:
    """The line where the longer side has extra ones: before it lengths fit line by line, after it with an offset."""
    longer, shorter = ([1 + len(line or "") for line in side] for side in sorted((left, right), key=len, reverse=True))
    ratio = sum(longer) / max(1, sum(shorter))
    extra = len(longer) - len(shorter)
    unshifted = [abs(math.log(a / b / ratio)) for a, b in zip(longer, shorter, strict=False)]
    shifted = [abs(math.log(a / b / ratio)) for a, b in zip(longer[extra:], shorter, strict=True)]
    before = itertools.accumulate(unshifted, initial=0.0)
    after = [sum(shifted) - partial for partial in itertools.accumulate(shifted, initial=0.0)]
    misfits = [a + b for a, b in zip(before, after, strict=True)]
    return 1 + misfits.index(min(misfits))
