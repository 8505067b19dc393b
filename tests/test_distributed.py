"""A training that two processes share, of two devices each: it is that of one process, and survives its processes."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tiny
from rich.console import Console

from s2s_jax import run
from s2s_jax.training.checkpoint.checkpoints import Checkpoints
from s2s_jax.training.checkpoint.pytree_io import paths_of
from s2s_jax.training.metrics_writer import read_metrics

SETTINGS = {
    "optimizer.name": "sgd",  # Adam would magnify rounding
    "optimizer.schedule": "constant",
    "optimizer.warmup_steps": 0,
    "validation.every": 100_000,  # at the end alone
    "validation.sentences": 10,
    "checkpoint.every": 7,
    "record.log_every": 1,
}
HEARTBEAT = 8  # seconds
PATIENCE = 300  # seconds, for processes that would stand still


def command(directory: Path, *, steps: int) -> list[str]:
    """`s2s train` of the tiny experiment, with a cache of compiled programs beside the run."""
    file = directory.parent / "tiny_experiment.py"
    file.write_text(f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom tiny import experiment\n")
    device = {"device.count": 0, "device.heartbeat": HEARTBEAT, "device.fsdp": 0, "device.cache": compiled(directory)}
    settings = {**SETTINGS, "steps": steps, **device}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "s2s_jax", "train", str(file), "--run", str(directory), "--json", *flags]


def compiled(directory: Path) -> Path:
    """The directory of compiled programs of a run."""
    return directory.parent / "compiled"


def start(directory: Path, *, steps: int) -> list[subprocess.Popen]:
    """Two processes that train together."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = [*command(directory, steps=steps), "--coordinator", f"localhost:{port}", "--processes", "2"]
    return [
        subprocess.Popen(
            [*words, "--process-id", str(number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for number in range(2)
    ]


def ended(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each process; none is left where one takes too long."""
    try:
        outputs = [process.communicate(timeout=PATIENCE) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def until_step(directory: Path, step: int, processes: list[subprocess.Popen]) -> None:
    """Wait until the run has recorded a step."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and all(process.poll() is None for process in processes):
        if any(one["step"] >= step for one in read_metrics(directory / "metrics.jsonl") if one["kind"] == "train"):
            return
        time.sleep(0.05)
    for process in processes:
        process.kill()
    raise AssertionError(f"step {step} was never reached: {ended(processes)}")


def leaves(directory: Path) -> dict[str, np.ndarray]:
    with Checkpoints(directory / "checkpoints") as checkpoints:
        return paths_of(checkpoints.restore_raw(checkpoints.latest()))


class Story(NamedTuple):
    """A training that was killed, resumed, stopped by a signal, and resumed."""

    directory: Path
    killed: list[tuple[int, str, str]]
    seconds: float  # from the death of a process to the end of the other
    stopped: list[tuple[int, str, str]]
    stopped_at: int
    resumed: list[tuple[int, str, str]]
    steps: int


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    directory = tmp_path_factory.mktemp("distributed") / "run"
    processes = start(directory, steps=100_000)
    until_step(directory, 15, processes)
    processes[1].kill()
    before = time.monotonic()
    killed, seconds = ended(processes), time.monotonic() - before
    processes = start(directory, steps=100_000)
    until_step(directory, 17, processes)
    processes[1].send_signal(signal.SIGTERM)
    stopped = ended(processes)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        stopped_at = checkpoints.latest()
    steps = stopped_at + 10
    return Story(directory, killed, seconds, stopped, stopped_at, ended(start(directory, steps=steps)), steps)


@pytest.fixture(scope="module")
def uninterrupted(story) -> Path:
    """Two processes that Slurm has started: submitit's local executor has the same submission."""
    directory = story.directory.parent / "uninterrupted"
    slurm = ["--executor", "slurm", "--slurm", "cluster=local", "--slurm", "tasks_per_node=2"]
    words = [*command(directory, steps=story.steps), *slurm]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == story.steps
    return directory


def test_when_a_process_is_killed_the_other_one_ends_with_a_line_that_says_so(story):
    (code, _, errors), (killed, _, _) = story.killed
    assert killed == -signal.SIGKILL
    assert code != 0
    assert story.seconds < 5 * HEARTBEAT
    assert "another process of this training has ended" in errors or "another task died" in errors


def test_a_signal_to_one_process_saves_and_stops_all_at_the_same_step(story):
    assert [code for code, _, _ in story.stopped] == [143, 143]
    for _, _, errors in story.stopped:
        assert f"SIGTERM: saved at step {story.stopped_at}" in errors


def test_a_killed_and_a_stopped_training_end_with_the_bits_of_an_uninterrupted_one(story, uninterrupted):
    assert [code for code, _, _ in story.resumed] == [0, 0]
    found, expected = leaves(story.directory), leaves(uninterrupted)
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def test_processes_on_cpus_read_no_compiled_programs_from_disk(story, uninterrupted):
    """Read from disk, they run their collective operations in no fixed order, and stand still."""
    for directory in (story.directory, uninterrupted):
        assert not compiled(directory).exists()


def test_the_first_process_alone_prints_and_writes(story):
    (_, first, _), (_, second, errors) = story.resumed
    assert json.loads(first)["step"] == story.steps
    assert second == ""
    assert "resuming" not in errors
    assert sum(one["kind"] == "end" for one in read_metrics(story.directory / "metrics.jsonl")) == 1
    assert sorted(path.name for path in story.directory.iterdir()) == [
        *("checkpoints", "config.json", "data_report.json", "environment.json", "facts.json"),
        *("lock", "log.txt", "metrics.jsonl", "source.tokenizer.json", "target.tokenizer.json"),
    ]


def test_two_processes_train_as_one_does(story, uninterrupted, tmp_path):
    """Parameters, records and validation; and a run of two processes that one resumes."""
    changes = [f"{name}={value}" for name, value in SETTINGS.items()]
    run.train(tiny.experiment(*changes, f"steps={story.steps}"), tmp_path, Console(quiet=True))
    one, two = leaves(tmp_path), leaves(uninterrupted)
    for path, leaf in one.items():
        np.testing.assert_allclose(two[path], leaf, atol=1e-6, err_msg=path)
    records = [read_metrics(each / "metrics.jsonl") for each in (tmp_path, uninterrupted)]
    for kind in ("train", "validation", "checkpoint"):
        steps = [[one["step"] for one in each if one["kind"] == kind] for each in records]
        assert steps[0] == steps[1]
    ends = [[one["tokens"] for one in each if one["kind"] == "end"] for each in records]
    losses = [[one["loss"] for one in each if one["kind"] == "validation"] for each in records]
    assert ends[0] == ends[1]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    more = story.steps + 3
    states = [
        run.train(tiny.experiment(*changes, f"steps={more}"), each, Console(quiet=True)).params
        for each in (tmp_path, uninterrupted)
    ]
    for path, leaf in paths_of(states[0]).items():
        np.testing.assert_allclose(paths_of(states[1])[path], leaf, atol=1e-6, err_msg=path)
