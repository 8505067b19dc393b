"""Where trials run: Ray clusters without a shared disk, Slurm's jobs, and what the command line refuses."""

import logging.config
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import test_sweep

from s2s_jax.cli import main
from s2s_jax.config import override
from s2s_jax.run.run_dir import read_json, write_json
from s2s_jax.sweep.executors import ray as launch_ray
from s2s_jax.sweep.executors import slurm
from s2s_jax.sweep.executors.interface import ExecutorConfig, Progress
from s2s_jax.sweep.executors.shipping import Packer, unpack
from s2s_jax.sweep.launch import launch
from s2s_jax.sweep.plan import find_trials, trial_groups
from s2s_jax.sweep.trial_files import bad_files, read_outcome
from s2s_jax.training.metrics_writer import read_metrics
from s2s_jax.training.signals import SignalGuard


@pytest.fixture(autouse=True)
def logging_as_it_is(monkeypatch):
    """When it is imported, submitit configures logging anew, which would close the files that pytest captures with."""
    monkeypatch.setattr(logging.config, "dictConfig", lambda *_: None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "-1"], "--jobs must be zero or more, got -1"),
        (["--per-device", "0"], "--per-device must be positive, got 0"),
        (["--partition", "gpu"], "--partition has no effect with --executor local; leave one of them out"),
        (["--executor", "slurm", "--per-device", "2"], "--per-device has no effect with --executor slurm"),
        (
            ["--executor", "slurm", "--slurm", "partition"],
            "--slurm needs NAME=VALUE, such as gpus_per_node=1, got",
        ),
        (["--executor", "slurm", "--minutes", "0"], "--minutes must be positive, got 0"),
        (
            ["--executor", "slurm", "--slurm", "cluster=local", "--slurm", "colour=red"],
            "such as --slurm slurm_qos=high",
        ),
        (["--executor", "ray", "--resources", "GPU=half"], "--resources GPU=half: the amount must be a number"),
        (["--executor", "ray", "--resources", "GPU=-1"], "--resources GPU must be zero or more, got -1"),
        (["--executor", "ray", "--runtime-env", "[1]"], "--runtime-env [1]: No such file or directory; give JSON, or"),
        (["--executor", "ray", "--runtime-env", "{1"], "--runtime-env is no JSON object"),
    ],
)
def test_flags_that_make_no_sense_are_refused_in_one_line(tmp_path, capsys, words, message):
    path = tmp_path / "claim.py"
    path.write_text(test_sweep.FILE.format(tests=str(Path(__file__).parent)))
    assert main(["sweep", "run", str(path), "--out", str(tmp_path / "out"), *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not list(tmp_path.glob("out/trials/*/run"))


def test_files_travel_as_they_are(tmp_path):
    """What was packed and unpacked, again and again, is the same folder but for what belongs to one machine."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "run" / "checkpoints" / "1").mkdir(parents=True)
    (there / "run").mkdir(parents=True)
    for folder in (here, there):
        (folder / "run" / "lock").write_text(f"of {folder.name}")
        (folder / "heartbeat.json").write_text(f"of {folder.name}")
    (here / "run" / "metrics.jsonl").write_bytes(b"one\n")
    (here / "run" / "checkpoints" / "1" / "leaf").write_bytes(bytes(range(256)))
    (here / "config.json.part").write_text("half")
    packer = Packer(here)
    first = packer.pack()
    assert set(first.contents) == {"run/metrics.jsonl", "run/checkpoints/1/leaf"}
    unpack(first, there)
    shutil.rmtree(here / "run" / "checkpoints" / "1")
    (here / "run" / "checkpoints" / "2").mkdir()
    (here / "run" / "checkpoints" / "2" / "leaf").write_bytes(b"new")
    second = packer.pack()
    assert set(second.contents) == {"run/checkpoints/2/leaf"}, "what has not changed travels once"
    unpack(second, there)
    found = {path.relative_to(there).as_posix(): path.read_bytes() for path in there.rglob("*") if path.is_file()}
    assert found == {
        "run/metrics.jsonl": b"one\n",
        "run/checkpoints/2/leaf": b"new",
        "run/lock": b"of there",
        "heartbeat.json": b"of there",
    }
    assert not (there / "run" / "checkpoints" / "1").exists()


def test_a_worker_that_says_done_without_its_files_has_failed(tmp_path, monkeypatch):
    def pretend(groups, progress, config, *, retries):
        for group in groups:
            progress.finished(group, "done")
        return 0

    monkeypatch.setitem(sys.modules["s2s_jax.sweep.launch"].EXECUTORS, "local", pretend)
    lines = []
    outcome = launch(test_sweep.sweep(axes={test_sweep.SCORE: ["none"]}), tmp_path, ExecutorConfig(), lines.append)
    assert len(outcome.failed) == 1
    assert "failed: its worker says done, but its files are not in" in lines[-1]


def finished(statuses):
    """Progress that keeps the names of trials and how they ended, and the notes."""
    notes = []
    return Progress(lambda group, status: statuses.append((len(group), status)), notes.append), notes


class FakeJobs:
    """The parts of submitit's executor and jobs that are used; each job ends as it is told to."""

    def __init__(self, *endings):
        self.endings, self.arrays, self.made = list(endings), [], {}

    def map_array(self, function, groups):
        self.arrays.append(len(groups))
        jobs = [
            SimpleNamespace(job_id=f"{len(self.arrays)}_{number}", state="RUNNING") for number in range(len(groups))
        ]
        for job in jobs:
            ending = self.endings.pop(0) if self.endings else "done"
            job.done, job.cancel = lambda: True, lambda: None
            job.exception = lambda ending=ending: ending if isinstance(ending, Exception) else None
            job.result = lambda ending=ending: ending
            self.made[job.job_id] = job
        return [Hashable(job) for job in jobs]


class Hashable:
    def __init__(self, job):
        self.__dict__.update(vars(job))


@pytest.fixture
def groups(tmp_path):
    made = test_sweep.sweep(seeds=range(5), axes={test_sweep.SCORE: ["none"]})
    return trial_groups(made, find_trials(made, tmp_path))


def test_jobs_are_submitted_in_arrays_and_failures_again(groups, tmp_path):
    fake, statuses = FakeJobs("done", RuntimeError("node failure\nout of memory"), "diverged", "stopped", "failed"), []
    progress, notes = finished(statuses)
    jobs = slurm._Jobs(fake, "slurm", tmp_path / "slurm", progress, ExecutorConfig(name="slurm", array_size=3))
    assert jobs.run(groups, retries=1) == 0
    assert fake.arrays == [3, 2, 3], "at most three in one array; the diverged one is not tried again"
    assert sorted(statuses) == [(1, "diverged")] + [(1, "done")] * 4
    assert len([note for note in notes if "submitted again" in note]) == 3
    assert read_json(tmp_path / "slurm" / "jobs.json") == {}
    assert "its job 1_1 died: out of memory" in read_outcome(groups[1][0].folder)["error"]


def test_a_second_launch_waits_for_the_jobs_of_the_first(groups, tmp_path, monkeypatch):
    names = [spec.folder.name for (spec,) in groups]
    (tmp_path / "slurm").mkdir()
    write_json(tmp_path / "slurm" / "jobs.json", {"7_0": [names[0]], "7_3": [names[3]], "6_1": ["of another sweep"]})
    fake, statuses, found = FakeJobs(), [], FakeJobs()
    known = dict(zip(("7_0", "7_3"), found.map_array(None, groups[:2]), strict=True))
    for number, job in known.items():
        job.job_id = number
    monkeypatch.setattr(slurm, "_job_class", lambda cluster: lambda logs, number: known[number])
    progress, notes = finished(statuses)
    assert slurm._Jobs(fake, "slurm", tmp_path / "slurm", progress, ExecutorConfig()).run(groups, retries=0) == 0
    assert fake.arrays == [3]
    assert statuses == [(1, "done")] * 5
    assert notes == [
        f"{names[at]}: waits for its job {number}, submitted earlier" for at, number in ((0, "7_0"), (3, "7_3"))
    ]
    (tmp_path / "slurm" / "jobs.json").write_text("{")  # half written: nothing is found
    assert slurm._Jobs(fake, "slurm", tmp_path / "slurm", progress, ExecutorConfig())._find(groups, 0) == set()


@pytest.mark.parametrize(("ended", "requeues"), [("stopped", 1), ("done", 0)])
def test_a_job_that_is_preempted_saves_its_state_before_it_is_requeued(monkeypatch, ended, requeues):
    pytest.importorskip("submitit")
    calls = []

    def train(group):
        with SignalGuard() as interrupt:
            os.kill(os.getpid(), signal.SIGUSR2)
            calls.append(f"saved after {signal.Signals(interrupt.number).name}")
            return ended

    monkeypatch.setattr(slurm, "run_interruptible", train)
    before = signal.signal(signal.SIGUSR2, lambda number, frame: calls.append("requeued"))
    try:
        assert slurm._RequeuedTrial()(()) == ended
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert calls == ["saved after SIGUSR1"] + ["requeued"] * requeues


@pytest.mark.wide
def test_jobs_survive_their_launch_and_their_preemption(tmp_path):
    """submitit's local executor: a closed terminal leaves the jobs, a launch finds them, and requeued they resume."""
    pytest.importorskip("submitit")
    bad = {"data.validation": str(tmp_path / "missing.tsv"), "data.train": str(tmp_path / "missing.tsv")}
    (tmp_path / "missing.tsv").write_text("a\tb\n" * 3)
    base = override(test_sweep.sweep().base, "steps=4000", "record.log_every=1", "checkpoint.every=4000")
    made = test_sweep.sweep(
        base=base, axes={"data": {"synthetic": {}, "missing": bad}}, compare="data", baseline="synthetic"
    )
    groups = trial_groups(made, find_trials(made, tmp_path / "out"))
    (tmp_path / "missing.tsv").unlink()  # after it was planned
    config = ExecutorConfig(name="slurm", minutes=10, options={"cluster": "local"})
    trial, statuses = groups[0][0].folder, []
    (tmp_path / "go.py").write_text(
        f"import pickle, sys\nfrom s2s_jax.sweep.executors import interface, slurm\n"
        f"groups, config = pickle.load(open({str(tmp_path / 'given')!r}, 'rb'))\n"
        f"slurm.run_on_slurm(groups, interface.Progress(print, print), config, retries=1)\n"
    )
    (tmp_path / "given").write_bytes(pickle.dumps((groups, config)))
    first = subprocess.Popen([sys.executable, tmp_path / "go.py"], stdout=subprocess.DEVNULL)

    def wait(condition):
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < 120
            time.sleep(0.1)

    metrics = trial / "run" / "metrics.jsonl"
    wait(lambda: metrics.exists() and len(read_metrics(metrics)) > 3)
    first.send_signal(signal.SIGHUP)
    assert first.wait(60) == 0
    progress, notes = finished(statuses)
    process = read_json(trial / "heartbeat.json")["pid"]
    threading.Timer(2, lambda: os.kill(process, signal.SIGUSR2)).start()
    assert slurm.run_on_slurm(groups, progress, config, retries=1) == 0
    assert any("waits for its job" in note for note in notes)
    assert sorted(statuses) == [(1, "done"), (1, "failed")]
    assert "missing.tsv" in read_outcome(groups[1][0].folder)["error"]
    assert re.search("resuming at step [1-9]", (trial / "log.txt").read_text())


OTHER_DISK = """
import os, sys

def refuse(event, arguments):
    if any(str(each).startswith(os.environ["HIDDEN"]) for each in arguments if isinstance(each, (str, os.PathLike))):
        raise FileNotFoundError(2, "No such file or directory: this machine has another disk", str(arguments[0]))

if "HIDDEN" in os.environ:
    sys.addaudithook(refuse)
"""
CLUSTER = """
import json, os, sys, threading, time
from pathlib import Path

sys.path.insert(0, {tests!r})
import test_sweep
from ray.cluster_utils import Cluster

from s2s_jax.config import override
from s2s_jax.sweep.executors import ray as executor
from s2s_jax.sweep.launch import ExecutorConfig, launch


def wait(condition):
    while not (found := condition()):
        time.sleep(0.05)
    return found


def kill_the_first(cluster, nodes, trials):
    (trial,) = (path.parent for path in wait(lambda: list(trials.glob("*/heartbeat.json"))))
    wait(lambda: list((trial / "run" / "checkpoints").glob("[0-9]*")))
    worker = json.loads((trial / "heartbeat.json").read_text())["pid"]
    raylet = int(Path(f"/proc/{{worker}}/stat").read_text().split()[3])
    victim = next(node for node in nodes if node.all_processes["raylet"][0].process.pid == raylet)
    cluster.remove_node(victim, allow_graceful=False)


if __name__ == "__main__":
    out = Path({out!r})
    executor.BEAT_SECONDS = 0.3
    cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 1, "include_dashboard": False}})
    os.environ |= {{"HIDDEN": str(out), "PYTHONPATH": {disk!r} + os.pathsep + os.environ["PYTHONPATH"]}}
    nodes = [cluster.add_node(num_cpus=1, resources={{"worker": 1}}) for _ in range(2)]
    changes = ("steps=1000", "checkpoint.every=50", "validation.every=1000")
    base = override(test_sweep.sweep().base, *changes)
    threading.Thread(target=kill_the_first, args=(cluster, nodes, out / "trials"), daemon=True).start()
    made = test_sweep.sweep(base=base, axes={{test_sweep.SCORE: ["none"]}})
    config = ExecutorConfig(name="ray", address=cluster.address, resources={{"worker": 1}})
    outcome = launch(made, out, config, lambda line: print(line, flush=True))
    cluster.shutdown()
    sys.exit(len(outcome.failed))
"""


def test_a_trial_survives_its_machine_on_a_ray_cluster_without_a_shared_disk(tmp_path):
    """Of two workers, one is killed while it trains; the other goes on from the newest checkpoint that came back."""
    pytest.importorskip("ray", reason="Ray is not installed; the extra test has it")
    out = tmp_path / "out"
    (tmp_path / "sitecustomize.py").write_text(OTHER_DISK)
    written = CLUSTER.format(tests=str(Path(__file__).parent), out=str(out), disk=str(tmp_path))
    (tmp_path / "go.py").write_text(written)
    paths = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(tmp_path / "go.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert "each trial takes CPU 1, worker 1; the Ray cluster has CPU 3, worker 2 on 3 nodes" in done.stdout
    assert len(re.findall(r"none-seed0-\w+: runs on \S+ \(pid \d+\)", done.stdout)) == 2
    assert re.search(r"none-seed0-\w+: its node died \(NodeDiedError\), on .*; tried again", done.stdout)
    (trial,) = out.glob("trials/none-seed0-????????")
    assert re.search(r"resuming at step [1-9]", (trial / "log.txt").read_text())
    assert read_outcome(trial)["status"] == "done"
    assert bad_files(trial) == []
    assert not (trial / "heartbeat.json").exists()
    assert not list(out.glob("trials/.disk-*"))


def test_an_address_without_a_ray_cluster_is_refused():
    pytest.importorskip("ray", reason="Ray is not installed; the extra test has it")
    with pytest.raises(ValueError, match="no Ray cluster answers there"):
        launch_ray.run_on_ray([], Progress(print, print), ExecutorConfig(name="ray", address="127.0.0.1:1"), retries=0)
