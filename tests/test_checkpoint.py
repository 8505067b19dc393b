"""A run survives kills, full disks and flipped bits: bit for bit what was saved, or a refusal and the step before."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s2s_jax.training.checkpoint import checkpoints as checkpoints_module
from s2s_jax.training.checkpoint import disk
from s2s_jax.training.checkpoint import format as checkpoint_format
from s2s_jax.training.checkpoint.checkpoints import CheckpointConfig, Checkpoints, kept_steps
from s2s_jax.training.checkpoint.format import CheckpointError


class State(NamedTuple):
    step: Any
    params: dict[str, Any]
    optimizer: tuple[Any, ...]


def state(step: int) -> State:
    random = np.random.default_rng(step)
    params = {
        "kernel": jnp.asarray(random.normal(size=(30, 40)), jnp.float32),
        "scale": jnp.asarray(random.normal(size=3), jnp.bfloat16),
    }
    return State(jnp.asarray(step, jnp.uint32), params, ((np.float32(step), np.zeros((0, 2))), None, ()))


def same(one: Any, other: Any) -> bool:
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in leaves
    )


def save(directory: Path, *steps: int, config: CheckpointConfig | None = None) -> None:
    with Checkpoints(directory, config or CheckpointConfig()) as checkpoints:
        for step in steps:
            checkpoints.save(step, state(step), metrics={"loss": float(step)}, about={"run": f"of {step}"})


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("two steps, naïve")
    save(directory, 1, 2)
    return directory


@pytest.fixture
def copy(two_steps: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_steps, tmp_path / "copy"))


def files(directory: Path) -> list[Path]:
    return sorted(path for path in (directory / "2").rglob("*") if path.is_file())


def test_a_state_comes_back_bit_for_bit_with_what_was_said_about_it(two_steps: Path):
    checkpoints = Checkpoints(two_steps)
    assert (checkpoints.steps(), checkpoints.latest()) == ([1, 2], 2)
    step, tree, about = checkpoints.restore(state(0))
    assert (step, about, checkpoints.refused) == (2, {"run": "of 2"}, [])
    assert same(tree, state(2))
    assert [type(leaf) for leaf in jax.tree.leaves(tree)] == [type(leaf) for leaf in jax.tree.leaves(state(2))]
    assert same(checkpoints.restore(state(0), step=1).tree, state(1))
    assert checkpoints.verify(1) == checkpoints.verify(2) == []


def test_a_step_can_be_looked_into_without_an_example(two_steps: Path):
    checkpoints = Checkpoints(two_steps)
    raw = checkpoints.restore_raw(2)
    assert same(raw["params"]["scale"], np.asarray(state(2).params["scale"]))
    assert sorted(raw) == ["optimizer", "params", "step"]
    record = checkpoints.record(2)
    assert (record["step"], record["metrics"], record["about"]) == (2, {"loss": 2.0}, {"run": "of 2"})
    assert record["leaves"]["params/kernel"]["shape"] == [30, 40]


def test_a_restored_state_can_be_sharded_and_donated(two_steps: Path):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    example = state(0)
    example.params["kernel"] = jax.ShapeDtypeStruct((30, 40), jnp.float32, sharding=sharding)
    kernel = Checkpoints(two_steps).restore(example).tree.params["kernel"]
    assert kernel.sharding == sharding
    assert same(kernel, state(2).params["kernel"])
    assert jax.jit(jnp.negative, donate_argnums=0)(kernel).shape == (30, 40)


def flips() -> Iterator[int]:
    yield from (0, 3, 17, 40, 64, 90, 99)  # hundredths of a file


def test_one_flipped_bit_anywhere_is_restored_identically_or_refused_by_name(copy: Path):
    refusals: list[str] = []
    for file in files(copy):
        whole = file.read_bytes()
        for position in {len(whole) * hundredth // 100 for hundredth in flips()} if whole else set():
            damaged = bytearray(whole)
            damaged[position] ^= 1 << position % 8
            file.write_bytes(damaged)
            refusals += restored_or_refused(copy)
        file.write_bytes(whole)
    assert any(line.startswith("step 2: leaf 'params/kernel': its checksum is ") for line in refusals)
    assert any("_CHECKPOINT_METADATA is damaged: its checksum does not match its content" in line for line in refusals)


def test_every_file_can_be_missing_or_cut_short(copy: Path):
    refusals: list[str] = []
    for file in files(copy):
        whole = file.read_bytes()
        for rest in (None, 0, len(whole) // 2, len(whole) - 1):
            file.unlink()
            if rest is not None:
                file.write_bytes(whole[:rest])
            refusals += restored_or_refused(copy)
            file.write_bytes(whole)
    assert len(refusals) > 8
    assert restored_or_refused(copy) == [], "the damage was undone"


def restored_or_refused(directory: Path) -> list[str]:
    checkpoints = Checkpoints(directory)
    step, tree, about = checkpoints.restore(state(0))
    assert same(tree, state(step))
    assert about == {"run": f"of {step}"}
    if step == 2:
        assert checkpoints.refused == []
        assert checkpoints.verify(2) == []
    else:
        (line,) = checkpoints.refused
        assert line.startswith("step 2: leaf '") or "_CHECKPOINT_METADATA" in line, line
        assert "\n" not in line
        assert checkpoints.verify(2)
    return checkpoints.refused


def damage(step: Path) -> None:
    file = step / "_CHECKPOINT_METADATA"
    file.write_bytes(file.read_bytes().replace(b"of 2", b"of 3"))


def test_no_good_step_left_says_what_is_wrong_with_each(copy: Path):
    damage(copy / "2")
    shutil.rmtree(copy / "1" / "state")
    checkpoints = Checkpoints(copy)
    said = r"step 2: .*its checksum does not match.*; step 1: leaf 'step': .*\(and 3 more\)$"
    with pytest.raises(CheckpointError, match="^no good checkpoint in .*: " + said):
        checkpoints.restore(state(0))
    assert len(checkpoints.verify(1)) == 4
    with pytest.raises(CheckpointError, match=r"no good checkpoint in .*: step 2: "):
        checkpoints.restore(state(0), step=2)
    with pytest.raises(CheckpointError, match=r"step 2: .*its checksum does not match"):
        checkpoints.record(2)
    with pytest.raises(CheckpointError, match=r"step 1: leaf"):
        checkpoints.restore_raw(1)


def test_a_run_that_fell_back_writes_over_the_damaged_step(copy: Path):
    damage(copy / "2")
    with Checkpoints(copy, CheckpointConfig(keep=1, best=0)) as checkpoints:
        assert checkpoints.restore(state(0)).step == 1
        checkpoints.save(2, state(2), metrics=None, about={"run": "of 2"})
    assert restored_or_refused(copy) == []
    assert Checkpoints(copy).steps() == [2]


def test_a_damaged_step_stays_until_the_run_has_come_past_it(copy: Path):
    damage(copy / "2")
    shutil.move(copy / "2", copy / "5")
    with Checkpoints(copy, CheckpointConfig(keep=1, best=0)) as checkpoints:
        assert checkpoints.restore(state(0)).step == 1
        checkpoints.save(4, state(4), metrics=None, about={})
        checkpoints.wait()
        assert checkpoints.steps() == [4, 5]
        checkpoints.save(6, state(6), metrics=None, about={})
    assert checkpoints.steps() == [6]


def test_a_step_under_another_name_is_refused(copy: Path):
    shutil.move(copy / "2", copy / "7")
    checkpoints = Checkpoints(copy)
    assert checkpoints.restore(state(0)).step == 1
    assert checkpoints.refused[0].endswith("7 holds step 2; was it renamed?")


def test_another_form_is_an_error_and_no_damage(two_steps: Path):
    checkpoints = Checkpoints(two_steps)
    with pytest.raises(
        ValueError, match=r"/2 holds leaf 'params/kernel' as float32.30,40., expected bfloat16.30,40.; values"
    ):
        checkpoints.restore(
            state(0)._replace(params=jax.tree.map(lambda leaf: leaf.astype("bfloat16"), state(0).params))
        )
    with pytest.raises(ValueError, match=r"/2 lacks leaf 'extra', which is needed here"):
        checkpoints.restore({**state(0)._asdict(), "extra": np.zeros(1)})
    assert checkpoints.refused == []


def test_a_checkpoint_of_a_newer_format_is_refused_and_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path, 1)
    with monkeypatch.context() as newer:
        newer.setattr(checkpoint_format, "CHECKPOINT_FORMAT", 4)
        save(tmp_path, 2)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match=r"/2 has format 4, and this s2s_jax reads format 3; update s2s_jax$"):
        checkpoints.restore(state(0))
    assert checkpoints.verify(2)[0].endswith("update s2s_jax")
    assert checkpoints.restore(state(0), step=1).step == 1


def test_a_checkpoint_of_an_older_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as older:
        older.setattr(checkpoint_format, "CHECKPOINT_FORMAT", 2)
        save(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"has format 2, .* reads format 3; use the version that wrote it"):
        Checkpoints(tmp_path).restore(state(0))


def test_the_newest_and_the_best_are_kept(tmp_path: Path):
    losses = {10: 3.0, 20: 1.0, 30: 2.0, 40: 5.0, 50: float("nan"), 60: None}
    with Checkpoints(tmp_path, CheckpointConfig(keep=2, best=1)) as checkpoints:
        for step, loss in losses.items():
            metrics = None if loss is None else {"loss": loss}
            checkpoints.save(step, {"w": np.full(2, step)}, metrics=metrics, about={})
    assert Checkpoints(tmp_path).steps() == [20, 50, 60]
    assert Checkpoints(tmp_path).restore({"w": np.zeros(2, int)}, best=True).step == 20
    shutil.rmtree(tmp_path / "20")
    assert Checkpoints(tmp_path).restore({"w": np.zeros(2, int)}, best=True).step == 60  # none measured: the newest


def test_the_next_best_is_taken_when_the_best_is_damaged(tmp_path: Path):
    save(tmp_path, 1, 2, 3, config=CheckpointConfig(keep=3))
    shutil.rmtree(tmp_path / "1" / "state")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(state(0), best=True).step == 2
    assert len(checkpoints.refused) == 1


@pytest.mark.parametrize(
    ("losses", "keep", "best", "expected"),
    [
        ({}, 1, 1, set()),
        ({1: 0.0, 2: 1.0, 3: 2.0}, 1, 0, {3}),
        ({1: 0.0, 2: 0.0, 3: 2.0}, 1, 1, {1, 3}),
        ({1: None, 2: 9.0, 3: None, 4: None}, 2, 2, {2, 3, 4}),
        ({1: 3.0, 2: 2.0, 3: 1.0, 4: 4.0}, 1, 2, {2, 3, 4}),
    ],
)
def test_kept_is_the_union_of_newest_and_best(
    losses: dict[int, float | None], keep: int, best: int, expected: set[int]
):
    assert kept_steps(losses, keep=keep, best=best) == expected


def test_a_step_saved_twice_is_written_once_unless_something_changed(tmp_path: Path):
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(1, state(1), metrics=None, about={})
        checkpoints.wait()
        written = (tmp_path / "1").stat().st_ino
        checkpoints.save(1, state(1), metrics=None, about={})
        checkpoints.wait()
        assert (tmp_path / "1").stat().st_ino == written
        checkpoints.save(1, state(1), metrics={"loss": 1.0}, about={})
    assert Checkpoints(tmp_path).record(1)["metrics"] == {"loss": 1.0}


def test_a_save_behind_a_good_step_is_refused(copy: Path):
    with (
        Checkpoints(copy, CheckpointConfig()) as checkpoints,
        pytest.raises(ValueError, match=r"holds step 2, newer than step 1 which is to be saved; move the newer"),
    ):
        checkpoints.save(1, state(7), metrics=None, about={})
    assert restored_or_refused(copy) == []


def test_a_tree_may_be_donated_as_soon_as_save_returns(tmp_path: Path):
    advance = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    tree = {"w": jnp.zeros(100_000)}
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(1, tree, metrics=None, about={})
        for _ in range(5):
            tree = advance(tree)
    assert not Checkpoints(tmp_path).restore(tree).tree["w"].any()


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 100 kB, which is what a full disk looks like to whoever writes more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_write_that_fails_is_told_and_harms_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    small, big = {"w": np.zeros(3)}, {"w": np.random.default_rng(0).normal(size=100_000)}
    with Checkpoints(tmp_path, CheckpointConfig(keep=1)) as checkpoints:
        checkpoints.save(1, small, metrics=None, about={})
        checkpoints.save(2, big, metrics=None, about={})
        with pytest.raises(CheckpointError, match=r"^checkpoint 2 was not written to .*File too large"):
            checkpoints.wait()
        assert os.listdir(tmp_path) == ["1"], "nothing unfinished takes up space on a full disk"
        checkpoints.save(3, big, metrics=None, about={})
        with pytest.raises(CheckpointError, match=r"^checkpoint 3 was not written"):
            checkpoints.save(4, small, metrics=None, about={})
        checkpoints.save(5, small, metrics=None, about={})
    assert Checkpoints(tmp_path).steps() == [5]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("small_files")
def test_leaving_with_a_failed_write_is_an_error_and_an_error_keeps_its_name(tmp_path: Path):
    big = {"w": np.random.default_rng(0).normal(size=100_000)}
    for leaving in (None, SystemExit(0)):
        with pytest.raises(CheckpointError, match=r"^checkpoint 1 was not written"):
            leave(tmp_path, big, leaving)
    with pytest.raises(KeyError) as caught:
        leave(tmp_path, big, KeyError("mine"))
    assert caught.value.__notes__[0].startswith("checkpoint 1 was not written")


def leave(directory: Path, tree: Any, leaving: BaseException | None) -> None:
    with Checkpoints(directory, CheckpointConfig()) as checkpoints:
        checkpoints.save(1, tree, metrics=None, about={})
        if leaving is not None:
            raise leaving


def test_a_step_that_vanished_after_its_write_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Written:
        def result(self) -> None: ...

    monkeypatch.setattr(checkpoints_module, "LATENCY", (0,))
    monkeypatch.setattr(checkpoints_module, "start_writing", lambda *rest, **named: Written())
    with (
        pytest.raises(CheckpointError, match=r"checkpoint 1 is not in .*, although its write ended"),
        Checkpoints(tmp_path, CheckpointConfig()) as checkpoints,
    ):
        checkpoints.save(1, state(1), metrics=None, about={})


def test_a_step_that_a_network_file_system_shows_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Row 49 of the faults."""
    looked, is_there = [], Checkpoints._is_there

    def late(checkpoints: Checkpoints, step: int, record: Any) -> bool:
        looked.append(step)
        return len(looked) > 2 and is_there(checkpoints, step, record)

    monkeypatch.setattr(Checkpoints, "_is_there", late)
    monkeypatch.setattr(checkpoints_module, "LATENCY", (0, 0.01, 0.01))
    save(tmp_path, 1)
    assert len(looked) == 3


