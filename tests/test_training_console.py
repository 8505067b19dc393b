"""Does a training end well whose output nobody can read any more?"""

import errno
import io
import os
import subprocess
import sys

import fake_training
import pytest
from rich.console import Console

from s2s_jax import run
from s2s_jax.cli import main
from s2s_jax.training.console import LastingStream, training_console

LOST = "s2s: progress is no longer shown ({}); training continues, see metrics.jsonl\n"


def broken_pipe():
    """A stream into a pipe whose reader has left, as `head` does."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w", buffering=1)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "broken pipe": (broken_pipe, "Broken pipe"),
    "full disk": (lambda: open("/dev/full", "w", buffering=1), "No space left on device"),  # noqa: SIM115
    "closed": (closed, "I/O operation on closed file"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_training_goes_on_when_its_output_cannot_be_written(tmp_path, monkeypatch, capsys, name):
    """Row 50 of the faults; the reason is printed once, on stderr."""
    make, reason = STREAMS[name]
    stream = make()
    monkeypatch.setattr(sys, "stdout", stream)
    console = training_console()
    with fake_training.training(tmp_path, steps=4, console=console) as (loop, _):
        assert loop.run() == [None]
    monkeypatch.undo()
    stream.close()  # what is left in its buffer raises nothing
    assert capsys.readouterr().err == LOST.format(reason)
    assert (
        len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1 + 4 + 2
    )  # a compilation, steps, a validation and the end


def test_a_stream_that_works_is_written_to():
    stream, warned = io.StringIO(), []
    lasting = LastingStream(stream, warned.append)
    console = Console(file=lasting, width=40)  # type: ignore[arg-type]
    console.print("one")
    assert (stream.getvalue(), lasting.isatty(), warned) == ("one\n", False, [])
    stream.close()
    console.print("two")
    console.print("three")
    assert len(warned) == 1


def test_train_ends_with_success_though_its_output_is_lost(tmp_path, monkeypatch, capfd):
    (tmp_path / "small.py").write_text("from tiny import experiment\n")
    words = ["train", str(tmp_path / "small.py"), "--run", str(tmp_path / "run"), "--steps", "2"]
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words) == 0
        monkeypatch.undo()
    assert capfd.readouterr().err == LOST.format(os.strerror(errno.ENOSPC))
    assert run.info(tmp_path / "run")["step"] == 2


def test_a_closed_stdout_is_nothing_and_no_file_takes_its_place(tmp_path):
    """A file that the command opens would get the number of the closed stdout, and all that is printed there."""
    code = (
        "import s2s_jax.cli as cli, os\n"
        "try: cli.main(['--version'])\nexcept SystemExit: pass\n"
        f"file = open({str(tmp_path / 'metrics')!r}, 'w')\nos.write(1, b'printed')\nassert file.fileno() > 2\n"
    )
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" >&-', code], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "metrics").read_bytes() == b""
