"""Where trials run: Ray clusters without a shared disk, Slurm's jobs, and what the command line refuses."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import test_sweep

from s2s_jax.cli import main
from s2s_jax.sweep.executors.interface import ExecutorConfig
from s2s_jax.sweep.executors.shipping import Packer, unpack
from s2s_jax.sweep.launch import launch
from s2s_jax.sweep.trial_files import bad_files, read_outcome


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
        (["--executor", "slurm", "--slurm", "cluster=local", "--slurm", "qos=high"], "such as --slurm slurm_qos=high"),
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
    changes = ("steps=1500", "checkpoint.every=20", "validation.every=1500")
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
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
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