def test_shapes_are_checked_before_memory_is_taken(copy: Path):
    """Row 46 of the faults: a forged record, with the right checksum, asks for more memory than any machine has."""
    file = copy / "2" / "_CHECKPOINT_METADATA"
    metadata = json.loads(file.read_text())
    custom = metadata["custom_metadata"]
    custom["s2s_jax"]["leaves"]["params/kernel"]["shape"] = [10**9, 10**9]
    custom["crc32"] = checkpoint_format._seal(custom["s2s_jax"])
    file.write_text(json.dumps(metadata))
    checkpoints = Checkpoints(copy)
    with pytest.raises(ValueError, match=r"holds leaf 'params/kernel' as float32\[1000000000,1000000000\], expected"):
        checkpoints.restore(state(0))
    with pytest.raises(CheckpointError, match=r"it is float32\[30,40\], was float32\[1000000000,1000000000\] when"):
        checkpoints.restore_raw(2)


def test_each_record_names_its_run_and_each_written_step_is_told(tmp_path: Path):
    written: list[int] = []
    with Checkpoints(tmp_path, CheckpointConfig(), run={"seed": 3}, on_written=written.append) as checkpoints:
        checkpoints.save(1, state(1), metrics=None, about={})
        assert written == []
        checkpoints.save(2, state(2), metrics=None, about={})
        assert written == [1]
    assert written == [1, 2]
    assert Checkpoints(tmp_path).record(2)["run"] == {"seed": 3}


