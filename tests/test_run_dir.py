"""A run directory: what is there is never lost, and what does not belong together is never trained or loaded."""

import dataclasses
import errno
import io
import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from json_page import check_keys
from rich.console import Console

from s2s_jax import __version__, run
from s2s_jax.cli import main
from s2s_jax.config import Experiment
from s2s_jax.run import run_dir
from s2s_jax.run.environment import commit, read_starts
from s2s_jax.run.opening import open_run
from s2s_jax.training.checkpoint.format import CheckpointError
from s2s_jax.training.checkpoint.pytree_io import digest
from s2s_jax.training.loop import TrainingLoop
from s2s_jax.training.metrics_writer import read_metrics
from s2s_jax.training.optimizer import OptimizerConfig, learning_rate

QUIET = Console(quiet=True)
SMALL = (
    "steps=4", "checkpoint.every=2", "validation.every=2", "validation.sentences=0", "data.train_size=50",
    "data.eval_size=5", "optimizer.warmup_steps=0",
)  # fmt: skip


def experiment(*changes: str):
    return tiny.experiment(*SMALL, *changes)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file but the lock, by its path."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, with checkpoints at 2 and 4."""
    directory = tmp_path_factory.mktemp("begun") / "run"
    run.fit(experiment(), directory, QUIET)
    return directory


def test_a_run_knows_its_starts_and_what_was_printed(copy):
    shown = io.StringIO()
    run.fit(experiment("steps=6"), copy, Console(file=shown, width=300), extend=True)
    first, second = read_starts(copy)
    assert (first["step"], second["step"], second["s2s_jax"]) == (0, 4, __version__)
    assert second["command"]
    assert set(second["packages"]) >= {"jax", "flax"}
    lines = [line.split(" ", 2)[2] for line in (copy / "log.txt").read_text().splitlines()]
    assert lines[-len(shown.getvalue().splitlines()) :] == shown.getvalue().splitlines()
    assert sum(line.startswith("devices: ") for line in lines) == 2
    (copy / "environment.json").write_text("{")
    assert read_starts(copy) == []


def test_a_commit_is_that_of_the_folder_with_its_changes(tmp_path):
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    assert commit(tmp_path) is None
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "x")):
        (tmp_path / "file").write_text("1")
        subprocess.run([*git, *words], check=True)
    head = commit(tmp_path)
    assert len(head) == 40
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{head}+changes"


@pytest.fixture
def copy(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun, tmp_path / "copy"))


def refused(directory: Path, *changes: str, match: str, error: type[Exception] = ValueError, **how: bool) -> None:
    """Training is refused, and every byte is as before."""
    before = contents(directory)
    with pytest.raises(error, match=match):
        run.fit(experiment(*changes), directory, QUIET, **how)
    assert contents(directory) == before


def killed_at_the_first_step(given: Experiment, directory: Path, monkeypatch, **how: bool) -> None:
    """Train, and be killed when all is ready for the first step."""

    def killed(loop: TrainingLoop) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(TrainingLoop, "run", killed)
    with pytest.raises(RuntimeError, match="killed"):
        run.fit(given, directory, QUIET, **how)
    monkeypatch.undo()


# ---- nothing is lost


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_that_is_no_run_is_refused_untouched(tmp_path: Path, overwrite: bool):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    for name in ("facts.json", "metrics.jsonl"):
        (tmp_path / name).write_text("mine")
    match = r"is not empty and holds no run \(it has config.json, facts.json, metrics.jsonl\); give another --run"
    refused(tmp_path, match=match, overwrite=overwrite)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "facts.json", "metrics.jsonl"]
    for path in tmp_path.iterdir():
        path.unlink()
    strange = tmp_path / "checkpoints" / "100"  # of another program, which uses Orbax too
    (tmp_path / "checkpoints" / "200.orbax-checkpoint-tmp-7").mkdir(parents=True)
    strange.mkdir()
    refused(tmp_path, match=r"holds no run \(it has checkpoints\)", overwrite=overwrite)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert not (tmp_path / "lock").exists()
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "lock").write_text("what is this?")
    refused(tmp_path, match=r"holds no run \(it has lock\)", overwrite=overwrite)
    assert (tmp_path / "lock").read_text() == "what is this?"


