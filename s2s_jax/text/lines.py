"""What are the lines of a text file? Bytes cut at `\\n` and nowhere else, decoded strictly.

Python's own notion of a line also ends at U+2028, U+0085 and six more; two files that `wc -l` counts alike then fall out
of step, silently. Here a line is what `wc -l` counts.
"""

import gzip
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from s2s_jax.text.report import Report

BOM = b"\xef\xbb\xbf"
INVISIBLE = frozenset("\u200b\u200c\u200d\u2060\ufeff")  # zero-width characters that `isspace` does not count
POLICIES = ("strict", "replace", "skip")


def read_lines(path: Path, report: Report, *, encoding_errors: str = "strict") -> list[str | None]:
    """All lines of a plain or gzipped UTF-8 file, without their ends; None for a line that a policy skips.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no UTF-8 text, with the line, the byte and what it looks like instead.
    """
    raw = list(_raw_lines(path))
    if raw and raw[0].startswith(BOM):
        raw[0] = raw[0].removeprefix(BOM)
        report.add("byte order mark at the start, taken off", f"{path}:1")
    ends = sum(line.endswith(b"\r") for line in raw)
    if ends and ends == len(raw):
        raw = [line[:-1] for line in raw]
    elif ends:
        first = next(number for number, line in enumerate(raw, 1) if line.endswith(b"\r"))
        report.add(f"mixed line ends ({ends} of {len(raw)} lines end in CR LF): the CR was kept", f"{path}:{first}")
    return [_decoded(line, path, number, encoding_errors, report) for number, line in enumerate(raw, 1)]


def _raw_lines(path: Path) -> Iterator[bytes]:
    if path.is_dir():
        raise ValueError(f"{path} is a directory; a text file is wanted.")
    if not path.exists():
        raise FileNotFoundError(f"no file {path}; give the path of a text file (plain or .gz).")
    opened = gzip.open(path) if path.suffix == ".gz" else path.open("rb")
    with opened as file:
        try:
            for number, line in enumerate(file, 1):
                if number == 1:
                    _refuse_other_formats(path, line)
                yield line.removesuffix(b"\n")
        except (gzip.BadGzipFile, EOFError) as error:
            raise ValueError(f"{path} is not a whole gzip file ({error}); pack it again.") from None


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if start.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path} is gzip; name it {path.name}.gz and it will be unpacked.")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(start) > 3 and start[:64].count(b"\0") * 3 > len(start[:64])):
        raise ValueError(f"{path} is UTF-16 or binary, not UTF-8 text; convert it: iconv -f utf-16 -t utf-8.")


def _decoded(line: bytes, path: Path, number: int, policy: str, report: Report) -> str | None:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = line[error.start : error.start + 4].hex(" ")
        if policy == "strict":
            raise ValueError(
                f"{path}:{number}: byte {error.start} is not UTF-8 (hex {bad}); convert the file (latin-1? "
                "iconv -f latin1 -t utf-8) or say data.encoding_errors=replace or skip."
            ) from None
        report.add(f"line that is not UTF-8 ({policy})", f"{path}:{number}")
        return line.decode("utf-8", errors="replace") if policy == "replace" else None
    if "\r" in text.removesuffix("\r"):
        report.add("CR inside a line, kept as a character", f"{path}:{number}")
    return text


def is_blank(line: str) -> bool:
    """True for a line in which nothing can be seen: empty, any white space, zero-width characters."""
    return all(character.isspace() or character in INVISIBLE for character in line)


def has_control(line: str) -> bool:
    """True where a line holds a control character (NUL and its like) that is no white space."""
    return any(unicodedata.category(character) == "Cc" and not character.isspace() for character in line)
