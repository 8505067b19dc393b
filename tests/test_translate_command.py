"""`s2s translate` and `s2s score` as programs use them: one answer per line, in time, and nothing lost at an error."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time

import pytest
from json_page import check_keys
from stdin import type_in

from s2s_jax.cli.stdin import ArrivingLines
from s2s_jax.decode.batching import windows


def test_translate_answers_each_line(s2s, trained_run, monkeypatch):
    type_in(monkeypatch, b"a b\n\nc\r\nd e")
    assert s2s("translate", str(trained_run)) == (0, "a b\n\nc\nd e\n", "")


def test_translate_as_json_gives_all(s2s, trained_run, monkeypatch):
    type_in(monkeypatch, b"a b\n\n")
    code, out, _ = s2s("translate", str(trained_run), "--json", "--beam", "2", "--n-best", "2")
    first, blank = map(json.loads, out.splitlines())
    assert code == 0
    assert (first["line"], first["translation"]) == (0, "a b")
    assert len(first["hypotheses"]) == 2
    assert (blank["line"], blank["hypotheses"]) == (1, [])
    for record in (first, blank):
        check_keys("translate", record)


def test_n_best_lines_have_the_number_of_their_input_line(s2s, trained_run, monkeypatch):
    """As Moses writes them, counted from 0; a blank line has one translation, which is blank."""
    type_in(monkeypatch, b"a b\n\nc ||| d\n")
    code, out, _ = s2s("translate", str(trained_run), "--beam", "3", "--n-best", "3")
    rows = [line.split(" ||| ") for line in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows] == ["0"] * 3 + ["1"] + ["2"] * 3
    assert rows[3] == ["1", "", "0.0000"]
    for number in ("0", "2"):
        scores = [float(row[-1]) for row in rows if row[0] == number]
        assert scores == sorted(scores, reverse=True)
    type_in(monkeypatch, b"a b\n")
    assert s2s("translate", str(trained_run), "--n-best", "1")[1].startswith("0 ||| a b ||| -0.")


def test_minimum_bayes_risk_shows_the_utility_that_it_ranks_by(s2s, trained_run, monkeypatch):
    """Equal samples are one hypothesis, so there may be fewer than were asked for."""
    samples = ("--search.method", "sample", "--search.samples", "4", "--search.mbr-metric", "chrf", "--n-best", "4")
    type_in(monkeypatch, b"a b c d e\n\nx x x\n")
    code, out, _ = s2s("translate", str(trained_run), *samples)
    rows = [line.split(" ||| ") for line in out.splitlines()]
    assert code == 0
    assert {row[0] for row in rows} == {"0", "1", "2"}
    type_in(monkeypatch, b"a b c d e\n\nx x x\n")
    records = [json.loads(line) for line in s2s("translate", str(trained_run), *samples, "--json")[1].splitlines()]
    for number, record in enumerate(records):
        utilities = [each["utility"] for each in record["hypotheses"]]
        assert utilities == sorted(utilities, reverse=True)
        assert [f"{value:.4f}" for value in utilities] == [row[2] for row in rows if row[0] == str(number) and row[1]]
        for each in record["hypotheses"]:
            assert each["log_probability"] == pytest.approx(sum(each["log_probs"]))


def test_samples_need_no_beam(s2s, trained_run, monkeypatch):
    type_in(monkeypatch, b"a b\n")
    samples = ("--search.method", "sample", "--search.samples", "4")
    code, out, errors = s2s("translate", str(trained_run), *samples, "--n-best", "4")
    assert (code, out.count("\n"), errors) == (0, 4, "")


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ((), "add --beam 3"),
        (("--beam", "2"), "add --beam 3"),
        (("--search.method", "sample"), "add --search.samples 3"),
        (("--beam", "4", "--search.groups", "2", "--search.n-best", "1"), "add --beam 4 --search.n-best 2"),
    ],
)
def test_more_translations_than_a_search_finds_are_refused_with_a_remedy_that_works(
    s2s, trained_run, monkeypatch, settings, remedy
):
    code, out, errors = s2s("translate", str(trained_run), *settings, "--n-best", "3")
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert errors.rstrip().endswith(remedy)
    replaced = dict(zip(settings[::2], settings[1::2], strict=True)) | dict(
        zip(remedy.split()[1::2], remedy.split()[2::2], strict=True)
    )
    type_in(monkeypatch, b"a b\n")
    words = [word for option in replaced.items() for word in option]
    code, out, errors = s2s("translate", str(trained_run), *words, "--n-best", "3")
    assert (code, out.count("\n"), errors) == (0, 3, "")


def test_n_best_leaves_the_beam_as_it_is(s2s, trained_run, monkeypatch):
    """The best translations of a beam of 4, however many of them are shown."""
    outputs = []
    for count in ("4", "2"):
        type_in(monkeypatch, b"x x x x\nq w\n")
        outputs.append(s2s("translate", str(trained_run), "--search.beam", "4", "--n-best", count)[1].splitlines())
    assert outputs[1] == outputs[0][:2] + outputs[0][4:6]


def test_good_lines_before_a_bad_one_are_answered(s2s, trained_run, monkeypatch, tmp_path):
    """Also those of a file, and pairs; what is wrong is one line that names the place."""
    raw = b"a b\n\nc\n\xff\xfe d\ne f\n"
    type_in(monkeypatch, raw)
    code, out, errors = s2s("translate", str(trained_run))
    assert (code, out, errors.count("\n")) == (2, "a b\n\nc\n", 1)
    assert "stdin:4: byte 0 is not UTF-8" in errors
    file = tmp_path / "lines"
    file.write_bytes(raw)
    code, out, errors = s2s("translate", str(trained_run), "--input", str(file))
    assert (code, out) == (2, "a b\n\nc\n")
    assert f"{file}:4: byte 0 is not UTF-8" in errors
    type_in(monkeypatch, b"a b\ta b\nonly one column\n")
    code, out, errors = s2s("score", str(trained_run))
    assert (code, out.count("\n"), errors.count("\n")) == (2, 1, 1)
    assert "stdin:2: 1 tab-separated column" in errors


@pytest.mark.parametrize(("policy", "answers"), [("replace", 5), ("skip", 5)])
def test_bad_bytes_are_replaced_or_left_blank_on_request(s2s, trained_run, monkeypatch, policy, answers):
    type_in(monkeypatch, b"a b\n\nc\n\xff\xfe d\ne f\n")
    code, out, errors = s2s("translate", str(trained_run), "--data.encoding-errors", policy)
    assert (code, out.count("\n")) == (0, answers)
    assert out.startswith("a b\n\nc\n")
    assert out.endswith("\ne f\n")
    assert (out.splitlines()[3] == "") == (policy == "skip")
    assert errors == f"1 x line that is not UTF-8 ({policy}) (stdin:4)\n"


def test_pairs_with_bad_bytes_are_skipped_on_request(s2s, trained_run, monkeypatch):
    type_in(monkeypatch, b"a b\ta b\n\xff\tc\nd\td\n")
    code, out, errors = s2s("score", str(trained_run), "--data.encoding-errors", "skip")
    assert (code, [line.split("\t")[1] for line in out.splitlines()]) == (0, ["a b", "d"])
    assert errors == "1 x line that is not UTF-8 (skip) (stdin:2)\n"


def test_windows_give_what_came_before_an_error():
    def items():
        yield from (1, 2, 3)
        raise ValueError("no fourth")

    found = []
    with pytest.raises(ValueError, match="no fourth"):
        found.extend(windows(items(), 2))
    assert found == [[1, 2], [3]]
    assert list(windows([], 2)) == []


@pytest.fixture
def pipe():
    """A pipe whose writer may wait: the descriptor to read, and a function that writes."""
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_a_window_ends_where_no_line_comes_for_a_moment(pipe):
    reader, writer = pipe
    lines = ArrivingLines(reader)
    found = windows(lines, 100, lines.ready)
    os.write(writer, b"a\nb\nc\nhalf")
    assert next(found) == [b"a\n", b"b\n", b"c\n"]
    os.write(writer, b" a line\n")
    assert next(found) == [b"half a line\n"]
    threading.Timer(0.2, lambda: (os.write(writer, b"late\nno end"), os.close(writer))).start()
    assert list(found) == [[b"late\n", b"no end"]]


def test_a_window_ends_although_lines_keep_coming(pipe):
    reader, writer = pipe
    stop = threading.Event()

    def write():
        while not stop.wait(0.01):
            os.write(writer, b"x\n")

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    lines = ArrivingLines(reader)
    began = time.monotonic()
    assert len(next(windows(lines, 100_000, lines.ready))) > 10
    assert time.monotonic() - began < 3
    stop.set()
    thread.join()


def test_a_pipe_that_stays_open_is_answered(trained_run):
    """A program that waits for each answer before it writes the next line."""
    command = [sys.executable, "-m", "s2s_jax", "translate", str(trained_run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        for sent, answers in ((b"a b\nc\n", [b"a b\n", b"c\n"]), (b"d e\n", [b"d e\n"])):
            process.stdin.write(sent)
            process.stdin.flush()
            assert [process.stdout.readline() for _ in answers] == answers
        process.stdin.close()
        assert process.wait() == 0
        watchdog.cancel()


def test_a_window_bounds_the_lines_that_are_read_ahead(s2s, trained_run, monkeypatch):
    read = []

    class Lines:
        buffer = (read.append(number) or b"a b\n" for number in range(6))

        @staticmethod
        def fileno():
            raise OSError("no file")

    monkeypatch.setattr(sys, "stdin", Lines)
    monkeypatch.setattr("s2s_jax.cli.translate.print_line", lambda text: read.append(text))
    assert s2s("translate", str(trained_run), "--window", "2")[0] == 0
    assert read == [0, 1, "a b", "a b", 2, 3, "a b", "a b", 4, 5, "a b", "a b"]
    code, _, errors = s2s("score", str(trained_run), "--window", "0")
    assert (code, errors) == (2, "s2s: --window must be positive, got 0\n")


@pytest.mark.parametrize(("option", "kind"), [("--prefix", "prefix"), ("--constraints", "phrase")])
def test_an_unknown_constraint_is_refused_after_the_lines_before_it(
    s2s, trained_run, monkeypatch, tmp_path, option, kind
):
    file = tmp_path / "beside"
    file.write_text("c\n\na Jahr\n")
    type_in(monkeypatch, b"a b\nd\ne f\n")
    code, out, errors = s2s("translate", str(trained_run), option, str(file), "--search.max-length", "8")
    assert (code, errors.count("\n")) == (2, 1)
    first, second = out.splitlines()
    assert "c" in first
    assert second == "d"
    assert f"the {kind} 'a Jahr' for the line 'e f' holds what the target's tokenizer does not know" in errors
