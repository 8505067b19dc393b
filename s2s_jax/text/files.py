"""Lines of text files: bytes split at `\\n` and nowhere else, decoded strictly.

Python's `splitlines` also splits at U+2028, U+0085 and six more characters, and two files of equal length according to
`wc -l` would silently no longer be parallel. Here a line is what `wc -l` counts.
"""

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from s2s_jax.text.data_report import DataReport

BOM = b"\xef\xbb\xbf"
# zero-width characters that `isspace` does not count: soft hyphen, joiners, marks of direction, byte order mark
INVISIBLE = frozenset("\u00ad\u034f\u061c\u180e\ufeff").union(
    map(chr, (*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)))
)
VISIBLE = re.compile(rf"[^\s{''.join(map(re.escape, sorted(INVISIBLE)))}]")  # \s is what `isspace` counts
CONTROL = re.compile("[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")  # Unicode's Cc without what Python considers white space
# how files begin that are not plain text, and how to make plain text of them
MAGIC_BYTES = {
    b"\x1f\x8b": ("gzip", "rename it to {name}.gz and it will be unpacked"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
    b"BZh91AY&SY": ("bzip2", "unpack it first"),
    b"\xfd7zXZ\0": ("xz", "unpack it first"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unpack it first"),
    b"\xff\xfe\0\0": ("UTF-32", "convert it: iconv -f utf-32 -t utf-8"),  # before UTF-16, whose mark begins alike
    b"\0\0\xfe\xff": ("UTF-32", "convert it: iconv -f utf-32 -t utf-8"),
    b"\xff\xfe": ("UTF-16", "convert it: iconv -f utf-16 -t utf-8"),
    b"\xfe\xff": ("UTF-16", "convert it: iconv -f utf-16 -t utf-8"),
}
EncodingErrors = Literal["strict", "replace", "skip"]


def read_lines(path: Path, report: DataReport, *, encoding_errors: str = "strict") -> Iterator[str | None]:
    """The lines of a plain or gzipped UTF-8 file, without their ends, as they are read; None for one that is skipped.

    Args:
        encoding_errors: strict, replace or skip: what to do with a line that is not UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8 text, with the line, the byte and the format that it seems to have.
    """
    lines = _without_ends(raw_lines(path), path, report)
    for number, line in enumerate(lines, 1):
        if number == 1 and line.startswith(BOM):
            report.add("byte order mark at the start, removed", f"{path}:1")
            line = line.removeprefix(BOM)
        yield _decode(line, path, number, encoding_errors, report)


def stream_lines(
    raw: Iterable[bytes], name: str, *, encoding_errors: str = "strict", report: DataReport | None = None
) -> Iterator[str | None]:
    """Lines without their ends, as they arrive, by the same rule as `read_lines`: `\\n` or `\\r\\n` is an end.

    Args:
        encoding_errors: strict, replace or skip: what to do with a line that is not UTF-8; a skipped one is None.
        report: counts the lines that were replaced or skipped.

    Raises:
        ValueError: a line is not UTF-8, with its number.
    """
    report = DataReport() if report is None else report
    for number, line in enumerate(raw, 1):
        if number == 1:
            line = line.removeprefix(BOM)
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        yield _decode(line, Path(name), number, encoding_errors, report)


def _without_ends(raw: Iterable[bytes], path: Path, report: DataReport) -> Iterator[bytes]:
    """The lines without `\\n` or `\\r\\n`; at the end of the file mixed ends are reported."""
    number = returns = first = 0
    line = b"\n"
    for number, line in enumerate(raw, 1):
        text = line.removesuffix(b"\n")
        if text.endswith(b"\r"):
            returns, first = returns + 1, first or number
            text = text.removesuffix(b"\r")
        yield text
    unended = not line.endswith((b"\n", b"\r"))  # a last line without an end does not count
    if 0 < returns < number - unended:
        share = f"{returns} of {number} lines end in CR LF"
        report.add(f"mixed line ends ({share}): the CR was removed", f"{path}:{first}")


def raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a plain or gzipped file with their ends, one at a time."""
    if path.is_dir():
        raise ValueError(f"{path} is a directory; a text file is wanted.")
    if not path.exists():
        raise FileNotFoundError(f"no file {path}; give the path of a text file (plain or .gz).")
    open_file = gzip.open if path.suffix == ".gz" else open
    with open_file(path, "rb") as file:
        try:
            for number, line in enumerate(file, 1):
                if number == 1:
                    _refuse_other_formats(path, line)
                yield line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a complete gzip file ({error}); compress it again.") from None
        except OSError as error:  # an error while reading names no file
            raise OSError(error.errno, error.strerror, str(path)) from None


def _refuse_other_formats(path: Path, start: bytes) -> None:
    for magic, (name, remedy) in MAGIC_BYTES.items():
        if start.startswith(magic):
            raise ValueError(f"{path} is {name}, not UTF-8 text; {remedy.format(name=path.name)}.")
    zeros = start[:64].count(b"\0") / max(1, len(start[:64]))
    if len(start) > 3 and zeros > 1 / 3:  # of letters of Latin scripts half the bytes are 0 in UTF-16, 3/4 in UTF-32
        width = 32 if zeros > 2 / 3 else 16
        raise ValueError(f"{path} is UTF-{width} or binary, not UTF-8 text; convert it: iconv -f utf-{width} -t utf-8.")


def _decode(line: bytes, path: Path, number: int, policy: str, report: DataReport) -> str | None:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = line[error.start : error.start + 4].hex(" ")
        if policy == "strict":
            raise ValueError(
                f"{path}:{number}: byte {error.start} is not UTF-8 (hex {bad}); convert the file (latin-1? "
                "iconv -f latin1 -t utf-8) or set data.encoding_errors=replace or skip."
            ) from None
        report.add(f"line that is not UTF-8 ({policy})", f"{path}:{number}")
        return line.decode("utf-8", errors="replace") if policy == "replace" else None
    if "\r" in text:
        report.add("CR inside a line, kept as a character", f"{path}:{number}")
    return text


def is_blank(line: str) -> bool:
    """True if no character of a line is visible: it is empty, or white space and zero-width characters."""
    return VISIBLE.search(line) is None


def has_control(line: str) -> bool:
    """True if a line holds a control character (NUL and the like) that is not white space."""
    return not line.isprintable() and CONTROL.search(line) is not None
