"""What each worker of a machine may use: devices that are visible, their memory, and cores."""

import collections
import os
import re
from pathlib import Path

import pytest

from s2s_jax.training import accelerators
from s2s_jax.training.accelerators import Accelerators, Share, memory_fraction, room, shares, visible_accelerators

CUDA = "CUDA_VISIBLE_DEVICES"


@pytest.fixture
def machine(monkeypatch):
    """Give this machine devices and variables that it does not have."""
    for name in (CUDA, "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS", "XLA_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)

    def make(*, nvidia=0, amd=0, tpu=0, cores=8, **variables):
        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
        monkeypatch.setattr(accelerators, "gpus", lambda: ["A GPU"] * nvidia)
        monkeypatch.setattr(accelerators, "_amd_gpus", lambda: amd)
        monkeypatch.setattr(accelerators, "_tpu_chips", lambda: tpu)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(100, 100 + cores)))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return visible_accelerators()

    return make


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"nvidia": 8, CUDA: "6,7"}, (CUDA, ("6", "7"))),
        ({"nvidia": 2}, (CUDA, ("0", "1"))),
        ({"nvidia": 2, CUDA: ""}, ("", ())),
        ({"nvidia": 2, CUDA: "-1"}, ("", ())),
        ({"nvidia": 4, CUDA: "3, 1"}, (CUDA, ("3", "1"))),
        ({"nvidia": 4, CUDA: "2,9,1"}, (CUDA, ("2",))),  # as for CUDA, the first wrong one ends the list
        ({"nvidia": 4, CUDA: "GPU-8f2,MIG-7a1"}, (CUDA, ("GPU-8f2", "MIG-7a1"))),
        ({"nvidia": 4, "JAX_PLATFORMS": "cpu"}, ("", ())),
        ({"nvidia": 4, "JAX_PLATFORMS": "cuda,cpu"}, (CUDA, ("0", "1", "2", "3"))),
        ({CUDA: "0,1"}, ("", ())),  # there is no driver
        ({"amd": 4, "HIP_VISIBLE_DEVICES": "2,3"}, ("HIP_VISIBLE_DEVICES", ("2", "3"))),
        ({"amd": 2}, ("HIP_VISIBLE_DEVICES", ("0", "1"))),
        ({"tpu": 4, "TPU_VISIBLE_CHIPS": "1,2"}, ("TPU_VISIBLE_CHIPS", ("1", "2"))),
        ({"tpu": 4}, ("TPU_VISIBLE_CHIPS", ("0", "1", "2", "3"))),
        ({}, ("", ())),
    ],
)
def test_only_visible_devices_are_used(machine, has, expected):
    assert machine(**has) == Accelerators(*expected)


@pytest.mark.parametrize(("names", "per_device", "devices"), [("6,7", 1, 1), ("6,7", 4, 1), ("0,1,2,3", 1, 2)])
def test_workers_share_the_visible_devices_and_no_others(machine, names, per_device, devices):
    """Each device has as many workers as were asked for, and its memory is enough for them."""
    found = machine(nvidia=8, **{CUDA: names})
    options = {"per_device": per_device, "devices": devices}
    workers = room(found, **options)
    assert workers == len(names.split(",")) // devices * per_device
    parts = shares(workers, found, **options)
    taken = collections.Counter(name for part in parts for name in part.environment[CUDA].split(","))
    assert taken == dict.fromkeys(names.split(","), per_device)
    assert all(len(part.environment[CUDA].split(",")) == devices for part in parts)
    fractions = [float(part.environment.get("XLA_CLIENT_MEM_FRACTION", 0.75)) for part in parts]
    assert all(0.5 < fraction * per_device <= 1 for fraction in fractions)
    with pytest.raises(ValueError, match=rf"--jobs {workers + 1}: .*have room for {workers}; .*--per-device N"):
        shares(workers + 1, found, **options)


def test_a_fraction_is_one_of_what_the_user_gives_to_jax(machine):
    machine(XLA_CLIENT_MEM_FRACTION="0.4")
    assert memory_fraction(0.5) == {"XLA_CLIENT_MEM_FRACTION": "0.2"}


@pytest.mark.parametrize(
    ("has", "options", "message"),
    [
        ({"tpu": 4}, {"per_device": 2}, "--per-device 2: a TPU chip cannot be shared; leave it out."),
        ({"nvidia": 4}, {"per_device": 2, "devices": 2}, "each trial takes device.count=2 of them; leave it out."),
        (
            {"nvidia": 4, CUDA: "1"},
            {"devices": 2},
            f"device.count=2, but a worker may use 1 devices ({CUDA}=1); set a ",
        ),
        ({"tpu": 4}, {"devices": 3}, "device.count=3: a process takes 1, 2, 4, 8 TPU chips."),
        ({"cores": 2}, {"cores": 3}, "--cores 3: this process may use 2; lower it."),
    ],
)
def test_what_a_machine_has_no_room_for_is_refused(machine, has, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        shares(1, machine(**has), **options)


def test_a_tpu_chip_is_a_process_of_its_own(machine):
    assert shares(4, machine(tpu=4))[3].environment == {
        "TPU_VISIBLE_CHIPS": "3",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


def test_cores_are_shared_out(machine):
    """Equal parts by default, all of them for one worker; as many as were asked for, in turn."""
    found = machine(cores=8)
    assert [part.cores for part in shares(1, found)] == [()]
    parts = [part.cores for part in shares(3, found)]
    assert sorted(core for part in parts for core in part) == list(range(100, 108))
    assert {len(part) for part in parts} == {2, 3}
    assert [part.cores for part in shares(3, found, cores=4)] == [
        (100, 101, 102, 103),
        (104, 105, 106, 107),
        (100, 101, 102, 103),
    ]
    assert all(part.cores for part in shares(10, found)), "more workers than cores share them"


def test_a_share_is_taken(monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")  # jax refuses to have both
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", "0.9")
    taken = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: taken.append(cores))
    Share({"XLA_CLIENT_MEM_FRACTION": "0.25"}, (1, 2)).take()
    assert os.environ["XLA_CLIENT_MEM_FRACTION"] == "0.25"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ
    assert taken == [(1, 2)]


def test_amd_gpus_are_those_of_the_driver_that_rocr_shows(tmp_path, monkeypatch):
    for number, units in enumerate((0, 304, 304)):  # the first node is a CPU
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "properties").write_text(f"cpu_cores_count 8\nsimd_count {units}\n")
    monkeypatch.setattr(accelerators, "AMD_NODES", Path(tmp_path))
    monkeypatch.delenv("ROCR_VISIBLE_DEVICES", raising=False)
    assert accelerators._amd_gpus() == 2
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "1")
    assert accelerators._amd_gpus() == 1
