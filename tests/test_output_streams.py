"""Row 50 of the faults, for every command but training: no stream, file or path ends in a traceback."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s2s_jax.text.files import raw_lines

FORKED = Path(__file__).parent / "forked.py"


def in_processes(cases: list[list]) -> list[list]:
    """Exit code, stdout and stderr of each [words, stdin, stdout]."""
    environment = {**os.environ, "PYTHONPATH": f"{FORKED.parent.parent}"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(FORKED)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_printed_to_nobody_or_to_a_full_disk_is_no_traceback(trained_run, tmp_path):
    """`| head` ends a command without a word, a full disk and a closed stdout are one line.

    Each way of printing once: line by line, at the end, by a console, by the parser of the arguments.
    """
    lines, run, nothing = tmp_path / "lines", str(trained_run), os.devnull
    lines.write_text("a b\n")
    cases = [
        [["translate", run], str(lines), "left"],
        [["translate", run], str(lines), "full"],
        [["translate", run], str(lines), "closed"],
        [["info", run], nothing, "full"],
        [["info", run], nothing, "closed"],
        [["export", run, str(tmp_path / "out"), "--parameters-only"], nothing, "left"],
        [["attention"], nothing, "left"],
        [["attention"], nothing, "full"],
        [["completion", "bash"], nothing, "full"],
        [["checkpoint", "verify", run], nothing, "left"],
        [["checkpoint", "verify", run], nothing, "full"],
        [["sweep", "plan", "scores"], nothing, "closed"],
        [["--version"], nothing, "left"],
        [["--version"], nothing, "full"],
        [["translate", "--help"], nothing, "full"],
    ]
    expected = {
        "left": [0, "", ""],
        "full": [2, "", "s2s: stdout: no space left on device\n"],
        "closed": [2, "", "s2s: stdout is closed, and the answer would be lost; send it to a file, or to /dev/null\n"],
    }
    for (words, _, stdout), found in zip(cases, in_processes(cases), strict=True):
        assert found == expected[stdout], (words[0], stdout)


@pytest.mark.parametrize("command", ["translate", "score", "evaluate", "info", "align", "export"])
@pytest.mark.parametrize("path", ["FILE", "FILE/x", "/proc/self", "/proc/self/mem", "", "x" * 5000])
def test_a_run_that_is_none_is_one_line(s2s, tmp_path, command, path):
    file = tmp_path / "file"
    file.write_text("x")
    more = [str(tmp_path / "out")] * (command == "export")
    code, out, errors = s2s(command, path.replace("FILE", str(file)), *more)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    if path == "FILE":
        assert errors == f"s2s: {file} is a file; give the directory of a trained run\n"


@pytest.mark.parametrize(
    "words",
    [
        ("translate", "RUN", "--input"),
        ("translate", "RUN", "--prefix"),
        ("score", "RUN", "--input"),
        ("score", "RUN", "--n-best"),
        ("align", "RUN", "--input"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(s2s, trained_run, tmp_path, monkeypatch, words):
    """`/proc/self/mem` opens, and fails when it is read; a file without permission fails when it is opened."""
    monkeypatch.setattr(sys, "stdin", None)
    words = [str(trained_run) if word == "RUN" else word for word in words]
    for path in ("/proc/self/mem", str(tmp_path), str(tmp_path / "absent")):
        extra = ["--input", os.devnull] if "--prefix" in words else []
        code, out, errors = s2s(*words, path, *extra)
        assert (code, out, errors.count("\n")) == (2, "", 1), path
        assert path in errors


def test_a_closed_stdin_is_one_line(s2s, trained_run, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    for command in ("translate", "score"):
        code, out, errors = s2s(command, str(trained_run))
        assert (code, out) == (2, "")
        assert errors == "s2s: stdin is closed; give the lines with --input FILE\n"


@pytest.mark.parametrize("path", ["/proc/x", "/proc/self/mem", "FILE/x"])
def test_what_cannot_be_written_is_one_line(s2s, trained_run, tmp_path, path):
    file = tmp_path / "file"
    file.write_text("x")
    path = path.replace("FILE", str(file))
    for words in (
        ["export", str(trained_run), path, "--parameters-only"],
        ["align", str(trained_run), "--output", path],
    ):
        code, out, errors = s2s(*words, *["--count", "1"] * (words[0] == "align"))
        assert (code, out, errors.count("\n")) == (2, "", 1)
        assert path.removesuffix("/x") in errors


def test_an_error_while_reading_names_the_file():
    with pytest.raises(OSError, match="/proc/self/mem") as refused:
        list(raw_lines(Path("/proc/self/mem")))
    assert refused.value.errno == errno.EIO
