"""Parameters that several devices share: whatever the mesh, the numbers are those of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import tiny
from jax.sharding import PartitionSpec
from rich.console import Console

from s2s_jax import run
from s2s_jax.run.replicas import train_replicas
from s2s_jax.training import devices
from s2s_jax.training.devices import DeviceConfig

SCRIPT = Path(__file__).with_name("four_devices.py")


def test_four_devices_compute_what_one_does(tmp_path):
    """Steps on every mesh, with every option; runs that change their mesh; replicas. In one process, with a cache."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent.parent)}
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, env=environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "rematerialization" not in done.stderr  # XLA's word for activations that it moves between devices
    differences = json.loads(done.stdout.splitlines()[-1])
    assert len(differences) == 16
    assert {name: value for name, value in differences.items() if value > 1e-6} == {}


def test_the_largest_axis_that_divides_is_sharded_and_small_leaves_are_whole():
    mesh = devices.make_mesh(DeviceConfig(count=2, fsdp=2))
    shapes = {(64, 32): (32, 32), (33, 64): (33, 32), (33, 65): (33, 65), (512,): (512,), (4, 1024): (4, 512)}
    for whole, shard in shapes.items():
        assert devices.sharding_of(mesh, whole).shard_shape(whole) == shard
    assert devices.sharding_of(mesh, (2, 64, 32), replicas=True).spec == PartitionSpec("replica", "fsdp")


def test_the_mesh_divides_the_devices_or_names_the_setting():
    assert dict(devices.make_mesh(DeviceConfig(fsdp=0)).shape) == {"replica": 1, "data": 1, "fsdp": jax.device_count()}
    assert dict(devices.make_mesh(DeviceConfig(count=2), replicas=4).shape) == {"replica": 2, "data": 1, "fsdp": 1}
    assert devices.describe(devices.make_mesh(DeviceConfig(fsdp=0))) == "2 x cpu (cpu), 2 per copy of the state"
    with pytest.raises(ValueError, match=r"^device.fsdp=3 does not divide the 2 devices; set it to a number that does"):
        devices.make_mesh(DeviceConfig(count=2, fsdp=3))


def test_pmap_refuses_what_only_the_mesh_can_do():
    with pytest.raises(ValueError, match=r"^device.parallel=pmap copies the state to each device, and device.fsdp=2"):
        DeviceConfig(parallel="pmap", fsdp=2)
    with pytest.raises(
        ValueError, match=r"^device.parallel=pmap trains one run in one process; set device.parallel=mesh"
    ):
        devices.make_mesh(DeviceConfig(parallel="pmap"), replicas=2)


def test_options_of_the_compiler_are_for_gpus(monkeypatch):
    """device.graphs and device.deterministic; a CPU computes the same bits each time and has no graphs."""
    both = DeviceConfig(graphs=True, deterministic=True)
    assert devices.compiler_options(both) == {}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert devices.compiler_options(DeviceConfig()) == {}
    assert devices.compiler_options(both) == {**devices.ONE_GRAPH, "xla_gpu_exclude_nondeterministic_ops": True}
    assert "WHILE" in devices.compiler_options(DeviceConfig(graphs=True))["xla_gpu_enable_command_buffer"]
    for name in ("graphs", "deterministic"):
        with pytest.raises(ValueError, match=f"^device.parallel=pmap takes no options of .* device.{name}=true is one"):
            DeviceConfig(parallel="pmap", **{name: True})  # type: ignore[arg-type]


def test_options_of_the_compiler_reach_it(tmp_path, monkeypatch):
    """A run and replicas compile with them: XLA knows those of GPUs here too, and refuses one that it does not know."""
    tried = tiny.experiment("steps=2", "validation.every=2", "checkpoint.every=2")
    wrong = {**devices.ONE_GRAPH, "xla_no_such_option": True}
    monkeypatch.setattr(devices, "compiler_options", lambda config: wrong)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        run.train(tried, tmp_path / "run", Console(quiet=True))
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        train_replicas(
            [tried, tiny.experiment("steps=2", "validation.every=2", "checkpoint.every=2", "seed=1")],
            [tmp_path / "a", tmp_path / "b"],
            Console(quiet=True),
        )
    monkeypatch.setattr(devices, "compiler_options", lambda config: devices.ONE_GRAPH)
    trained = run.train(tried, tmp_path / "graphs", Console(quiet=True))
    monkeypatch.setattr(devices, "compiler_options", lambda config: wrong)
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        trained.translate(["a b"])