def test_a_run_whose_checkpoints_are_gone_is_refused_until_it_may_be_moved_aside(copy: Path, tmp_path: Path):
    shutil.move(copy / "checkpoints", tmp_path / "elsewhere")
    match = rf"had a checkpoint of step 4, and .*checkpoints has none; put it back, .*--overwrite, .* to {copy}.old-1"
    refused(copy, match=match)
    refused(copy, "data.train=no.tsv", "data.validation=no.tsv", overwrite=True, match="no.tsv", error=OSError)
    before = contents(copy)
    run.fit(experiment("seed=1", "steps=2"), copy, QUIET, overwrite=True)
    old = tmp_path / "copy.old-1"
    assert contents(old) == before
    assert run.read_experiment(str(copy)).seed == 1
    shutil.move(tmp_path / "elsewhere", old / "checkpoints")
    assert run.load(old).step in (2, 4)


def test_an_overwritten_run_is_moved_to_the_next_number_that_is_free(copy: Path, tmp_path: Path):
    (tmp_path / "copy.old-1").mkdir()
    before = contents(copy)
    run.fit(experiment("seed=1", "steps=2"), copy, QUIET, overwrite=True)
    assert contents(tmp_path / "copy.old-2") == before
    assert [path.name for path in (copy / "checkpoints").iterdir()] == ["2"]


def test_a_start_that_never_came_to_a_checkpoint_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="data.max_length=1 would drop"):
        run.fit(experiment("data.max_length=1"), tmp_path / "run", QUIET)
    assert os.listdir(tmp_path / "run") == ["lock"]

    killed_at_the_first_step(experiment("seed=3"), tmp_path / "run", monkeypatch)
    assert (tmp_path / "run" / "config.json").exists()
    match = r"was begun with other settings \(seed: 3 before, 0 now\) and has no checkpoint; give the same ones, give"
    refused(tmp_path / "run", match=match)
    assert int(run.fit(experiment("seed=3"), tmp_path / "run", QUIET).step) == 4


