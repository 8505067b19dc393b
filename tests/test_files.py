import gzip
import io
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s_jax.text.data_report import DataReport
from s2s_jax.text.files import has_control, is_blank, read_lines, stream_lines

BOM = "\ufeff".encode()
LETTERS = [chr(code) for code in (*range(0x3100), *range(0xFE00, 0x10000))]  # all controls, spaces and joiners are here
# every character but \n at which str.splitlines splits
INNER = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r"]


@pytest.fixture
def file(tmp_path):
    """A function that writes bytes to a file and returns its path."""

    def write(data: bytes, name: str = "a.txt"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def read(path, **options):
    report = DataReport()
    return list(read_lines(path, report, **options)), report


def refusal(path, error=ValueError, **options) -> str:
    with pytest.raises(error) as refused:
        read(path, **options)
    text = str(refused.value)
    assert "\n" not in text
    return text.replace(str(path), "FILE")


@pytest.mark.parametrize("inner", INNER)
def test_nothing_but_a_line_feed_ends_a_line(file, inner):
    path = file(f"a{inner}b\nc\n".encode())
    lines, report = read(path)
    assert lines == [f"a{inner}b", "c"]
    assert report.counts == ({"CR inside a line, kept as a character": 1} if inner == "\r" else {})
    assert report.places == ({"CR inside a line, kept as a character": [f"{path}:1"]} if inner == "\r" else {})


@given(st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), min_size=1))
def test_lines_are_read_unchanged(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    # the first line shows that the file is text: without it, the file may look like UTF-16 or have a byte order mark
    path.write_bytes("".join(f"{line}\n" for line in ["first", *lines]).encode())
    assert read(path) == (["first", *lines], DataReport())


@pytest.mark.parametrize("end", ["\r\n", ""])
def test_cr_lf_is_an_end_where_all_lines_end_so(file, end):
    """A last line without an end does not make the ends mixed."""
    lines, report = read(file(f"a\r\nb\rc\r\nd{end}".encode()))
    assert lines == ["a", "b\rc", "d"]
    assert list(report.counts) == ["CR inside a line, kept as a character"]


def test_mixed_ends_are_removed_and_reported(file):
    path = file(b"a\nb\r\nc\r\nd\n")
    lines, report = read(path)
    assert lines == ["a", "b", "c", "d"]
    assert report.places == {"mixed line ends (2 of 4 lines end in CR LF): the CR was removed": [f"{path}:2"]}


@pytest.mark.parametrize("data", [b"a\nb\r\nc\r\nd", b"a\r\nb\r\n", b"a\r\r\nb\n", b"a\rb\nc\r", BOM + b"a\r\n\r\n"])
def test_training_and_translation_end_lines_by_one_rule(file, data):
    assert read(file(data))[0] == list(stream_lines(io.BytesIO(data), "x"))


def test_only_one_cr_is_part_of_an_end(file):
    lines, report = read(path := file(b"a\r\r\nb\r\n"))
    assert lines == ["a\r", "b"]
    assert report.places == {"CR inside a line, kept as a character": [f"{path}:1"]}


def test_a_byte_order_mark_is_removed_only_at_the_start(file):
    path = file(BOM + b"a\n" + BOM + b"b" + BOM + b"\n")
    lines, report = read(path)
    assert lines == ["a", "\ufeffb\ufeff"]
    assert report.places == {"byte order mark at the start, removed": [f"{path}:1"]}


LATIN = b"fine\ncaf\xe9 au lait\nend\n"


def test_what_is_not_utf_8_is_refused_with_file_line_byte_and_hex(file):
    """Latin-1 fails at its first accent."""
    assert refusal(file(LATIN)) == (
        "FILE:2: byte 3 is not UTF-8 (hex e9 20 61 75); convert the file (latin-1? iconv -f latin1 -t utf-8) or set "
        "data.encoding_errors=replace or skip."
    )


@pytest.mark.parametrize(("policy", "line"), [("replace", "caf\ufffd au lait"), ("skip", None)])
def test_what_is_not_utf_8_is_replaced_or_skipped_by_policy(file, policy, line):
    """A skipped line keeps its place, so that files stay parallel."""
    path = file(LATIN)
    lines, report = read(path, encoding_errors=policy)
    assert lines == ["fine", line, "end"]
    assert report.places == {f"line that is not UTF-8 ({policy})": [f"{path}:2"]}


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"PK\x03\x04\x14\x00", "a zip archive"),
        (b"BZh91AY&SY\x94", "bzip2"),
        (b"\xfd7zXZ\x00\x00\x04", "xz"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd"),
    ],
)
def test_compressed_files_are_recognized(file, start, name):
    assert refusal(file(start + b"x\n")) == f"FILE is {name}, not UTF-8 text; unpack it first."


