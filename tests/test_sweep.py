"""A grid of tiny runs: planned, run, killed, failed, watched, verified and reported, as a user would."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import tiny

from s2s_jax.cli import main
from s2s_jax.config import override
from s2s_jax.run.run_dir import read_json
from s2s_jax.sweep.executors.ray import run_on_ray
from s2s_jax.sweep.executors.slurm import run_on_slurm
from s2s_jax.sweep.fingerprint import identity_of, place
from s2s_jax.sweep.plan import make_plan, units
from s2s_jax.sweep.results import curves, metrics_of, study
from s2s_jax.sweep.status import rows, summary
from s2s_jax.sweep.sweep import Sweep, points, trials
from s2s_jax.sweep.trial import launch_mode, outcome, run_group
from s2s_jax.sweep.tune import Range, Tuning, tune
from s2s_jax.sweep.verify import verify

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
    for unit in units(made, make_plan(made, folder).placed):
        run_group(unit)
    return make_plan(made, folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep that is done."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, run_all(sweep(), folder)


def test_replicas_are_all_that_one_program_can_train(tmp_path):
    rates = {"optimizer.learning_rate": [1e-3, 1e-2], "model.embedding": [8, 16]}
    made = sweep(axes=rates, compare="model.embedding", baseline="8", seeds=(0, 1), replicas=True)
    found = units(made, place(list(trials(made)), tmp_path))
    assert [len(unit) for unit in found] == [4, 4]
    assert [{work.point["model.embedding"] for work in unit} for unit in found] == [{"8"}, {"16"}]


def test_replicas_of_which_some_diverge_leave_the_others_done(tmp_path):
    """A second try trains only those that have no numbers, and they stay replicas."""
    rates = {"optimizer.learning_rate": [1e-3, 1e38]}
    base = tiny.experiment(
        "steps=3", "data.train_size=200", "data.eval-size=20", "optimizer.name=sgd", "checkpoint.every=1"
    )
    made = sweep(base=base, axes=rates, compare="optimizer.learning_rate", baseline="0.001", replicas=True)
    (unit,) = units(made, place(list(trials(made)), tmp_path))
    good, bad = (work.folder for work in unit)
    for _ in range(2):
        assert run_group(unit) == "diverged"
        assert outcome(good)["status"] == "done"
        assert "the step was not taken" in outcome(bad)["error"]
    ((left,),) = units(made, place(list(trials(made)), tmp_path))
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
    assert [tuple(point.values()) for point in points(made)] == [("none", "narrow"), ("none", "wide"), ("dot", "wide")]
    found = list(trials(made))
    assert [(cell.experiment.model.embedding, cell.experiment.steps, cell.seed) for cell in found] == [
        (8, 3, 0), (8, 3, 7), (24, 3, 0), (24, 3, 7), (24, 5, 0), (24, 5, 7)
    ]  # fmt: skip
    assert all(cell.experiment.seed == cell.seed for cell in found)
    assert found[-1].title == "dot-wide-seed7"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compare": "model.attention.scor"}, "compare must be one of model.attention.score, got"),
        ({"baseline": "dto"}, "did you mean 'dot'"),
        ({"axes": {SCORE: []}}, "axis 'model.attention.score' has no values"),
        ({"seeds": (1, 1)}, "seeds must differ, got [1, 1]"),
        ({"seeds": ()}, "needs one seed and one metric at least"),
        ({"metrics": ("exact",)}, "metrics must be one of"),
        ({"keep": lambda point: False}, "keep() leaves no point with model.attention.score=none"),
        ({"axes": {SCORE: ["none", "dto"]}}, "the point model.attention.score=dto: "),
        ({"axes": {SCORE: ["none"], "model.sise": [3]}}, "no setting 'model.sise'; did you mean"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        list(trials(sweep(**changes)))


def test_a_cell_that_cannot_be_trained_is_refused_before_any_is(tmp_path):
    made = sweep(axes={SCORE: ["dot"], "model.decoder.size": [33]}, baseline="dot")  # dot needs equal widths
    with pytest.raises(ValueError, match="dot-33-seed0: "):
        make_plan(made, tmp_path)
    assert not (tmp_path / "cells").exists()


def test_identity_is_what_is_trained_and_not_where():
    base, known = sweep().base, {}

    def identity(*changes):
        return identity_of(override(base, *changes), known)

    for same in ("device.count=2", "record.log_every=1", "search.beam=4", "evaluation.unit=phone", "data.directory=/x"):
        assert identity(same) == identity(), same
    for other in ("steps=4", "seed=9", "model.embedding=8", "search.rules.min-length=2", "data.seed=3"):
        assert identity(other) != identity(), other


def test_files_count_by_their_content(tmp_path):
    known = {}

    def written(name, text):
        (tmp_path / name).write_text(text)
        changes = (f"data.{split}={tmp_path / name}" for split in ("train", "validation", "test"))
        return identity_of(override(sweep().base, "data.lengths=[0,0]", *changes), known)

    one, copied = written("a.tsv", "a\tb\nc\td\n"), written("b.tsv", "a\tb\nc\td\n")
    assert one == copied
    assert written("a.tsv", "a\tb\nc\tx\n") != one
    assert len(known) == 3


def test_all_is_told_from_the_files_alone(finished):
    _, plan = finished
    assert (plan.done, plan.failed, plan.seconds) == (2, 0, 0.0)
    told = study(sweep(), plan.placed, name="tiny", claim="c", command="x")
    assert [(result.point[SCORE], result.seed, result.status) for result in told.results] == [
        ("none", 0, "done"), ("dot", 0, "done")
    ]  # fmt: skip
    for result in told.results:
        assert result.steps == result.best_step == 3
        assert result.tokens > 3 * 64
        assert result.metrics["exact_match"] == result.counts["exact_match"][:, 0].mean()
        assert len(result.lengths) == len(result.counts["exact_match"]) == 20
        assert result.curves["loss"][-1][0] == 3
        assert ("aer" in result.metrics) == (result.point[SCORE] == "dot")
        assert [shown.source for shown in result.gallery] == [shown.source for shown in told.results[0].gallery]
        assert result.gallery[0].alignment.shape == (
            len(result.gallery[0].tokens), len(result.gallery[0].source_tokens)
        )  # fmt: skip
    found = rows(plan.placed, "exact_match")
    assert summary(found) == "2 done"


def test_what_is_done_is_not_done_again_and_search_does_not_retrain(finished):
    folder, plan = finished
    assert units(sweep(), plan.placed) == []
    cell = plan.placed[1].folder
    before = {name: (cell / name).stat().st_mtime_ns for name in ("translations.json", "scores.json")}
    trained = (cell / "run" / "metrics.jsonl").read_bytes()
    wide = sweep(base=override(sweep().base, "search.beam=2"))
    left = units(wide, make_plan(wide, folder).placed)
    assert len(left) == 2, "translated by another search, so there is something to do"
    (unit,) = [unit for unit in left if unit[0].folder == cell]
    assert run_group(unit) == "done"
    after = {name: (cell / name).stat().st_mtime_ns for name in before}
    assert all(after[name] > before[name] for name in before)
    assert run_group(unit) == "done"
    assert {name: (cell / name).stat().st_mtime_ns for name in before} == after  # nothing new to ask
    assert (cell / "run" / "metrics.jsonl").read_bytes() == trained


def test_drift_is_refused_with_the_difference(finished):
    folder, _ = finished
    drifted = sweep(base=override(sweep().base, "optimizer.learning-rate=0.5"))
    with pytest.raises(ValueError, match=r"none-seed0-\w{8} was trained from other settings \(optimizer.learning_rate: "
                                         r"0\.02 before, 0\.5 now\); set them back"):  # fmt: skip
        place(list(trials(drifted)), folder)


def test_a_cell_that_diverges_is_listed(tmp_path):
    made = sweep(base=override(sweep().base, "optimizer.name=sgd", "optimizer.learning-rate=1e38", "optimizer.warmup_steps=0",
                               "optimizer.clip_norm=0"), axes={SCORE: ["none"]})  # fmt: skip
    plan = run_all(made, tmp_path)
    found = outcome(plan.placed[0].folder)
    assert found["status"] == "diverged"
    assert "the step was not taken" in found["error"]
    assert (plan.done, plan.failed) == (0, 1)
    assert [unit[0].folder for unit in units(made, plan.placed)] == [plan.placed[0].folder]  # to be tried again
    told = rows(plan.placed, "exact_match")
    assert summary(told) == "1 diverged"
    assert told[0].error == found["error"]


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


def test_the_commands_from_plan_to_report(file, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["sweep", "plan", str(file), "--out", out]) == 0
    said = capsys.readouterr().out
    assert "2 cells: 0 done, 0 failed" in said
    assert "1 comparison needs 6 seeds" in said
    assert main(["sweep", "verify", str(file), "--out", out]) == 2
    assert "is not done, so there is nothing to verify" in capsys.readouterr().err
    assert main(["sweep", "run", str(file), "--out", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed"] == []
    assert "done" in (Path(out) / "report" / "report.md").read_text()
    assert main(["sweep", "status", str(file), "--out", out]) == 0
    assert "2 done" in capsys.readouterr().out


def test_the_first_seeds_are_cells_of_the_whole_sweep(file, tmp_path, capsys):
    file.write_text(file.read_text() + "\n\ndef wide():\n    return dataclasses.replace(sweep(), seeds=(4, 9))\n")
    planned = []
    for seeds in ([], ["--seeds", "1"]):
        command = ["sweep", "plan", str(file), "--function", "wide", "--out", str(tmp_path), "--json", *seeds]
        assert main(command) == 0
        planned.append(json.loads(capsys.readouterr().out)["cells"])
    every, first = planned
    assert (len(every), len(first)) == (4, 2)
    assert set(first) < set(every)


def test_a_cell_that_is_trained_again_has_the_same_bits(finished):
    _, plan = finished
    ((work,),) = units(sweep(), plan.placed[:1], also_done=True)
    scores = work.folder / "scores.json"
    before = scores.read_text()
    changed = json.loads(before)
    changed["metrics"]["exact_match"] = 0.123
    scores.write_text(json.dumps(changed))
    found = verify(work)
    scores.write_text(before)
    assert found.digests[0] == found.digests[1]
    assert found.metrics == {"exact_match": (0.123, json.loads(before)["metrics"]["exact_match"])}
    assert not found.same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["plan", "nowhere"],
            "no sweep 'nowhere' (there are bottleneck, forcing, init_and_order, scores, or give a Python file)",
        ),
        (["plan", "alignment"], "alignment.py has no function sweep(); write one that returns a Sweep"),
        (
            ["plan", "scores", "--function", "form"],
            "no function form() (there are dates, luong, sounds, sweep, widths); ",
        ),
        (["plan", "FILE", "--function", "wrong"], "wrong() in FILE returned int, a Sweep or a Tuning is wanted"),
        (["plan", "FILE", "--function", "other"], "FILE has no function other()"),
        (["run", "FILE", "--executor", "moon"], "executor must be one of local, ray, slurm, got 'moon'"),
        (["plan", "FILE", "--modle.embedding", "3"], "did you mean 'model.embedding'"),
        (["plan", "FILE", "--function", "failing"], "missing.tsv"),
        (["plan", "FILE", "--seeds", "3"], "--seeds must be from 1 to 1, the seeds of the sweep, got 3"),
    ],
)
def test_mistakes_get_one_line(file, tmp_path, capsys, arguments, message):
    given = [str(file) if word == "FILE" else word for word in arguments]
    assert main(["sweep", *given, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert message.replace("FILE", str(file)) in said
    assert said.count("\n") == 1


@pytest.mark.wide
def test_a_worker_that_is_killed_costs_one_try_and_a_stopped_sweep_goes_on(tmp_path):
    long = sweep(base=override(sweep().base, "steps=4000", "record.log_every=1"))
    script = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_sweep
        from s2s_jax.sweep.launch import Where, launch

        if __name__ == "__main__":
            base = test_sweep.override(test_sweep.sweep().base, "steps=4000", "record.log_every=1")
            launched = launch(test_sweep.sweep(base=base), Path({str(tmp_path / "out")!r}), Where(), print)
            sys.exit(launched.signal)
        """
    )
    (tmp_path / "go.py").write_text(script)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, tmp_path / "go.py"], env=environment, stdout=subprocess.DEVNULL)
    placed = make_plan(long, tmp_path / "out").placed

    def steps():
        return rows(placed, "exact_match")[0].step

    def wait(condition):
        began = time.monotonic()
        while not condition():
            assert process.poll() is None or condition()
            assert time.monotonic() - began < 120
            time.sleep(0.1)

    def owner():
        found = re.search(r"pid (\d+)", (placed[0].folder / "run" / "lock").read_text())
        return int(found[1]) if found else 0

    wait(lambda: steps() > 3)
    first = owner()
    os.kill(first, signal.SIGKILL)
    wait(lambda: owner() not in (0, first) and steps() > 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == signal.SIGINT
    assert outcome(placed[0].folder)["status"] == "waiting"
    assert any((placed[0].folder / "run" / "checkpoints").glob("[0-9]*"))


@pytest.mark.wide
def test_slurm_runs_cells_tries_again_and_lists_what_fails(tmp_path):
    """submitit's own local executor: the same hand-over, processes for jobs."""
    options = {"cluster": "local", "timeout_min": "10"}
    bad = {"data.validation": str(tmp_path / "missing.tsv"), "data.train": str(tmp_path / "missing.tsv")}
    made = sweep(axes={"data": {"made up": {}, "missing": bad}}, compare="data", baseline="made up")
    (tmp_path / "missing.tsv").write_text("a\tb\n" * 3)
    plan = make_plan(made, tmp_path / "out")
    (tmp_path / "missing.tsv").unlink()  # after it was planned
    told = []
    signalled = run_on_slurm(
        units(made, plan.placed), lambda unit, status: told.append(status), options=options, jobs=2, retries=1
    )
    assert signalled == 0
    assert sorted(told) == ["done", "failed"]
    assert "missing.tsv" in outcome(plan.placed[1].folder)["error"]
    assert summary(rows(plan.placed, "exact_match")) == "1 done, 1 failed"


@pytest.mark.wide
def test_ray_runs_cells_on_a_cluster_of_two_workers(tmp_path):
    pytest.importorskip("ray")
    made = sweep(seeds=(0, 1), axes={SCORE: ["none"]})
    told = []
    signalled = run_on_ray(
        units(made, make_plan(made, tmp_path).placed),
        lambda unit, status: told.append(status),
        address="",
        jobs=2,
        retries=0,
    )
    assert (signalled, told) == (0, ["done", "done"])
    with pytest.raises(ValueError, match="no Ray cluster answers there"):
        run_on_ray([], lambda *_: None, address="127.0.0.1:1", jobs=1, retries=0)


@pytest.mark.wide
def test_a_tuning_finds_the_better_of_two(tmp_path, capsys):
    made = Tuning(base=sweep().base, ranges={"optimizer.learning_rate": [0.0, 0.05]}, trials=2, sampler="random")
    tuned = tune(made, tmp_path, lambda line: None)
    assert (tuned.trials, tuned.signal) == (2, 0)
    assert tuned.value is not None
    assert not list(tmp_path.glob("cells/*/scores.json"))  # nobody read the test split
    assert tune(made, tmp_path, lambda line: None) == tuned  # all of it is there already
    losses = {}
    for cell in tmp_path.glob("cells/*"):
        rate = read_json(cell / "cell.json")["point"]["optimizer.learning_rate"]
        losses[rate] = curves(metrics_of(cell))["loss"][-1][1]
    assert tuned.value == min(losses.values())
    assert str(tuned.settings["optimizer.learning_rate"]) == min(losses, key=losses.get)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ranges": {}}, "needs one range at least"),
        ({"ranges": {"optimizer.learning_rat": [1.0]}}, "no setting 'optimizer.learning_rat'"),
        ({"trials": 0}, "trials must be positive, got 0"),
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
    ],
)
def test_a_tuning_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Tuning(**{"base": sweep().base, "ranges": {"steps": Range(1, 3)}} | changes)