def test_a_kill_before_the_first_file_leaves_nothing_in_the_way(tmp_path: Path):
    (tmp_path / "lock").write_text("host far pid 12\n")
    (tmp_path / "config.json.part").write_text("{")
    (tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir(parents=True)
    assert int(run.fit(experiment("steps=2"), tmp_path, QUIET).step) == 2


# ---- steps


def test_other_steps_are_another_run_where_the_schedule_reads_them(copy: Path):
    match = (
        r"is trained with steps=4, which optimizer.schedule=cosine reads: .* Give --steps 4, or another --run to train "
        r"anew, or --extend to follow that of 6 steps from step 4 on"
    )
    refused(copy, "steps=6", match=match)
    refused(copy, "steps=2", match=r"has trained 4 steps, more than steps=2; raise --steps, or give another --run")
    refused(copy, "steps=2", extend=True, match="more than steps=2")


def test_epochs_are_steps_once_the_data_is_read_and_are_resumed_as_such(tmp_path: Path):
    """Of 150 pairs in batches of 64, an epoch has three batches."""
    directory, changes = tmp_path / "run", ("data.train_size=150", "checkpoint.every=3", "validation.every_epochs=1")
    given = dataclasses.replace(tiny.experiment(*SMALL[1:], *changes), epochs=2, steps=10_000)
    run.fit(given, directory, QUIET)
    recorded = run.read_experiment(directory)
    assert (recorded.steps, recorded.epochs, run.load(directory).facts["batches_per_epoch"]) == (6, 2, 3)
    assert [one["step"] for one in read_metrics(directory / "metrics.jsonl") if one["kind"] == "validation"] == [3, 6]
    assert open_run(directory, given, overwrite=False, extend=False).experiment == recorded
    more = dataclasses.replace(given, epochs=3)
    with pytest.raises(ValueError, match=r"trained with steps=6, which optimizer.schedule=cosine reads: with steps=9 "):
        open_run(directory, more, overwrite=False, extend=False)
    extended = open_run(directory, more, overwrite=False, extend=True).experiment
    assert (extended.steps, extended.optimizer.extended) == (9, ((6, 6),))
    fewer = dataclasses.replace(given, epochs=1)
    with pytest.raises(ValueError, match=r"has trained 6 steps, more than steps=3 \(epochs=1\); raise --epochs, or"):
        open_run(directory, fewer, overwrite=False, extend=False)
    run_dir.write_config(directory, dataclasses.replace(recorded, epochs=0))  # as if it had been begun with steps
    assert open_run(directory, given, overwrite=False, extend=False).experiment.steps == 6
    (directory / "facts.json").unlink()
    with pytest.raises(ValueError, match=r"does not say how many batches an epoch has .* epochs=2 needs; give --steps"):
        open_run(directory, given, overwrite=False, extend=False)


def test_an_extended_run_records_the_shape_of_its_schedule_and_is_resumed_bit_for_bit(
    copy: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    killed_at_the_first_step(experiment("steps=8"), copy, monkeypatch, extend=True)
    recorded = run.read_experiment(copy)
    assert (recorded.steps, recorded.optimizer.extended) == (8, ((4, 4),))
    refused(copy, "steps=8", match="was extended; give --extend again, or resume it by itself: s2s train")
    assert run.load(copy).step in (2, 4)
    whole = run.fit(experiment("steps=8"), shutil.copytree(begun, tmp_path / "whole"), QUIET, extend=True)
    assert digest(run.fit(recorded, copy, QUIET)) == digest(whole)
    shutil.rmtree(copy / "checkpoints" / "8")
    assert digest(run.fit(experiment("steps=8"), copy, QUIET, extend=True)) == digest(whole)
    assert run.read_experiment(copy) == recorded


def test_an_extended_schedule_is_one_shape_after_the_other():
    config = OptimizerConfig(schedule="cosine", warmup_steps=3, extended=((10, 10), (15, 30)))
    parts = [(0, 10, 10), (10, 15, 30), (15, 40, 40)]
    plain = dataclasses.replace(config, extended=())
    expected = [float(learning_rate(plain, steps)(step)) for first, end, steps in parts for step in range(first, end)]
    np.testing.assert_array_equal([float(learning_rate(config, 40)(step)) for step in range(40)], expected)
    with pytest.raises(ValueError, match=r"optimizer.extended must have rising last steps and positive steps"):
        OptimizerConfig(extended=((10, 10), (5, 30)))


# ---- one run


def test_a_flipped_bit_in_settings_or_facts_is_found_and_named(copy: Path):
    for name, read in (("config.json", run_dir.read_experiment), ("facts.json", run_dir.read_facts)):
        path = copy / name
        whole, right = path.read_bytes(), read(copy)
        for position in range(0, len(whole), 11):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << position % 8
            path.write_bytes(damaged)
            try:
                assert read(copy) == right  # white space
            except ValueError as error:
                assert str(path) in str(error)
        for content in (b"[]", b"", b"null", whole[:-9], b"\xff" + whole, b"[" * 100_000):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=str(path)):
                read(copy)
        path.write_bytes(whole)


def edit(directory: Path, old: str, new: str) -> None:
    """Change a run's settings together with their checksum."""
    record = json.loads((directory / "config.json").read_text().replace(old, new))
    del record["crc32"]
    run_dir.write_sealed(directory / "config.json", record)


def test_settings_that_are_not_those_of_the_checkpoints_are_refused(copy: Path):
    edit(copy, '"learning_rate": 0.02', '"learning_rate": 0.03')
    match = r"config.json is not that of checkpoint 4 \(optimizer.learning_rate: 0.03 here, 0.02 there\); restore it"
    refused(copy, match=match)
    refused(copy, "optimizer.learning_rate=0.03", match=match)
    with pytest.raises(ValueError, match=match):
        run.load(copy)
    (copy / "config.json").unlink()
    refused(copy, "optimizer.learning_rate=0.03", match=r"other settings \(optimizer.learning_rate: 0.02 before, 0.03")
    run.fit(experiment(), copy, QUIET)
    assert run.read_experiment(copy) == experiment()


def test_another_runs_checkpoint_is_refused_and_kept(copy: Path, tmp_path: Path):
    other = tmp_path / "other"
    run.fit(experiment("seed=5", "steps=6", "validation.every=6", "checkpoint.every=6"), other, QUIET)
    shutil.copytree(other / "checkpoints" / "6", copy / "checkpoints" / "6")
    match = r"checkpoints/6 was saved by another run \(seed: 5, here 0.*\); move it out of .*checkpoints\.$"
    refused(copy, match=match, error=CheckpointError)
    with pytest.raises(CheckpointError, match=match):
        run.load(copy)


def test_facts_that_are_not_those_of_the_checkpoints_are_refused(copy: Path):
    facts = run_dir.read_facts(copy)
    run_dir.write_facts(copy, {**facts, "data": "0" * 32})
    match = r"facts.json is not that of checkpoint 4 \(training data: '0{12}' here, '\w{12}' there\); restore it from a"
    with pytest.raises(ValueError, match=match):
        run.load(copy)
    run.fit(experiment(), copy, QUIET)
    assert run_dir.read_facts(copy) == facts


@pytest.fixture(scope="module")
def from_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.tsv, held.tsv and a run on them."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "train.tsv").write_text("a b\tb a\nc d\td c\n" * 5)
    (folder / "held.tsv").write_text("a d\td a\n")
    run.fit(on_files(folder), folder / "run", QUIET)
    return folder


def on_files(folder: Path, *changes: str):
    files = f"data.train={folder}/train.tsv", f"data.validation={folder}/held.tsv"
    return experiment(*files, "data.lengths=[0, 0]", "optimizer.schedule=constant", *changes)


@pytest.mark.parametrize("facts", ["kept", "deleted"])
@pytest.mark.parametrize(("name", "said"), [("train", "training data: '"), ("held", "validation data: '")])
def test_data_that_was_edited_is_found_and_data_that_was_moved_is_the_same(from_files, tmp_path, name, said, facts):
    """Row 26 of the faults."""
    folder = Path(shutil.copytree(from_files, tmp_path / "moved"))
    directory = folder / "run"
    if facts == "deleted":
        (directory / "facts.json").unlink()
    assert int(run.fit(on_files(folder), directory, QUIET).step) == 4
    assert run.read_experiment(directory).data.train == f"{folder}/train.tsv"
    assert run.load(directory).facts["data"] == run.load(from_files / "run").facts["data"]
    path = folder / f"{name}.tsv"
    path.write_text(path.read_text().replace("d\t", "c\t", 1))
    if facts == "deleted":
        (directory / "facts.json").unlink()
    before = contents(directory)
    with pytest.raises(ValueError, match=rf"was trained on other data \({said}.*; restore it, or give another --run"):
        run.fit(on_files(folder, "steps=8"), directory, QUIET)
    assert contents(directory) == before


def test_another_tokenizer_is_named_and_a_lost_one_is_trained_again(copy: Path):
    path = copy / "target.tokenizer.json"
    whole = path.read_text()
    state = json.loads(whole)
    state["symbols"][0], state["symbols"][1] = state["symbols"][1], state["symbols"][0]
    path.write_text(json.dumps(state))
    refused(
        copy, match=r"target.tokenizer.json is not the one the run was trained with \(sha256 \w{12}, .* or delete it"
    )
    path.unlink()
    run.fit(experiment(), copy, QUIET)
    assert path.read_text() == whole


def test_a_tokenizer_file_may_move_and_not_change(copy: Path, begun: Path, tmp_path: Path):
    file = Path(shutil.copy(begun / "source.tokenizer.json", tmp_path / "own.json"))
    changes = (f"tokenizer.source.file={file}", "steps=1", "seed=9")
    run.fit(experiment(*changes), tmp_path / "run", QUIET)
    moved = file.rename(tmp_path / "moved.json")
    run.fit(experiment(f"tokenizer.source.file={moved}", *changes[1:]), tmp_path / "run", QUIET)
    moved.write_bytes((begun / "target.tokenizer.json").read_bytes().replace(b'"a"', b'"A"'))
    with pytest.raises(ValueError, match=r"tokenizer.source.file=.*moved.json is not the tokenizer that the run was"):
        run.fit(experiment(f"tokenizer.source.file={moved}", *changes[1:]), tmp_path / "run", QUIET)


# ---- damage around the checkpoints


def test_a_damaged_line_of_the_metrics_is_dropped_and_told(copy: Path, capsys):
    path = copy / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0][:9] + b"\xff" + lines[0][10:] + b"[1]\n" + b"".join(lines[1:]) + b'{"kind": "tra')
    run.fit(experiment(), copy, Console(width=300))
    assert f"{path} had 2 damaged lines, which are dropped" in capsys.readouterr().out
    assert path.read_bytes().startswith(b"".join(lines[1:]))
    assert run.newest_metrics(copy)


