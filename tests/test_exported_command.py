"""`s2s export`, and every command on what it has written: an option that cannot be honored is refused."""

import json

import jax
import pytest
from json_page import check_keys
from stdin import type_in

from s2s_jax.cli.arguments import COMMANDS


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """The trained run, exported with a beam of 2 by the command."""
    from s2s_jax.cli import main

    folder = tmp_path_factory.mktemp("exported") / "out"
    words = ["export", str(trained_run), str(folder), "--beam", "2", "--search.batch-size", "1", "--json"]
    assert main(words) == 0
    return folder


def test_an_export_is_made_and_translated(s2s, exported, monkeypatch):
    assert {path.name for path in exported.iterdir()} == {
        *("export.json", "parameters.safetensors", "source.tokenizer.json", "target.tokenizer.json"),
        *("greedy.program", "beam2.program"),
    }
    type_in(monkeypatch, b"a b\n")
    code, out, _ = s2s("translate", str(exported), "--n-best", "2")
    assert code == 0
    assert [line.split(" ||| ")[0] for line in out.splitlines()] == ["0", "0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--search.seed", "3"), "--search.seed was settled when"),
        (("--beam", "4"), "beam must be one that was exported (1 and 2), got 4"),
        (("--n-best", "3"), "--n-best 3 is more than search finds for a line, 2; export the run again"),
        (("--beam", "1", "--n-best", "2"), "--n-best 2 is more than search finds for a line, 1; use --beam 2"),
        (("--average", "2"), "has no --average; average when exporting: s2s export RUN DIR --average N"),
        (("--ensemble", "runs/other"), "has no --ensemble; translate with the runs themselves"),
        (("--ensemble-average", "linear"), "has no --ensemble-average; translate with the runs themselves"),
        (("--prefix", "/dev/null"), "has no --prefix; translate with the run itself"),
        (("--constraints", "/dev/null"), "has no --constraints; translate with the run itself"),
        (("--device.count", "2"), "--device.count has no effect in s2s translate"),
        (("--evaluation.unit", "word"), "--evaluation.unit has no effect in s2s translate"),
        (("--device.platform", "tpu"), "device.platform=tpu, but jax found cpu"),
    ],
)
def test_what_an_exported_run_cannot_honor_is_refused(s2s, exported, monkeypatch, options, message):
    type_in(monkeypatch, b"a b\n")
    code, out, errors = s2s("translate", str(exported), *options)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_an_exported_run_honors_the_settings_of_input_and_device(s2s, exported, monkeypatch, tmp_path):
    """`--device.cache ''` keeps nothing; otherwise the folder is that of this machine, never the training one's."""
    cache = jax.config.jax_compilation_cache_dir
    type_in(monkeypatch, b"a b\n\xff\nc\n")
    settings = ("--data.encoding-errors", "skip", "--device.platform", "cpu", "--window", "1")
    code, out, errors = s2s("translate", str(exported), *settings, "--device.cache", "")
    assert (code, out) == (0, "a b\n\nc\n")
    assert errors == "1 x line that is not UTF-8 (skip) (stdin:2)\n"
    assert jax.config.jax_compilation_cache_dir == cache
    try:
        type_in(monkeypatch, b"a b\n")
        assert s2s("translate", str(exported), "--device.cache", str(tmp_path / "kept"))[0] == 0
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "kept")
    finally:
        jax.config.update("jax_compilation_cache_dir", cache)


RUN_READERS = [name for name in COMMANDS if name in ("evaluate", "score", "align", "info", "export")]


@pytest.mark.parametrize("command", RUN_READERS)
def test_commands_that_need_a_trained_run_name_an_exported_one(s2s, exported, tmp_path, command):
    more = [str(tmp_path / "again")] * (command == "export")
    code, out, errors = s2s(command, str(exported), *more)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert f"{exported} is an exported run, which only s2s translate and s2s serve read" in errors


def test_an_exported_run_is_no_part_of_an_ensemble(s2s, exported, trained_run):
    code, _, errors = s2s("translate", str(trained_run), "--ensemble", str(exported))
    assert code == 2
    assert f"{exported} is an exported run" in errors
    code, _, errors = s2s("train", str(exported))
    assert code == 2
    assert f"{exported} is an exported run" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export", "RUN", "OUT", "--beam", "0"), "--beam must be at least 1, got 0"),
        (("export", "RUN", "OUT", "--parameters-only", "--beam", "3"), "--beam is for programs, which"),
        (("export", "RUN", "OUT", "--beam", "3", "--search.beam", "4"), "--beam and --search.beam are one setting"),
        (("export", "RUN", "OUT", "--max-length", "3", "--search.max-length", "4"), "are one setting"),
        (("evaluate", "RUN", "--beam", "3", "--search.beam", "4"), "--beam and --search.beam are one setting"),
        (("evaluate", "RUN", "--ensemble-average", "linear"), "--ensemble-average is for an ensemble"),
        (("score", "RUN", "--input", "a", "--n-best", "b"), "--n-best and --input both name pairs"),
        (("align", "RUN", "--input", "a", "--split", "test"), "--input and --split both name what to draw"),
        (("export", "RUN", "OUT", "--data.train", "x"), "--data.train has no effect in s2s export"),
        (("score", "RUN", "--evaluation.unit", "word"), "--evaluation.unit has no effect in s2s score"),
        (("completion", "bash", "--json"), "completion has no JSON"),
    ],
)
def test_an_option_without_effect_is_refused(s2s, trained_run, tmp_path, words, message):
    names = {"RUN": str(trained_run), "OUT": str(tmp_path / "out")}
    code, out, errors = s2s(*(names.get(word, word) for word in words))
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_the_beam_of_the_search_is_exported_where_it_is_set(s2s, trained_run, tmp_path):
    code, out, _ = s2s("export", str(trained_run), str(tmp_path / "out"), "--search.beam", "3", "--json")
    assert code == 0
    assert "beam3.program" in json.loads(out)["files"]
    check_keys("export", json.loads(out))


@pytest.mark.parametrize("command", ["translate", "evaluate", "score", "align"])
def test_a_platform_that_is_not_there_is_refused_by_every_command(s2s, trained_run, command):
    """Row 48 of the faults."""
    code, out, errors = s2s(command, str(trained_run), "--device.platform", "gpu")
    assert (code, out) == (2, "")
    assert errors == "s2s: device.platform=gpu, but jax found cpu; install jax for gpu.\n"


def test_an_accelerator_that_is_left_idle_is_said(s2s, trained_run, exported, monkeypatch):
    """Row 48 of the faults: jax falls back to the CPU without a word."""
    monkeypatch.setattr("s2s_jax.training.devices.gpus", lambda: ["NVIDIA H100"])
    for run in (trained_run, exported):
        type_in(monkeypatch, b"a b\n")
        code, out, errors = s2s("translate", str(run))
        assert (code, out) == (0, "a b\n")
        assert errors == "warning: running on the CPU although there is a NVIDIA H100; install jax[cuda13].\n"
