"""A grid of tiny runs: planned, run, killed, failed, watched, verified and reported from the command line."""

import dataclasses
import hashlib
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import typing
from pathlib import Path

import numpy as np
import pytest
import tiny
from json_page import check_keys
from rich.console import Console

from s2s_jax.cli import main
from s2s_jax.cli.arguments import command_parsers, make_parser
from s2s_jax.config import override
from s2s_jax.evaluate.metrics import METRICS, Metric
from s2s_jax.run.inputs import kept_inputs, read_inputs
from s2s_jax.run.run_dir import read_json, write_json, write_sealed
from s2s_jax.sweep import fingerprint, heartbeat, status
from s2s_jax.sweep import tune as tuning_module
from s2s_jax.sweep.executors.local import Worker
from s2s_jax.sweep.fingerprint import assign_dirs, trial_identity
from s2s_jax.sweep.heartbeat import show_sign_of_life
from s2s_jax.sweep.launch import EXECUTORS, ExecutorConfig, ExecutorName, launch
from s2s_jax.sweep.plan import find_trials, identical_points, make_plan, trial_groups
from s2s_jax.sweep.report.comparisons import compare_to_baseline
from s2s_jax.sweep.report.tables import table_columns
from s2s_jax.sweep.results import collect_results, read_metrics, read_result, validation_curves
from s2s_jax.sweep.status import StatusReader, StatusRow, seconds_left, status_rows, status_screen, status_summary
from s2s_jax.sweep.sweep import SplitName, Sweep, grid_points, grid_trials
from s2s_jax.sweep.trial import run_group
from s2s_jax.sweep.trial_files import (
    bad_files,
    launch_mode,
    read_counts,
    read_outcome,
    read_record,
    record_failure,
    record_success,
)
from s2s_jax.sweep.tune import tune
from s2s_jax.sweep.tuning import PRUNERS, SAMPLERS, PrunerName, Range, SamplerName, Tuning
from s2s_jax.sweep.verify import verify_trial
from s2s_jax.text.example import Example
from s2s_jax.text.sources import SOURCES, SPLITS
from s2s_jax.training.lock import Lock
from s2s_jax.training.metrics_writer import append_record, records_of

SCORE = "model.attention.score"


def sweep(**changes):
    settings = {
        "base": tiny.experiment("steps=3", "data.train_size=200", "data.eval-size=20", "validation.every=3"),
        "axes": {SCORE: ["none", "dot"]},
        "compare": SCORE,
        "baseline": "none",
        "seeds": (0,),
    }
    return Sweep(**settings | changes)