def test_a_disk_without_space_is_told_before_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: full)
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        with pytest.raises(CheckpointError, match=r"^checkpoint 1 of 1.6 MB lacks 1.6 MB in .*; make space$"):
            checkpoints.save(1, {"w": np.zeros(200_000)}, metrics=None, about={})
        checkpoints.save(1, {"w": np.zeros(2)}, metrics=None, about={})


def test_a_directory_that_cannot_be_written_is_named_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"^cannot write checkpoints to .*/file/checkpoints: Not a directory$"):
        Checkpoints(tmp_path / "file" / "checkpoints", CheckpointConfig())


def test_reading_touches_nothing(copy: Path):
    unfinished = copy / "3.orbax-checkpoint-tmp"
    unfinished.mkdir()
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        with pytest.raises(ValueError, match=r"is not open for writing; give a CheckpointConfig"):
            checkpoints.save(3, state(3), metrics=None, about={})
    assert unfinished.is_dir(), "another process may be writing it"
    with Checkpoints(copy, CheckpointConfig()) as writing:
        assert not unfinished.exists()
    with pytest.raises(ValueError, match=r"and save before `close`"):
        writing.save(3, state(3), metrics=None, about={})


def test_what_is_not_there_is_said(tmp_path: Path, two_steps: Path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoints at .*/nowhere: there is no such directory"):
        Checkpoints(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"^no checkpoint in "):
        Checkpoints(tmp_path).restore(state(0))
    assert Checkpoints(tmp_path).latest() is None
    for asked in (Checkpoints(two_steps).verify, Checkpoints(two_steps).record, Checkpoints(two_steps).restore_raw):
        with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 3 in .*; there: 1, 2$"):
            asked(3)


def test_a_relative_directory_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with Checkpoints(Path("here"), CheckpointConfig()) as checkpoints:
        monkeypatch.chdir("/")
        checkpoints.save(1, state(1), metrics=None, about={})
    assert (tmp_path / "here" / "1").is_dir()


def test_the_record_is_plain_json(two_steps: Path):
    said = json.loads((two_steps / "2" / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    assert said["s2s_jax"]["format"] == 3
    assert said["crc32"] == checkpoint_format._seal(said["s2s_jax"])


@pytest.mark.parametrize(
    ("metrics", "about", "said"),
    [
        ({"bleu": 1.0}, {}, r"metrics must hold 'loss', by which the best checkpoint is chosen, got \['bleu'\]"),
        (None, {"path": Path("x")}, "about must be what JSON can represent, got .*PosixPath"),
        (None, {"rate": float("nan")}, "about must be what JSON can represent, got .*nan"),
    ],
)
def test_what_cannot_be_said_is_refused(
    tmp_path: Path, metrics: dict[str, float] | None, about: dict[str, Any], said: str
):
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints, pytest.raises(ValueError, match=said):
        checkpoints.save(1, state(1), metrics=metrics, about=about)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("every", 0, "^checkpoint.every must be positive, got 0$"),
        ("keep", -1, "^checkpoint.keep must be positive, got -1$"),
        ("best", -1, "^checkpoint.best must be 0 or more, got -1$"),
    ],
)
def test_a_config_checks_itself(field: str, value: int, said: str):
    with pytest.raises(ValueError, match=said):
        CheckpointConfig(**{field: value})


RUN = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from s2s_jax.training.checkpoint.checkpoints import CheckpointConfig, Checkpoints
directory, end = Path(sys.argv[1]), sys.argv[2]
with Checkpoints(directory, CheckpointConfig()) as checkpoints:
    checkpoints.save(1, {"w": np.arange(3)}, metrics=None, about={})
    if end == "exit":
        sys.exit(0)
    checkpoints.save(2, {"w": np.random.default_rng(0).normal(size=3_000_000)}, metrics=None, about={})
    while not [*directory.glob("2.*/state/*"), *directory.glob("2")]:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_exit_keeps_the_last_step_and_a_kill_the_one_before(tmp_path: Path):
    runs = {
        end: subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path / end), end], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for end in ("exit", "kill")
    }
    said = {end: process.communicate()[0] for end, process in runs.items()}
    assert said == {"exit": b"", "kill": b""}
    assert (runs["exit"].returncode, runs["kill"].returncode) == (0, -9)
    assert os.listdir(tmp_path / "exit") == ["1"]
    assert len(os.listdir(tmp_path / "kill")) == 2, "the kill came too late to leave an unfinished step"
    for end in runs:
        with Checkpoints(tmp_path / end, CheckpointConfig()) as checkpoints:
            assert checkpoints.restore({"w": np.zeros(3, int)}).tree["w"].tolist() == [0, 1, 2]
        assert os.listdir(tmp_path / end) == ["1"]