def test_a_crash_while_the_metrics_are_rewritten_loses_none(copy: Path, monkeypatch: pytest.MonkeyPatch):
    def crash(path: Path, target: Path) -> None:
        raise RuntimeError("crash")

    before = (copy / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(RuntimeError, match="crash"):
        run_dir.replace_file(copy / "metrics.jsonl", b"half")
    assert (copy / "metrics.jsonl").read_bytes() == before


def test_a_rename_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    run_dir.write_json(tmp_path / "x.json", {})
    assert synced == ["x.json.part", tmp_path.name]


def test_a_full_disk_names_the_file_and_keeps_its_content(copy: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = contents(copy)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*copy/config.json'"):
        run_dir.write_config(copy, experiment("seed=7"))
    assert contents(copy) == before


def test_a_run_goes_on_on_more_devices_and_not_in_another_precision(copy: Path, begun: Path):
    """Row 44 of the faults."""
    shutil.rmtree(copy / "checkpoints" / "4")
    refused(
        copy, "model.precision=bfloat16", match=r"other settings \(model.precision: 'float32' before, 'bfloat16' now"
    )
    two = run.fit(experiment("device.count=2"), copy, QUIET)
    one = run.fit(experiment(), begun, QUIET)  # done: its last state
    for ours, theirs in zip(jax.tree.leaves(two.params), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_clock_that_jumps_back_changes_no_duration(copy: Path, monkeypatch: pytest.MonkeyPatch):
    """Row 49 of the faults."""
    shutil.rmtree(copy / "checkpoints" / "4")
    clock = itertools.count(1e9, -3600)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    run.fit(experiment("record.log_every=1"), copy, QUIET)
    ended = run_dir_metrics(copy)[-1]
    rates = [record["tokens_per_second"] for record in run_dir_metrics(copy) if record["kind"] == "train"]
    assert 0 <= ended["seconds"] < 600
    assert min(rates) > 0


def run_dir_metrics(directory: Path) -> list[dict]:
    return [record for record in read_metrics(directory / "metrics.jsonl") if record["kind"] != "checkpoint"]


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_random_damage_beside_the_checkpoints_is_named_or_changes_nothing(begun: Path, copy: Path, damage: str):
    """Row 40 of the faults; test_checkpoint.py damages the files of checkpoints."""
    random = np.random.default_rng(0)
    right = run.load(begun)
    for name in ("config.json", "facts.json", "source.tokenizer.json", "target.tokenizer.json"):
        path = copy / name
        whole = path.read_bytes()
        damaged = bytearray(whole)
        place = int(random.integers(len(whole)))
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged[:place] if damage == "cut" else damaged)
        if damage == "delete":
            path.unlink()
        try:
            loaded = run.load(copy)
        except (ValueError, OSError) as error:
            assert path.name in str(error)
            assert "\n" not in str(error)
        else:
            assert (loaded.experiment, loaded.facts) == (right.experiment, right.facts)
        path.write_bytes(whole)


# ---- from the command line


@pytest.fixture
def s2s(capfd):
    """Run a command; its exit code, output and errors."""

    def command(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return code, *capfd.readouterr()

    return command


def file_of(folder: Path, *changes: str) -> Path:
    """A file with the experiment of this module."""
    file = folder / "own.py"
    file.write_text(f"from tiny import experiment as tiny\ndef experiment():\n    return tiny(*{SMALL + changes})\n")
    return file


@pytest.mark.parametrize(
    ("directory", "message"),
    [
        ("own.py", r"s2s: --run .*own.py is a file; give a directory, which may be new."),
        ("own.py/run", r"s2s: cannot write into .*own.py/run (Not a directory); give a --run that can be written"),
        ("/proc/run", "s2s: cannot write into /proc/run (No such file or directory); give a --run that can be written"),
        ("/dev/full", "s2s: --run /dev/full is a file; give a directory, which may be new."),
        ("/proc/self/fd", "s2s: /proc/self/fd is not empty and holds no run (it has "),
    ],
)
def test_a_place_that_cannot_be_a_run_is_one_line(s2s, tmp_path: Path, directory: str, message: str):
    """Row 47 of the faults."""
    code, out, errors = s2s("train", file_of(tmp_path), "--run", tmp_path / directory)
    assert (code, out) == (2, "")
    assert errors.count("\n") == 1
    assert all(part in errors for part in message.split(".*"))


def test_a_disk_that_cannot_be_written_is_one_line(s2s, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Row 47 of the faults; the tests may run as root, whom no permission stops."""
    opened = Path.open

    def read_only(path: Path, mode: str = "r", *rest, **named):
        if set(mode) & set("wa"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, mode, *rest, **named)

    file = file_of(tmp_path)
    monkeypatch.setattr(Path, "open", read_only)
    code, _, errors = s2s("train", file, "--run", copy)
    assert (code, errors) == (
        2, f"s2s: cannot write into {copy} (Read-only file system); give a --run that can be written\n"
    )  # fmt: skip


def test_a_run_that_gives_settings_to_another_says_that_it_gives_no_parameters(s2s, copy: Path, tmp_path: Path, fits):
    code, out, _ = s2s("train", copy, "--run", tmp_path / "new", "--steps", "2")
    assert code == 0
    expected = f"warning: {copy} gives its settings alone, not its parameters: {tmp_path / 'new'} is a run of its own"
    assert expected in out
    assert "warning" not in s2s("train", copy)[1]
    assert len(fits) == 2


def test_flags_extend_and_overwrite_a_run(s2s, copy: Path, tmp_path: Path, fits):
    for flag in ("--extend", "--overwrite"):
        assert s2s("train", file_of(tmp_path), "--run", copy, flag)[0] == 0
    assert [(how["extend"], how["overwrite"]) for how in fits] == [(True, False), (False, True)]


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What `run.fit` is called with, instead of training."""
    calls: list[dict] = []
    monkeypatch.setattr(run, "fit", lambda *_, **how: calls.append(how))
    return calls


def test_a_run_is_verified(s2s, copy: Path, tmp_path: Path):
    """Row 40 of the faults; the path has a space, `..` and an umlaut, as in row 47."""
    directory = tmp_path / "a b" / ".." / "ü"
    (tmp_path / "a b").mkdir()
    copy.rename(directory)
    code, out, errors = s2s("checkpoint", "verify", directory)
    assert (code, errors) == (0, "")
    assert "checkpoint 4" in out
    assert "every bit is as it was written" in out
    record = json.loads(s2s("checkpoint", "verify", directory, "--json")[1])
    check_keys("checkpoint verify", record)
    assert (record["run"], record["whole"]) == (str(directory), True)
    assert [(one["step"], one["problems"]) for one in record["checkpoints"]] == [(2, []), (4, [])]
    assert all(not problems for problems in record["files"].values())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("config.json", "config.json is not JSON"),
        ("facts.json", "facts.json is "),
        ("source.tokenizer.json", "source.tokenizer.json is "),
        ("metrics.jsonl", "metrics.jsonl has 1 damaged lines"),
        ("checkpoints/2/state", "step 2: leaf "),
        ("checkpoints/4/_CHECKPOINT_METADATA", "_CHECKPOINT_METADATA "),
    ],
)
def test_damage_is_named_and_the_exit_code_is_one(s2s, copy: Path, name: str, problem: str):
    """Row 40 of the faults."""
    path = copy / name
    if path.is_dir():
        path = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    damaged = bytearray(path.read_bytes())
    place = len(damaged) // 2
    damaged[place] ^= 0x80
    path.write_bytes(damaged)
    before = contents(copy)
    code, out, errors = s2s("checkpoint", "verify", copy)
    assert (code, errors) == (1, "")
    assert "damaged" in out
    assert problem in out
    record = json.loads(s2s("checkpoint", "verify", copy, "--json")[1])
    assert not record["whole"]
    assert contents(copy) == before


def test_what_cannot_be_verified_is_one_line(s2s, copy: Path, tmp_path: Path):
    code, _, errors = s2s("checkpoint", "verify", tmp_path / "none")
    assert (code, errors) == (2, f"s2s: no run at {tmp_path / 'none'}: it has neither config.json nor checkpoints.\n")
    shutil.rmtree(copy / "checkpoints")
    code, out, _ = s2s("checkpoint", "verify", copy)
    assert (code, out.splitlines()[-1]) == (1, "no checkpoint")