def run_all(made, folder):
    for group in trial_groups(made, make_plan(made, folder).trial_dirs):
        run_group(group)
    return make_plan(made, folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep that is done."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, run_all(sweep(), folder)


def test_replicas_are_all_that_one_program_can_train(tmp_path):
    rates = {"optimizer.learning_rate": [1e-3, 1e-2], "model.embedding": [8, 16]}
    made = sweep(axes=rates, compare="model.embedding", baseline="8", seeds=(0, 1), replicas=True)
    found = trial_groups(made, assign_dirs(list(grid_trials(made)), tmp_path))
    assert [len(group) for group in found] == [4, 4]
    assert [{spec.point["model.embedding"] for spec in group} for group in found] == [{"8"}, {"16"}]


def test_replicas_that_diverge_leave_the_rest_done(tmp_path):
    """A second try, which must be asked for, trains only those that have no numbers, and they stay replicas."""
    rates = {"optimizer.learning_rate": [1e-3, 1e38]}
    base = tiny.experiment(
        "steps=3", "data.train_size=200", "data.eval-size=20", "optimizer.name=sgd", "checkpoint.every=1"
    )
    made = sweep(base=base, axes=rates, compare="optimizer.learning_rate", baseline="0.001", replicas=True)
    (group,) = trial_groups(made, assign_dirs(list(grid_trials(made)), tmp_path))
    good, bad = (spec.folder for spec in group)
    for _ in range(2):
        assert run_group(group) == "diverged"
        assert read_outcome(good)["status"] == "done"
        assert "the step was not taken" in read_outcome(bad)["error"]
    trial_dirs = assign_dirs(list(grid_trials(made)), tmp_path)
    assert trial_groups(made, trial_dirs) == []
    ((left,),) = trial_groups(made, trial_dirs, diverged=True)
    assert left.folder == bad
    assert run_group((left,)) == "diverged"
    assert launch_mode(good) == launch_mode(bad) == "replicas"


def test_the_grid_is_every_combination_that_is_kept():
    made = sweep(
        seeds=(0, 7),
        axes={SCORE: ["none", "dot"], "width": {"narrow": {"model.embedding": 8}, "wide": {"model.embedding": 24}}},
        keep=lambda point: point["width"] == "wide" or point[SCORE] == "none",
        adapt=lambda point: {"steps": 5} if point[SCORE] == "dot" else {},
    )
    assert [tuple(point.values()) for point in grid_points(made)] == [
        ("none", "narrow"),
        ("none", "wide"),
        ("dot", "wide"),
    ]
    found = list(grid_trials(made))
    assert [(trial.experiment.model.embedding, trial.experiment.steps, trial.seed) for trial in found] == [
        (8, 3, 0), (8, 3, 7), (24, 3, 0), (24, 3, 7), (24, 5, 0), (24, 5, 7)
    ]  # fmt: skip
    assert all(trial.experiment.seed == trial.seed for trial in found)
    assert found[-1].title == "dot-wide-seed7"


def test_named_choices_are_those_of_their_tables():
    (executor,) = (action for action in command_parsers(make_parser())["sweep"]._actions if action.dest == "executor")
    assert set(typing.get_args(ExecutorName)) == set(EXECUTORS) == set(executor.choices or ())
    assert set(typing.get_args(SamplerName)) == set(SAMPLERS)
    assert set(typing.get_args(PrunerName)) == set(PRUNERS)
    assert typing.get_args(SplitName) == SPLITS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare": "model.attention.scor"}, "compare must be one of model.attention.score, got"),
        ({"baseline": "dto"}, "did you mean 'dot'"),
        ({"axes": {SCORE: []}}, "axis 'model.attention.score' has no values"),
        ({"seeds": (1, 1)}, "seeds must differ, got [1, 1]"),
        ({"seeds": ("0",)}, "seeds must be a whole number, got '0'"),
        ({"metrics": "bleu"}, "metrics must be a list, got 'bleu'"),
        ({"retries": "1"}, "retries must be a whole number, got '1'"),
        ({"axes": {SCORE: "dot"}}, "axis 'model.attention.score' must be a list of values, or a dict"),
        ({"split": "tset"}, "split must be one of test, train, validation, got 'tset'; did you mean 'test'?"),
        ({"seeds": ()}, "needs at least one seed and one metric"),
        ({"metrics": ("exact",)}, "metrics must be one of"),
        ({"keep": lambda point: False}, "keep() leaves no point with model.attention.score=none"),
        ({"axes": {SCORE: ["none", "dto"]}}, "the point model.attention.score=dto: "),
        ({"axes": {SCORE: ["none"], "model.sise": [3]}}, "no setting 'model.sise'; did you mean"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        list(grid_trials(sweep(**changes)))


def test_a_trial_that_cannot_be_trained_is_refused_before_any_is(tmp_path):
    made = sweep(axes={SCORE: ["dot"], "model.decoder.size": [33]}, baseline="dot")  # dot needs equal widths
    with pytest.raises(ValueError, match="the point model.attention.score=dot, model.decoder.size=33: "):
        make_plan(made, tmp_path)
    assert not (tmp_path / "trials").exists()


def test_a_plan_lists_points_that_are_identical(tmp_path):
    grid = {"model.attention.normalizer": ["softmax", "sparsemax"], "model.attention.kernel": [0, 5]}
    changes = ("model.attention.score=location-aware", "model.attention.history=previous")
    made = sweep(base=override(sweep().base, *changes), axes=grid, compare="model.attention.kernel", baseline="0")
    experiments = list(grid_trials(made))
    assert identical_points(experiments) == []
    made = sweep(axes=grid, compare="model.attention.kernel", baseline="0")
    found = identical_points(list(grid_trials(made)))
    assert [[point["model.attention.kernel"] for point in group.points] for group in found] == [["0", "5"]] * 2
    assert str(found[0]) == (
        "identical trials: model.attention.normalizer=softmax, model.attention.kernel=0; "
        "model.attention.normalizer=softmax, model.attention.kernel=5 (model.attention.kernel has no effect there)"
    )
    same = sweep(axes={"x": {"a": {}, "b": {"model.attention.score": "general"}}}, compare="x", baseline="a")
    (group,) = identical_points(list(grid_trials(same)))
    assert str(group) == "identical trials: x=a; x=b (the same settings)"


def test_identity_covers_what_is_trained_and_not_where():
    base, known = sweep().base, {}

    def identity(*changes):
        return trial_identity(override(base, *changes), known)

    for same in ("device.count=2", "record.log_every=1", "search.beam=4", "evaluation.unit=phone", "data.directory=/x"):
        assert identity(same) == identity(), same
    for other in ("steps=4", "seed=9", "model.embedding=8", "search.rules.min-length=2", "data.seed=3"):
        assert identity(other) != identity(), other


def test_files_count_by_their_content(tmp_path):
    known = {}

    def written(name, text):
        (tmp_path / name).write_text(text)
        changes = (f"data.{split}={tmp_path / name}" for split in ("train", "validation", "test"))
        return trial_identity(override(sweep().base, "data.lengths=[0,0]", *changes), known)

    one, copied = written("a.tsv", "a\tb\nc\td\n"), written("b.tsv", "a\tb\nc\td\n")
    assert one == copied
    assert written("a.tsv", "a\tb\nc\tx\n") != one
    assert len(known) == 3


def test_results_are_read_from_the_files_alone(finished):
    _, plan = finished
    assert (plan.done, plan.failed, plan.seconds) == (2, 0, 0.0)
    collected = collect_results(sweep(), plan.trial_dirs, name="tiny", claim="c", command="x")
    assert [(result.point[SCORE], result.seed, result.status) for result in collected.trials] == [
        ("none", 0, "done"), ("dot", 0, "done")
    ]  # fmt: skip
    for result in collected.trials:
        assert result.steps == result.best_step == 3
        assert result.tokens > 3 * 64
        assert result.metrics["exact_match"] == result.counts["exact_match"][:, 0].mean()
        assert len(result.lengths) == len(result.counts["exact_match"]) == 20
        assert result.curves["loss"][-1][0] == 3
        assert ("aer" in result.metrics) == (result.point[SCORE] == "dot")
        assert [shown.source for shown in result.gallery] == [shown.source for shown in collected.trials[0].gallery]
        assert result.gallery[0].alignment.shape == (
            len(result.gallery[0].tokens), len(result.gallery[0].source_tokens)
        )  # fmt: skip
    found = status_rows(plan.trial_dirs, "exact_match")
    assert status_summary(found) == "2 done"


def test_complete_trials_are_not_repeated_and_search_does_not_retrain(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    plan = make_plan(sweep(), folder)
    assert trial_groups(sweep(), plan.trial_dirs) == []
    trial = plan.trial_dirs[1].folder
    before = {name: (trial / name).stat().st_mtime_ns for name in ("translations.json", "scores.json")}
    trained = (trial / "run" / "metrics.jsonl").read_bytes()
    wide = sweep(base=override(sweep().base, "search.beam=2"))
    left = trial_groups(wide, make_plan(wide, folder).trial_dirs)
    assert len(left) == 2, "translated by another search, so there is something to do"
    (group,) = [group for group in left if group[0].folder == trial]
    assert run_group(group) == "done"
    after = {name: (trial / name).stat().st_mtime_ns for name in before}
    assert all(after[name] > before[name] for name in before)
    assert run_group(group) == "done"
    assert {name: (trial / name).stat().st_mtime_ns for name in before} == after  # nothing is left to do
    assert (trial / "run" / "metrics.jsonl").read_bytes() == trained


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path):
    """Change one digit of a file."""
    content = path.read_bytes()
    at = max(content.rfind(digit) for digit in (b"1", b"2", b"0"))
    path.write_bytes(content[:at] + b"7" + content[at + 1 :])


def lose(path):
    path.unlink()


def replace(path):
    """Put the file of another trial in its place."""
    other = next(each for each in path.parent.parent.glob(f"*/{path.name}") if each != path)
    path.write_bytes(other.read_bytes())


SCORED = ("translations.json", "scores.json", "counts.npz")


@pytest.mark.parametrize(
    ("name", "damages"),
    [
        ("counts.npz", (cut, lose, replace)),
        ("scores.json", (cut, edit, lose)),
        ("translations.json", (cut, edit, lose)),
        ("outcome.json", (cut, edit, lose)),
        ("trial.json", (cut, edit, lose)),
    ],
)
def test_a_bad_file_is_found_and_nothing_of_it_is_reported(finished, tmp_path, name, damages):
    for damage in damages:
        folder = shutil.copytree(finished[0], tmp_path / damage.__name__)
        trial_dirs = find_trials(sweep(), folder)
        trial = trial_dirs[1].folder
        damage(trial / name)
        assert bad_files(trial) == ([] if (name, damage) == ("outcome.json", lose) else [trial / name])
        ((spec,),) = trial_groups(sweep(), trial_dirs)
        assert spec.folder == trial
        result = read_result(trial_dirs[1])
        if name != "trial.json":
            assert (result.status, result.metrics, result.counts) == ("waiting", {}, {})
        if name in SCORED:
            assert result.error == f"{name} is missing or damaged; run the sweep again, which makes it anew"
        status_rows(trial_dirs, "exact_match")


@pytest.mark.parametrize(
    ("damages", "remade"),
    [({"counts.npz": cut, "outcome.json": edit}, SCORED[1:]), ({"translations.json": edit, "trial.json": cut}, SCORED)],
)
def test_a_bad_file_costs_its_stage_alone(finished, tmp_path, damages, remade):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    trial_dirs = find_trials(sweep(), folder)
    trial, before = trial_dirs[1].folder, read_result(trial_dirs[1])
    kept = {"run/metrics.jsonl", "run/config.json", "trial.json", *SCORED} - set(remade)
    whole = {name: (trial / name).read_bytes() for name in kept}
    for name, damage in damages.items():
        damage(trial / name)
    old = {name: (trial / name).stat().st_mtime_ns for name in SCORED}
    (group,) = trial_groups(sweep(), trial_dirs)
    assert run_group(group) == "done"
    assert {name: (trial / name).read_bytes() for name in kept} == whole
    assert {name for name in SCORED if (trial / name).stat().st_mtime_ns != old[name]} == set(remade)
    assert trial_groups(sweep(), trial_dirs) == []
    after = read_result(trial_dirs[1])
    assert after.metrics == before.metrics
    assert after.reads == before.reads + ("translations.json" in remade), "the split was read once more"


def test_a_damaged_cache_of_data_fingerprints_is_made_again(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    whole = (folder / "data.json").read_bytes()
    cut(folder / "data.json")
    assert trial_groups(sweep(), find_trials(sweep(), folder)) == []
    assert (folder / "data.json").read_bytes() == whole


def test_trials_without_checksums_are_reported_as_they_are(finished, tmp_path):
    """Those of an earlier version; a file that has lost its checksum later is damaged."""
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    for trial in folder.glob("trials/*"):
        for name in ("outcome.json", *SCORED[:2], "trial.json"):
            record = read_json(trial / name)
            del record["crc32"]
            if name != "trial.json":
                write_json(trial / name, record)
        assert read_record(trial / "scores.json") is None
        del record["format"]
        write_json(trial / "trial.json", record)
        scores = read_record(trial / "scores.json")
        translations = hashlib.blake2b((trial / "translations.json").read_bytes(), digest_size=16).hexdigest()
        scores["inputs"]["translations"] = translations
        del scores["counts"]
        write_json(trial / "scores.json", scores)
        assert set(read_counts(trial, scores)) >= {"exact_match"}
    trial_dirs = find_trials(sweep(), folder)
    assert [bad_files(trial_dir.folder) for trial_dir in trial_dirs] == [[], []]
    assert trial_groups(sweep(), trial_dirs) == []
    collected = collect_results(sweep(), trial_dirs, name="tiny", claim="c", command="x")
    assert [result.status for result in collected.trials] == ["done", "done"]


def test_a_screen_of_trials_fits_and_shows_the_worst_first():
    row = StatusRow("x", "done", 10, 10, 1.0, 2.0, 0.5, "", "", 40.0)
    rows = [row._replace(name=f"trial-{number}-of-a-long-name") for number in range(30)]
    rows[20] = row._replace(name="a", status="running", step=5, host="node7", seconds=20.0)
    rows[21] = row._replace(name="b", status="waiting", step=0, seconds=None)
    rows[22] = row._replace(name="c", status="failed", error="no memory " * 20)
    rows[23] = row._replace(name="d", status="waiting", step=2, error="no sign of life", seconds=None)
    for height in (8, 12, 24):
        printed = io.StringIO()
        Console(width=70, height=height, file=printed).print(status_screen(rows, "bleu", height=height))
        lines = printed.getvalue().splitlines()
        assert len(lines) <= height
        assert all(len(line) <= 70 for line in lines)
        assert [line.split()[0] for line in lines[1:5]] == ["c", "d", "a", "b"]
        assert lines[-2] == f"... and {30 - height + 3} more: {30 - height + 3} done"
    # (1 - 5/10) + 1 + (1 - 2/10) trials of (26 * 40 + 20) / 27 s each, one at a time
    assert math.isclose(seconds_left(rows), 2.3 * 1060 / 27)
    assert lines[-1] == "2 waiting, 1 running, 26 done, 1 failed; 0:01:30 left"
    assert seconds_left(rows[:5]) is None


def test_what_has_not_changed_is_not_read_again(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    trial_dirs, read = find_trials(sweep(), folder), []
    monkeypatch.setattr(status, "read_record", lambda path: read.append(path.name) or read_record(path))
    monkeypatch.setattr(status, "records_of", lambda lines: read.append(lines.count(b"\n") + 1) or records_of(lines))
    reader = StatusReader(trial_dirs, "exact_match")
    first = reader.rows()
    assert all(row.status == "done" and row.score is not None and row.step == 3 for row in first)
    assert len(read) == 6
    assert reader.rows() == first
    assert len(read) == 6
    path = trial_dirs[0].folder / "run" / "metrics.jsonl"
    append_record(path, "train", 4, loss=0.5)
    assert (reader.rows()[0].step, reader.rows()[0].loss) == (4, 0.5)
    assert read[6:] == [1]
    path.with_name("new").write_bytes(path.read_bytes()[:-5])  # as a resumed run does, it is replaced by a shorter one
    path.with_name("new").replace(path)
    assert reader.rows() == first


def test_a_renamed_label_retrains_nothing(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    renamed = {"thought vector": {SCORE: "none"}, "Luong's": {SCORE: "dot"}}
    made = sweep(axes={"attention": renamed}, compare="attention", baseline="thought vector")
    trial_dirs = find_trials(made, folder)
    assert trial_groups(made, trial_dirs) == []
    collected = collect_results(made, trial_dirs, name="tiny", claim="c", command="x")
    assert [result.point["attention"] for result in collected.trials] == ["thought vector", "Luong's"]
    assert [result.settings[SCORE] for result in collected.trials] == ["none", "dot"]
    swapped = {"none": {SCORE: "dot"}, "dot": {SCORE: "none"}}
    made = sweep(axes={"x": swapped}, compare="x", baseline="dot")
    assert trial_groups(made, find_trials(made, folder)) == []
    aliases = {"none": {SCORE: "none"}, "also": {SCORE: "none"}}  # identical points never share a directory
    made = sweep(axes={"x": aliases}, compare="x", baseline="none")
    trial_dirs = find_trials(made, folder)
    assert len(trial_groups(made, trial_dirs)) == 1
    assert len({trial_dir.folder for trial_dir in trial_dirs}) == 2


def test_a_trial_of_a_dead_machine_does_not_look_alive(finished, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    (trial_dir, _) = find_trials(sweep(), folder)
    (trial_dir.folder / "outcome.json").unlink()
    (trial_dir.folder / "run" / "lock").write_text("host far-away pid 7\n")
    assert read_result(trial_dir).status == "running", "there is no other sign than the lock"
    show_sign_of_life(trial_dir.folder, "far-away", 7)
    assert read_result(trial_dir).status == "running"
    beat = trial_dir.folder / "heartbeat.json"
    os.utime(beat, (time.time() - 3 * 3600,) * 2)
    result = read_result(trial_dir)
    assert result.status == "waiting"
    assert result.error == (
        "its process on far-away has given no sign of life for 3.0 hours; run the sweep again to resume it"
    )
    show_sign_of_life(trial_dir.folder, socket.gethostname(), 2**22 + 1)  # above the largest id of a process
    assert read_result(trial_dir).status == "waiting", "no process of that id is here"


def test_signs_of_life_are_renewed_and_end_with_the_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    with heartbeat.Heartbeat([tmp_path / "trial"]):
        first = (tmp_path / "trial" / "heartbeat.json").stat().st_mtime_ns
        began = time.monotonic()
        while (tmp_path / "trial" / "heartbeat.json").stat().st_mtime_ns == first:
            assert time.monotonic() - began < 10
            time.sleep(0.01)
        assert heartbeat.sign_of_life(tmp_path / "trial").alive
    assert heartbeat.sign_of_life(tmp_path / "trial") is None


def test_a_restart_waits_for_the_worker_of_a_killed_sweep(finished, tmp_path, monkeypatch):
    """A worker whose sweep was killed saves its state first; only one that stays for long is in use."""
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    trial = find_trials(sweep(), folder)[0].folder
    (trial / "outcome.json").unlink()
    ((spec,),) = trial_groups(sweep(), find_trials(sweep(), folder))
    lock = Lock(trial / "run")
    lock.__enter__()
    held = threading.Timer(1.5, lambda: lock.__exit__(None, None, None))
    held.start()
    assert run_group((spec,)) == "done"
    assert not held.is_alive()
    (trial / "outcome.json").unlink()
    monkeypatch.setattr(heartbeat, "LOCK_SECONDS", 0)
    with Lock(trial / "run"):
        assert run_group((spec,)) == "failed"
    assert "is in use by" in read_outcome(trial)["error"]


def test_drift_is_refused_with_the_difference(finished):
    folder, _ = finished
    drifted = sweep(base=override(sweep().base, "optimizer.learning-rate=0.5"))
    with pytest.raises(ValueError, match=r"none-seed0-\w{8} was trained from other settings \(optimizer.learning_rate: "
                                         r"0\.02 before, 0\.5 now\); set them back"):  # fmt: skip
        assign_dirs(list(grid_trials(drifted)), folder)


def test_a_trial_that_diverges_is_listed(tmp_path):
    changes = ("optimizer.learning-rate=1e38", "optimizer.warmup_steps=0", "optimizer.clip_norm=0")
    made = sweep(base=override(sweep().base, "optimizer.name=sgd", *changes), axes={SCORE: ["none"]})
    plan = run_all(made, tmp_path)
    folder = plan.trial_dirs[0].folder
    outcome = read_outcome(folder)
    assert outcome["status"] == "diverged"
    assert "the step was not taken" in outcome["error"]
    assert (plan.done, plan.failed) == (0, 1)
    assert trial_groups(made, plan.trial_dirs) == []  # it would diverge again
    assert [group[0].folder for group in trial_groups(made, plan.trial_dirs, diverged=True)] == [folder]
    found = status_rows(plan.trial_dirs, "exact_match")
    assert status_summary(found) == "1 diverged"
    assert found[0].error == outcome["error"]


FILE = textwrap.dedent(
    """
    \"\"\"A claim.\"\"\"
    import dataclasses
    import sys

    sys.path.insert(0, {tests!r})
    import test_sweep


    def sweep():
        return test_sweep.sweep()


    def wrong():
        return 3


    def failing():
        made = test_sweep.sweep()
        broken = {{"none": {{}}, "file": {{"data.test": "missing.tsv"}}}}
        return dataclasses.replace(made, axes={{"x": broken}}, compare="x", baseline="none")
    """
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "claim.py"
    path.write_text(FILE.format(tests=str(Path(__file__).parent)))
    return path


def test_the_commands_from_plan_to_report(file, finished, tmp_path, capsys):
    new, done = str(tmp_path / "new"), str(shutil.copytree(finished[0], tmp_path / "done"))
    assert main(["sweep", "plan", str(file), "--out", new]) == 0
    printed = capsys.readouterr().out
    assert "2 trials: 0 done, 0 failed" in printed
    assert "1 comparison needs 6 seeds" in printed
    assert main(["sweep", "verify", str(file), "--out", new]) == 2
    assert "is not done, so there is nothing to verify" in capsys.readouterr().err
    assert main(["sweep", "run", str(file), "--out", done, "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome == {"sweep": done, "trials": 2, "failed": []}
    check_keys("sweep run", outcome)
    assert "2 of 2 runs done" in (Path(done) / "report" / "report.md").read_text()
    assert main(["sweep", "status", str(file), "--out", done]) == 0
    assert "2 done" in capsys.readouterr().out
    assert main(["sweep", "status", str(file), "--out", done, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in printed["trials"]] == ["done", "done"]
    check_keys("sweep status", printed)


def test_sweeps_are_joined_and_their_tests_simulated(file, finished, tmp_path, capsys):
    first, second = (str(shutil.copytree(finished[0], tmp_path / name)) for name in ("first", "second"))
    assert main(["sweep", "report", str(file), second, "--out", first]) == 0
    joined = tmp_path / "claim+second" / "report"
    assert capsys.readouterr().out == f"report: {joined / 'report.html'}\n"
    assert "4 of 4 runs done" in (joined / "report.md").read_text()
    assert '<a href="../../second/trials/' in (joined / "report.html").read_text()
    assert main(["sweep", "report", str(file), str(tmp_path / "claim+second"), "--out", first]) == 2
    assert "no sweep" in capsys.readouterr().err
    assert main(["sweep", "plan", str(file), second, "--out", first]) == 2
    assert "sweep plan takes one sweep" in capsys.readouterr().err
    assert main(["sweep", "simulate", str(file), "--repeats", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    check_keys("sweep simulate", found)
    assert {row["kind"] for row in found["rows"]} == {"ErrorRate", "Power", "PopulationRate"}
    assert main(["sweep", "plan", str(file), "--out", first, "--effect", "0.1"]) == 2
    assert "give the effect in standard deviations, such as --effect 3sd" in capsys.readouterr().err


SCORE_FILE = """
import s2s_jax as s2s
from scale import SCALE


class Halved(s2s.SCORES["dot"]):
    def __call__(self, query, keys):
        return SCALE * super().__call__(query, keys)


s2s.SCORES["halved"] = Halved
"""
SWEEP_OF_OWN_SCORE = """
import sys

import s2s_jax as s2s
{imports}

sys.path.insert(0, {tests!r})
import tiny


def sweep():
    changes = ("steps=2", "data.train_size=200", "data.eval-size=20", "validation.every=2")
    return s2s.Sweep(
        base=tiny.experiment(*changes),
        axes={{"model.attention.score": ["halved", "dot"]}},
        compare="model.attention.score",
        baseline="dot",
        seeds={seeds},
    )
"""


def own_score_files(folder, *, seeds=(0,)):
    """A sweep file, the file that it imports its score from, and a sibling of both."""
    (folder / "scale.py").write_text("SCALE = 0.5\n")
    (folder / "halved.py").write_text(SCORE_FILE)
    tests = str(Path(__file__).parent)
    (folder / "own.py").write_text(SWEEP_OF_OWN_SCORE.format(imports="import halved", tests=tests, seeds=seeds))
    return folder / "own.py"


def s2s_sweep(folder, *arguments):
    """The JSON that a sweep command prints, run by a new process in a folder."""
    command = [sys.executable, "-m", "s2s_jax", "sweep", *arguments, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_score_from_a_file_of_the_user_reaches_the_workers(tmp_path):
    own_score_files(tmp_path)
    ran = s2s_sweep(tmp_path, "run", "own.py", "--out", "out", "--jobs", "1")
    assert (ran["trials"], ran["failed"]) == (2, [])
    trials = {read_json(path)["point"][SCORE]: path.parent for path in tmp_path.glob("out/trials/*/trial.json")}
    assert read_json(trials["halved"] / "run" / "config.json")["imports"] == ["own.py"]
    assert "2 of 2 runs done" in (tmp_path / "out" / "report" / "report.md").read_text()
    digests = [read_json(folder / "scores.json")["inputs"]["translations"] for folder in trials.values()]
    assert len(set(digests)) == 2, "the two scores are not the same model"


def test_a_metric_of_the_user_is_scored_and_reported(finished, tmp_path, monkeypatch):
    def counts(predictions):
        return np.ones((len(predictions.texts), 2))

    lines = Metric("Short lines", True, "per source", counts, METRICS["wer"].values, ("texts",))
    monkeypatch.setitem(METRICS, "short_lines", lines)
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    made = sweep(base=override(sweep().base, "evaluation.unit=phone"), metrics=("per", "short_lines"))
    plan = run_all(made, folder)
    collected = collect_results(made, plan.trial_dirs, name="n", claim="c", command="x")
    assert [result.metrics["short_lines"] for result in collected.trials] == [1.0, 1.0]
    comparison = compare_to_baseline(collected)
    assert comparison.rows[1].differences["short_lines"].wins == (0, 1, 1)
    assert "Short lines (per source)" in [column.head for column in table_columns(comparison)]
    with pytest.raises(ValueError, match=r"none-seed0: metrics=per needs evaluation.unit=phone"):
        make_plan(sweep(metrics=("per",)), folder)


def test_a_metric_of_alignments_and_other_inputs_is_scored(finished, tmp_path, monkeypatch):
    """Alignments are not stored, so such a metric is counted with the translations, and with all their inputs."""

    def counts(predictions):
        return np.stack([[len(rows) for rows in predictions.alignments], predictions.tokens], 1).astype(float)

    needs = ("alignments", "tokens", "correct", "exposure_nats", "texts")
    own = Metric("Attended", None, "", counts, METRICS["wer"].values, needs)
    monkeypatch.setitem(METRICS, "attended", own)
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    for file in folder.glob("trials/*/translations.json"):
        file.unlink()
    plan = run_all(sweep(), folder)
    for trial_dir in plan.trial_dirs:
        attends = trial_dir.trial.experiment.model.attention.score != "none"
        predictions = read_json(trial_dir.folder / "translations.json")
        assert ("alignment_counts" in predictions) == attends
        metrics = read_json(trial_dir.folder / "scores.json")["metrics"]
        assert ("attended" in metrics) == ("attention_entropy" in metrics) == attends
        if attends:
            rows = np.array(predictions["alignment_counts"]["attended"])
            assert rows[:, 1].tolist() == np.array(predictions["forced"])[:, 1].tolist()
            assert metrics["attended"] == rows[:, 0].sum() / rows[:, 1].sum()


def test_a_changed_file_of_targets_changes_the_fingerprint(tmp_path):
    for split in SPLITS:
        (tmp_path / split).write_text("a b\n")
    base = override(sweep().base, *(f"data.{split}=lines:{tmp_path / split}" for split in SPLITS))
    known = {}
    before = trial_identity(base, known)["data"]
    assert trial_identity(base, known)["data"] == before
    assert len(known) == 1, "unchanged files are not read again"
    (tmp_path / "train").write_text("a b\nc d\n")
    assert trial_identity(base, known)["data"] != before


def test_a_changed_file_of_alignments_changes_the_fingerprint(tmp_path):
    (tmp_path / "pairs.tsv").write_text("a b\tc d\n")
    (tmp_path / "links").write_text("0-0\n")
    base = override(
        sweep().base,
        *(f"data.{split}={tmp_path / 'pairs.tsv'}" for split in SPLITS),
        f"data.alignment={tmp_path / 'links'}",
    )
    known = {}
    before = trial_identity(base, known)["data"]
    assert trial_identity(base, known)["data"] == before
    (tmp_path / "links").write_text("0-1 1-0\n")
    assert trial_identity(base, known)["data"] != before
    assert trial_identity(override(base, "data.alignment="), known)["data"] != before


def test_the_code_of_the_package_is_part_of_the_identity_and_not_of_the_name(monkeypatch, tmp_path):
    package = tmp_path / "s2s_jax"
    (package / "sweep").mkdir(parents=True)
    (package / "cli").mkdir()
    monkeypatch.setattr(fingerprint, "__file__", str(package / "sweep" / "fingerprint.py"))

    def written(name, text):
        (package / name).write_text(text)
        fingerprint.package_digest.cache_clear()
        return fingerprint.package_digest()

    before = written("model.py", "def f(x):\n    return x\n")
    assert written("model.py", '"""What it is."""\n\n\ndef f(x):\n    """x."""\n    return x  # itself\n') == before
    assert written("cli/train.py", "print(1)\n") == before
    after = written("model.py", "def f(x):\n    return x + 1\n")
    assert after != before
    one, other = ({"package": digest, "steps": 3} for digest in (before, after))
    assert fingerprint.trial_fingerprint(one) == fingerprint.trial_fingerprint(other)
    fingerprint.package_digest.cache_clear()


def test_trials_of_two_versions_of_the_package_never_share_a_table(finished, tmp_path, monkeypatch):
    folder = shutil.copytree(finished[0], tmp_path / "copy")
    monkeypatch.setattr(fingerprint, "package_digest", lambda: "later")
    plan = make_plan(sweep(), folder)
    assert plan.done == 2, "a finished sweep is reported by later versions too"
    assert launch(sweep(), folder, ExecutorConfig(), print).failed == []
    message = (
        "were trained by other code of s2s_jax .*: 2 of them; it is later now.* never share one table; choose another"
    )
    with pytest.raises(ValueError, match=message):
        launch(sweep(seeds=(0, 1)), folder, ExecutorConfig(), print)
    record = read_record(plan.trial_dirs[0].folder / "trial.json")
    record["identity"]["package"] = "earlier"
    write_sealed(plan.trial_dirs[0].folder / "trial.json", record)
    with pytest.raises(ValueError, match=r"earlier: 1 of them, .*never share one table"):
        make_plan(sweep(), folder)


def test_a_source_of_the_user_is_read_for_every_fingerprint(tmp_path, monkeypatch):
    file = tmp_path / "rows.txt"

    def rows(name, split, config, report):
        return [(Example("a", file.read_text()), "mine:1")]

    monkeypatch.setitem(SOURCES, "mine:", rows)
    base, known = override(sweep().base, "data.train=mine:rows"), {}
    file.write_text("b")
    before = trial_identity(base, known)["data"]
    file.write_text("c")
    assert trial_identity(base, known)["data"] != before
    assert known == {}


def test_the_code_of_the_user_is_part_of_the_fingerprint(tmp_path):
    file = own_score_files(tmp_path)
    base = override(sweep().base, f'imports=["{tmp_path / "halved.py"}"]')
    before = trial_identity(base, {})
    assert list(before["code"]) == ["halved"]
    (tmp_path / "halved.py").write_text("# a comment\n" + SCORE_FILE)
    assert trial_identity(base, {}) == before
    (tmp_path / "halved.py").write_text(SCORE_FILE.replace("SCALE * ", "SCALE + "))
    assert trial_identity(base, {}) != before
    base = override(sweep().base, f'imports=["{file}"]')
    before = trial_identity(base, {})
    own_score_files(tmp_path, seeds=(0, 1))  # more seeds in the same file
    assert trial_identity(base, {}) == before


def test_the_first_seeds_are_trials_of_the_whole_sweep(file, tmp_path, capsys):
    file.write_text(file.read_text() + "\n\ndef wide():\n    return dataclasses.replace(sweep(), seeds=(4, 9))\n")
    planned = []
    for seeds in ([], ["--seeds", "1"]):
        command = ["sweep", "plan", str(file), "--function", "wide", "--out", str(tmp_path), "--json", *seeds]
        assert main(command) == 0
        plan = json.loads(capsys.readouterr().out)
        check_keys("sweep plan", plan)
        planned.append(plan["trials"])
    every, first = planned
    assert (len(every), len(first)) == (4, 2)
    assert set(first) < set(every)


def test_a_trial_that_is_trained_again_has_the_same_bits(finished):
    _, plan = finished
    ((spec,),) = trial_groups(sweep(), plan.trial_dirs[:1], also_done=True)
    scores = spec.folder / "scores.json"
    before = scores.read_text()
    changed = read_record(scores)
    changed["metrics"]["exact_match"] = 0.123
    write_sealed(scores, changed)
    found = verify_trial(spec)
    scores.write_text(before)
    assert found.digests[0] == found.digests[1]
    assert found.metrics == {"exact_match": (0.123, json.loads(before)["metrics"]["exact_match"])}
    assert not found.same
    check_keys("sweep verify", {"trial": spec.folder.name, "same": found.same, **found._asdict()})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["plan", "nowhere"],
            "no sweep 'nowhere' (there are bottleneck, forcing, init_and_order, ",
        ),
        (["plan", "alignment"], "alignment.py has no function sweep(); write one that returns a Sweep"),
        (
            ["plan", "scores", "--function", "form"],
            "no function form() (there are dates, luong, sounds, sweep, ",
        ),
        (["plan", "FILE", "--function", "wrong"], "wrong() in FILE returned int, a Sweep or a Tuning is wanted"),
        (["plan", "FILE", "--function", "other"], "FILE has no function other()"),
        (["run", "FILE", "--executor", "moon"], "argument --executor: invalid choice: 'moon'"),
        (["plan", "FILE", "--modle.embedding", "3"], "did you mean --model.embedding"),
        (["plan", "FILE", "--function", "failing"], "missing.tsv"),
        (["plan", "FILE", "--seeds", "3"], "--seeds must be from 1 to 1, the seeds of the sweep, got 3"),
    ],
)
def test_mistakes_get_one_line(file, tmp_path, capsys, arguments, message):
    given = [str(file) if word == "FILE" else word for word in arguments]
    assert main(["sweep", *given, "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert message.replace("FILE", str(file)) in printed
    assert printed.count("\n") == 1


@pytest.mark.wide
def test_a_killed_worker_costs_one_attempt_and_an_interrupted_sweep_resumes(tmp_path):
    long = sweep(base=override(sweep().base, "steps=4000", "record.log_every=1"))
    script = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_sweep
        from s2s_jax.sweep.launch import ExecutorConfig, launch

        if __name__ == "__main__":
            base = test_sweep.override(test_sweep.sweep().base, "steps=4000", "record.log_every=1")
            launched = launch(test_sweep.sweep(base=base), Path({str(tmp_path / "out")!r}), ExecutorConfig(), print)
            sys.exit(launched.signal)
        """
    )
    (tmp_path / "go.py").write_text(script)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, tmp_path / "go.py"], env=environment, stdout=subprocess.DEVNULL)
    trial_dirs = make_plan(long, tmp_path / "out").trial_dirs

    def steps():
        return status_rows(trial_dirs, "exact_match")[0].step

    def wait(condition):
        began = time.monotonic()
        while not condition():
            assert process.poll() is None or condition()
            assert time.monotonic() - began < 120
            time.sleep(0.1)

    def owner():
        found = re.search(r"pid (\d+)", (trial_dirs[0].folder / "run" / "lock").read_text())
        return int(found[1]) if found else 0

    wait(lambda: steps() > 3)
    first = owner()
    os.kill(first, signal.SIGKILL)
    wait(lambda: owner() not in (0, first) and steps() > 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == signal.SIGINT
    assert read_outcome(trial_dirs[0].folder)["status"] == "waiting"
    assert any((trial_dirs[0].folder / "run" / "checkpoints").glob("[0-9]*"))


def test_a_process_reads_the_same_data_once():
    """As long as a digest says that it is the same, and whatever is made of it is, too."""
    base, lines = sweep().base, []

    def read(data, *changes):
        with kept_inputs(data):
            return read_inputs(override(base, *changes), lines.append, resumed=None)

    first = read("a")
    assert read("a", "seed=3", "optimizer.learning_rate=0.1", "model.embedding=8") is first
    assert "which this process has read" in lines[-1]
    assert read("b") is not first
    assert read("b", "batch.size=32") is not read("b", "batch.size=16")
    assert read("b", "tokenizer.source.type=char").tokenizers.source != first.tokenizers.source
    assert read_inputs(base, print, resumed=None) is not read("b"), "other commands keep nothing"


@pytest.mark.wide
def test_a_tuning_finds_the_better_of_two(tmp_path, capsys):
    made = Tuning(base=sweep().base, ranges={"optimizer.learning_rate": [0.0, 0.05]}, trials=2, sampler="random")
    tuned = tune(made, tmp_path, lambda line: None)
    assert (tuned.trials, tuned.pruned, tuned.failed, tuned.signal) == (2, 0, 0, 0)
    assert tuned.value is not None
    assert not list(tmp_path.glob("trials/*/scores.json"))  # the test split is never read
    assert tune(made, tmp_path, lambda line: None) == tuned  # all of it is there already
    losses, logs = {}, []
    for trial in tmp_path.glob("trials/*"):
        rate = read_json(trial / "trial.json")["point"]["optimizer.learning_rate"]
        losses[rate] = validation_curves(read_metrics(trial / "run" / "metrics.jsonl"))["loss"][-1][1]
        logs.append((trial / "log.txt").read_text())
    assert tuned.value == min(losses.values())
    assert str(tuned.settings["optimizer.learning_rate"]) == min(losses, key=losses.get)
    read = ["which this process has read" in log for log in logs]
    assert sorted(read) == [False] * (len(read) - 1) + [True] or len(read) == 1, "one process reads the data once"


class Trained(Worker):
    """A worker that trains nothing: it writes the validations that a trial would have, one after the other."""

    steps = 9

    def __init__(self, share):
        self.stopping, self._interrupted = False, threading.Event()

    def run(self, group, *, retries):
        (spec,) = group
        self._interrupted.clear()
        rate = spec.experiment.optimizer.learning_rate
        (spec.folder / "run").mkdir(parents=True, exist_ok=True)
        if rate > 0.9:
            return record_failure(spec.folder, ValueError("too large"))
        for step in range(1, self.steps + 1):
            with (spec.folder / "run" / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"kind": "validation", "step": step, "loss": abs(rate - 0.3)}) + "\n")
            if self._interrupted.wait(0.02):
                return "stopped"
        return record_success(spec.folder, seconds=1)

    def interrupt(self):
        self._interrupted.set()

    def stop(self):
        self.stopping = True
        self.interrupt()

    def close(self):
        pass


@pytest.mark.parametrize("pruner", sorted(PRUNERS))
@pytest.mark.parametrize("jobs", [1, 3])
def test_a_tuning_prunes_shows_it_and_resumes(tmp_path, monkeypatch, pruner, jobs):
    monkeypatch.setattr(tuning_module, "Worker", Trained)
    monkeypatch.setattr(tuning_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(tuning_module, "check_trainable", lambda experiment: None)
    base = override(sweep().base, f"steps={Trained.steps}", "validation.every=1")
    ranges = {"optimizer.learning_rate": Range(0.0, 1.0)}
    made = Tuning(base=base, ranges=ranges, trials=14, sampler="random", pruner=pruner)
    lines, config = [], ExecutorConfig(jobs=jobs)
    first = tune(dataclasses.replace(made, trials=8), tmp_path, lines.append, config)
    tuned = tune(made, tmp_path, lines.append, config)
    assert (first.trials, tuned.trials) == (8, 14)
    assert len(lines) == 14, "those of the first call are not trained again"
    assert tuned.pruned == sum("pruned at step" in line for line in lines)
    assert tuned.pruned > 0 or jobs > 1, "one after the other, the trials are always the same"
    assert tuned.failed == sum("failed {" in line for line in lines)
    assert all(re.search("pruned at step [1-9] of 9, loss 0", line) for line in lines if "pruned" in line)
    assert tuned.value == abs(tuned.settings["optimizer.learning_rate"] - 0.3) <= first.value
    assert "trial 14 of 14" in lines[-1]


def test_a_tuning_on_a_cluster_is_refused(tmp_path):
    made = Tuning(base=sweep().base, ranges={"seed": [0, 1]})
    with pytest.raises(ValueError, match="--executor ray: a tuning runs its trials on this machine; leave it out"):
        tune(made, tmp_path, print, ExecutorConfig(name="ray"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranges": {}}, "needs at least one range"),
        ({"ranges": {"optimizer.learning_rat": [1.0]}}, "no setting 'optimizer.learning_rat'"),
        ({"trials": 0}, "trials must be positive, got 0"),
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"pruner": "ahsa"}, "did you mean 'asha'"),
        ({"reduction": 1}, "reduction must be at least 2, got 1"),
        ({"prune": 1}, "prune must be true or false, got 1"),
        ({"ranges": {"steps": 3}}, "ranges: steps must be a Range or a list of values, got 3"),
        ({"ranges": {"steps": Range(3, 1)}}, "ranges: steps must have low <= high, got 3 and 1"),
        (
            {"ranges": {"loss.coverage": Range(0, math.inf)}},
            "ranges: loss.coverage must have finite ends, got 0 and inf",
        ),
        ({"ranges": {"optimizer.learning_rate": Range(0, 1, log=True)}}, "is logarithmic, so low must be above 0"),
    ],
)
def test_a_tuning_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Tuning(**{"base": sweep().base, "ranges": {"steps": Range(1, 3)}} | changes)