def test_gzip_without_its_name_is_recognized(file):
    expected = "FILE is gzip, not UTF-8 text; rename it to a.txt.gz and it will be unpacked."
    assert refusal(file(gzip.compress(b"a\n"))) == expected


@pytest.mark.parametrize("end", ["", "-le", "-be"])
@pytest.mark.parametrize("codec", ["utf-16", "utf-32"])
def test_utf_16_and_utf_32_are_recognized_with_and_without_their_mark(file, codec, end):
    text = refusal(file("ein Haus\nein Hund\n".encode(codec + end)))
    assert text.startswith(f"FILE is {codec.upper()}")
    assert text.endswith(f"; convert it: iconv -f {codec} -t utf-8.")
    marked = refusal(file("\ufeffein Haus\n".encode(codec + (end or "-be"))))
    assert marked.startswith(f"FILE is {codec.upper()}, not UTF-8 text")


def test_one_nul_in_a_line_does_not_make_it_binary(file):
    """It is read, and dropped or kept by policy."""
    assert read(file(b"a line\0with a NUL\n"))[0] == ["a line\0with a NUL"]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_megabyte_in_one_line_is_read_and_the_last_line_counts(file, end):
    long = "a\u00e4 \u2028" * (1 << 17)
    started = time.monotonic()
    for name, pack in (("a.txt", bytes), ("a.txt.gz", gzip.compress)):
        assert read(file(pack(f"{long}\nlast{end}".encode()), name))[0] == [long, "last"]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("data", "lines"), [(b"", []), (b"\n", [""]), (b"\n\n", ["", ""]), (b"a", ["a"]), (BOM, [""])])
def test_files_without_characters(file, data, lines):
    assert read(file(data))[0] == lines
    assert read(file(gzip.compress(data), "a.gz"))[0] == lines


def test_a_plain_file_called_gz_is_refused(file):
    assert refusal(file(b"abc\n", "a.gz")).startswith("FILE is not a complete gzip file (Not a gzipped file")


@pytest.mark.parametrize("harm", [lambda data: data[:-9], lambda data: data[:40] + b"\xff" * 9 + data[49:]])
def test_a_damaged_gzip_file_is_refused(file, harm):
    whole = gzip.compress("".join(f"line {number}\n" for number in range(99)).encode())
    text = refusal(file(harm(whole), "a.gz"))
    assert text.startswith("FILE is not a complete gzip file (")
    assert text.endswith("); compress it again.")


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    missing = tmp_path / "none.txt"
    assert refusal(missing, FileNotFoundError) == "no file FILE; give the path of a text file (plain or .gz)."
    assert refusal(tmp_path) == "FILE is a directory; a text file is wanted."


def test_only_the_first_five_places_are_kept(file):
    path = file(b"a\rb\n" * 7)
    _, report = read(path)
    assert report.counts == {"CR inside a line, kept as a character": 7}
    assert report.places == {"CR inside a line, kept as a character": [f"{path}:{line}" for line in range(1, 6)]}
    report.read = report.kept = 7
    assert report.lines()[0] == "7 of 7 pairs kept"
    assert report.lines()[1].startswith(f"7 x CR inside a line, kept as a character ({path}:1, ")


@pytest.mark.parametrize(
    "line", ["", " ", "\t \r", "\u00a0", "\u3000\u2009", "\u200b", "\u200d\ufeff\u2060", "\u200e\u00ad"]
)
def test_a_line_of_invisible_characters_is_blank(line):
    assert is_blank(line)
    assert not is_blank(line + "." + line)


def test_only_invisible_characters_are_blank():
    """Those are white space and the invisible format characters of Unicode."""
    blank = {letter for letter in LETTERS if is_blank(letter)}
    assert {unicodedata.category(letter) for letter in blank} == {"Cc", "Cf", "Mn", "Zl", "Zp", "Zs", "Cn"}
    assert [letter for letter in blank if unicodedata.category(letter) == "Mn"] == ["\u034f"]  # the grapheme joiner


def test_control_characters_are_those_of_unicode_that_are_not_white_space():
    for letter in LETTERS:
        assert has_control(letter) == (unicodedata.category(letter) == "Cc" and not letter.isspace())
    assert has_control("a line with \0 in it")
    assert not has_control("a\tline\r")
